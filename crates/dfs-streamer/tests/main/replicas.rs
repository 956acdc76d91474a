//! Forwarding: at once, to replicas that keep up; the others are dropped.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dfs_streamer::{
    Ack, Attachment, Error, FrameSource, Link, SenderConfig, Session, SessionConfig,
};
use dfs_types::{ErrorCode, Frame, SessionId};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::toy::{
    BLOCK, Direct, MIB, Meddled, Meddler, Node, bytes, config, frames, receipt, run, seal, send,
    source,
};

/// Returns its last frame only after another node has started to write the first.
struct LastAfter(Vec<Frame>, Node);

#[async_trait]
impl FrameSource for LastAfter {
    async fn next(&mut self) -> Result<Option<Frame>, Error> {
        if self.0.len() == 1 {
            self.1.appends_begun(1).await;
        }
        Ok(if self.0.is_empty() { None } else { Some(self.0.remove(0)) })
    }

    fn rewind(&mut self, _offset: u64) -> Result<(), Error> {
        panic!("nothing broke");
    }

    fn acknowledge(&mut self, _offset: u64) {}
}

#[test]
fn replica_has_the_first_frame_before_the_primary_has_the_last() {
    run(async {
        let (primary, replica) = (Node::new(1), Node::new(2));
        let link = Arc::new(Direct(replica.session(config(1), Vec::new())));
        let session = primary.session(config(2), vec![replica.replica(link)]);
        let content = bytes(2 * BLOCK, 1);
        let mut source = LastAfter(frames(&content, BLOCK), replica.clone());
        let started = Instant::now();
        let outcome = send(&Direct(session), &mut source).await.unwrap();
        assert_eq!(outcome.receipts.len(), 2);
        assert_eq!(replica.sealed().unwrap(), content);
        assert_eq!(started.elapsed(), Duration::ZERO, "no wait for a timer");
    });
}

#[test]
fn frame_is_forwarded_before_it_is_written() {
    run(async {
        let (primary, replica) = (Node::new(1), Node::new(2));
        primary.0.may_append.send_replace(false);
        let link = Arc::new(Direct(replica.session(config(1), Vec::new())));
        let session = primary.session(config(2), vec![replica.replica(link)]);
        let content = bytes(BLOCK, 1);
        let sending = tokio::spawn(async move {
            send(&Direct(session), &mut source(frames(&content, BLOCK))).await
        });
        // The disk of the primary stalls; the replica seals nevertheless.
        replica.sealing_begun().await;
        assert_eq!(primary.written(), 0);
        primary.0.may_append.send_replace(true);
        assert_eq!(sending.await.unwrap().unwrap().receipts.len(), 2);
    });
}

/// A link that accepts everything and never replies, either to attaching or afterwards.
struct Silent {
    attaches: bool,
}

#[async_trait]
impl Link for Silent {
    async fn attach(&self, _session: SessionId, _number: u64) -> Result<Attachment, Error> {
        if !self.attaches {
            std::future::pending::<()>().await;
        }
        let (frames, mut incoming) = tokio::sync::mpsc::channel(1);
        tokio::spawn(async move { while incoming.recv().await.is_some() {} });
        let attached = futures_util::stream::iter([Ok(Ack::Attached { resume: 0 })]);
        let acks = futures_util::StreamExt::chain(attached, futures_util::stream::pending());
        Ok(Attachment { frames, acks: Box::pin(acks) })
    }
}

/// Returns a primary with a healthy replica and one behind `link`.
fn three(link: Arc<dyn Link>, min_replicas: usize) -> (Node, Node, Arc<Session>) {
    let (primary, sound, other) = (Node::new(1), Node::new(2), Node::new(3));
    let direct = Arc::new(Direct(sound.session(config(1), Vec::new())));
    let replicas = vec![sound.replica(direct), other.replica(link)];
    let session = primary.session(config(min_replicas), replicas);
    (primary, sound, session)
}

#[test]
fn stalled_replica_is_dropped_before_the_client_times_out() {
    for attaches in [false, true] {
        run(async {
            let (primary, sound, session) = three(Arc::new(Silent { attaches }), 2);
            let content = bytes(12 << 20, 1);
            let started = Instant::now();
            let outcome = send(&Direct(session), &mut source(frames(&content, 1 << 20))).await;
            let outcome = outcome.unwrap();
            assert_eq!(outcome.receipts.len(), 2);
            assert_eq!(outcome.dropped.len(), 1);
            assert_eq!(outcome.dropped[0].node, Node::new(3).0.id);
            assert_eq!(outcome.dropped[0].code, ErrorCode::Unavailable);
            assert_eq!(primary.sealed().unwrap(), content);
            assert_eq!(sound.sealed().unwrap(), content);
            let stall = SenderConfig::between_nodes().stall;
            assert!(started.elapsed() >= stall && started.elapsed() < 2 * stall);
        });
    }
}

#[test]
fn session_fails_when_too_few_replicas_are_left() {
    run(async {
        let (primary, _, session) = three(Arc::new(Silent { attaches: true }), 3);
        let content = bytes(12 << 20, 1);
        let link = Direct(session);
        let error = send(&link, &mut source(frames(&content, 1 << 20))).await.unwrap_err();
        assert!(matches!(error, Error::TooFewReplicas { left: 2, wanted: 3, .. }), "{error:?}");
        assert_eq!(error.code(), ErrorCode::NotEnoughNodes);
        assert!(error.to_string().contains(&Node::new(3).0.id.to_string()), "{error}");
        assert_eq!(primary.sealed(), None);
        // A later stream gets the same error.
        let again = link.0.attach(9, futures_util::stream::pending()).recv().await;
        assert_eq!(again, Some(Err(error)));
    });
}

#[test]
fn replica_that_does_not_seal_is_dropped() {
    run(async {
        let (primary, replica) = (Node::new(1), Node::new(2));
        replica.0.may_seal.send_replace(false);
        let link = Arc::new(Direct(replica.session(config(1), Vec::new())));
        let session = primary.session(config(1), vec![replica.replica(link)]);
        let content = bytes(BLOCK, 1);
        let outcome = send(&Direct(session), &mut source(frames(&content, BLOCK))).await.unwrap();
        assert_eq!(outcome.receipts.len(), 1);
        assert_eq!(outcome.dropped[0].code, ErrorCode::Unavailable);
    });
}

#[test]
fn replica_with_a_failed_disk_is_dropped_but_a_primary_fails_the_session() {
    for (failing, survives) in [(2_u128, true), (1, false)] {
        run(async {
            let (primary, replica) = (Node::new(1), Node::new(2));
            let broken = if failing == 1 { &primary } else { &replica };
            broken.0.failing_append.store(2, std::sync::atomic::Ordering::Relaxed);
            let link = Arc::new(Direct(replica.session(config(1), Vec::new())));
            let session = primary.session(config(1), vec![replica.replica(link)]);
            let content = bytes(3 * BLOCK, 1);
            let link = Direct(session.clone());
            let result = send(&link, &mut source(frames(&content, BLOCK))).await;
            // The outcome of a session does not change.
            let again = session.attach(9, futures_util::stream::pending()).recv().await;
            assert_eq!(again, Some(result.clone().map(Ack::Sealed)));
            if survives {
                let outcome = result.unwrap();
                assert_eq!(outcome.receipts.len(), 1);
                assert!(outcome.dropped[0].message.contains("disk on fire"), "{outcome:?}");
            } else {
                assert_eq!(result, Err(Error::Source("disk on fire".to_owned())));
            }
            assert_eq!(broken.sealed(), None);
        });
    }
}

/// A link whose task panics.
struct Dying;

#[async_trait]
impl Link for Dying {
    async fn attach(&self, _session: SessionId, _number: u64) -> Result<Attachment, Error> {
        panic!("as intended by this test");
    }
}

#[test]
fn replica_whose_task_panics_is_dropped() {
    run(async {
        let (_, _, session) = three(Arc::new(Dying), 2);
        let content = bytes(3 * BLOCK, 1);
        let outcome = send(&Direct(session), &mut source(frames(&content, BLOCK))).await.unwrap();
        assert_eq!(outcome.receipts.len(), 2);
        assert_eq!(outcome.dropped[0].code, ErrorCode::Internal);
    });
}

/// A replica that replies with the receipt of another node.
struct Impostor;

#[async_trait]
impl Meddler for Impostor {
    async fn ack(&self, _stream: u64, mut ack: Ack) -> Option<Vec<Ack>> {
        if let Ack::Sealed(outcome) = &mut ack {
            outcome.receipts = vec![receipt(Node::new(1).0.id, &seal(&bytes(BLOCK, 1)))];
        }
        Some(vec![ack])
    }
}

#[test]
fn receipt_of_another_node_is_rejected() {
    run(async {
        let (primary, replica) = (Node::new(1), Node::new(2));
        let link = Direct(replica.session(config(1), Vec::new()));
        let link = Arc::new(Meddled::new(link, Impostor));
        let session = primary.session(config(2), vec![replica.replica(link)]);
        let sent = send(&Direct(session), &mut source(frames(&bytes(BLOCK, 1), BLOCK))).await;
        assert!(matches!(sent, Err(Error::TooFewReplicas { left: 1, wanted: 2, .. })), "{sent:?}");
    });
}

/// Lets frames through one by one, on demand.
struct Metered(watch::Sender<usize>);

#[async_trait]
impl Meddler for Metered {
    async fn frame(&self, _stream: u64, frame: Frame) -> Option<Vec<Frame>> {
        let mut allowed = self.0.subscribe();
        allowed.wait_for(|allowed| *allowed > 0).await.unwrap();
        self.0.send_modify(|allowed| *allowed -= 1);
        Some(vec![frame])
    }
}

#[test]
fn slow_replica_slows_the_sender_and_stays() {
    run(async {
        let (primary, replica) = (Node::new(1), Node::new(2));
        let allowed = watch::Sender::new(0);
        let link = Direct(replica.session(config(1), Vec::new()));
        let link = Arc::new(Meddled::new(link, Metered(allowed.clone())));
        let bounds = SessionConfig {
            sender: SenderConfig { window: MIB, ..SenderConfig::between_nodes() },
            ..config(2)
        };
        let session = primary.session(bounds, vec![replica.replica(link)]);
        let content = bytes(8 << 20, 1);
        let clock = tokio::spawn(async move {
            // 64 KiB every 4 s: slower than anything but a stall of 5 s.
            loop {
                tokio::time::sleep(Duration::from_secs(4)).await;
                allowed.send_modify(|allowed| *allowed += 1);
            }
        });
        let outcome = send(&Direct(session), &mut source(frames(&content, BLOCK))).await.unwrap();
        clock.abort();
        assert_eq!(outcome.receipts.len(), 2);
        assert_eq!(replica.sealed().unwrap(), content);
    });
}

#[test]
fn pausing_sender_does_not_cost_replicas() {
    /// Pauses before the last frame.
    struct Pausing(Vec<Frame>);

    #[async_trait]
    impl FrameSource for Pausing {
        async fn next(&mut self) -> Result<Option<Frame>, Error> {
            if self.0.len() == 1 {
                tokio::time::sleep(Duration::from_mins(2)).await;
            }
            Ok(if self.0.is_empty() { None } else { Some(self.0.remove(0)) })
        }

        fn rewind(&mut self, _offset: u64) -> Result<(), Error> {
            panic!("nothing broke");
        }

        fn acknowledge(&mut self, _offset: u64) {}
    }

    run(async {
        let (primary, replica) = (Node::new(1), Node::new(2));
        let link = Arc::new(Direct(replica.session(config(1), Vec::new())));
        let session = primary.session(config(2), vec![replica.replica(link)]);
        let content = bytes(2 * BLOCK, 1);
        let outcome = send(&Direct(session), &mut Pausing(frames(&content, BLOCK))).await.unwrap();
        assert_eq!(outcome.receipts.len(), 2);
    });
}
