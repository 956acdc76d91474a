//! Forwarding to the replicas of a session.

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use dfs_types::{BLOCK_SIZE, ErrorCode, Frame, NodeId, Random, Receipt, SessionId};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};

use crate::sender::{Link, SenderConfig, send_chunk};
use crate::{Dropped, Error, FrameSource, Outcome};

/// A node that frames are forwarded to.
pub struct Downstream {
    /// Id of the node.
    pub node: NodeId,
    /// The session that was prepared there.
    pub session: SessionId,
    /// Link to the node.
    pub link: Arc<dyn Link>,
}

/// A replica being written by a task that ends when this is dropped.
pub(crate) struct Forwarder {
    node: NodeId,
    frames: mpsc::Sender<Frame>,
    progress: watch::Receiver<Progress>,
}

#[derive(Debug, Clone)]
enum Progress {
    Received(u64),
    Ended(Result<Outcome, Error>),
}

impl Forwarder {
    pub(crate) fn start(
        replica: Downstream,
        config: SenderConfig,
        random: Arc<dyn Random>,
    ) -> Self {
        // As many frames as fit the window if each has a single block, plus the last.
        let (frames, incoming) = mpsc::channel((config.window / BLOCK_SIZE as u64) as usize + 2);
        let (tell, progress) = watch::channel(Progress::Received(0));
        let node = replica.node;
        let work = async move {
            let mut source = Forwarding::new(incoming);
            let on_progress = |offset| drop(tell.send(Progress::Received(offset)));
            let link = replica.link.as_ref();
            let sending = send_chunk(
                link,
                replica.session,
                &mut source,
                &config,
                random.as_ref(),
                on_progress,
            );
            let ended = tokio::select! {
                biased;
                // The session is gone, or has dropped the replica: the result is not needed.
                () = tell.closed() => return,
                ended = sending => ended,
            };
            drop(tell.send(Progress::Ended(ended)));
        };
        drop(dfs_transport::spawn_in_request(work));
        Self { node, frames, progress }
    }

    /// Forwards a frame without waiting. On an error the replica must be dropped, as it would miss
    /// the frame.
    pub(crate) fn forward(&self, frame: Frame) -> Result<(), Dropped> {
        match self.frames.try_send(frame) {
            // It has ended by itself; `failure` returns the reason.
            Ok(()) | Err(TrySendError::Closed(_)) => Ok(()),
            Err(TrySendError::Full(_)) => {
                Err(self.dropped(&Error::Cut("too many frames are queued".to_owned())))
            }
        }
    }

    /// Waits for a change. Cancel-safe.
    pub(crate) async fn changed(&mut self) {
        // An error is a change too; `failure` returns it.
        drop(self.progress.changed().await);
    }

    /// Returns how much it has received.
    pub(crate) fn received(&self) -> u64 {
        match &*self.progress.borrow() {
            Progress::Received(offset) => *offset,
            Progress::Ended(_) => 0,
        }
    }

    /// Returns why it has failed, if it has.
    pub(crate) fn failure(&self) -> Option<Dropped> {
        let is_over = self.progress.has_changed().is_err();
        match &*self.progress.borrow() {
            Progress::Received(_) if is_over => Some(self.dropped(&lost())),
            Progress::Ended(Err(error)) => Some(self.dropped(error)),
            Progress::Received(_) | Progress::Ended(Ok(_)) => None,
        }
    }

    /// Waits until the replica is durable. Bounded by the sender's limits.
    pub(crate) async fn end(mut self) -> Result<Receipt, Dropped> {
        let ended =
            match self.progress.wait_for(|p| matches!(p, Progress::Ended(_))).await.as_deref() {
                Ok(Progress::Ended(ended)) => ended.clone(),
                Ok(Progress::Received(_)) | Err(_) => Err(lost()),
            };
        let receipt = ended.and_then(|outcome| match outcome.receipts[..] {
            [receipt] if receipt.node == self.node => Ok(receipt),
            _ => Err(Error::Refused {
                code: ErrorCode::Internal,
                message: "its receipt is from another node".to_owned(),
            }),
        });
        receipt.map_err(|error| self.dropped(&error))
    }

    fn dropped(&self, error: &Error) -> Dropped {
        Dropped { node: self.node, code: error.code(), message: error.to_string() }
    }
}

fn lost() -> Error {
    Error::Refused {
        code: ErrorCode::Internal,
        message: "forwarding ended without a result".to_owned(),
    }
}

/// Frames being forwarded: kept until acknowledged, so that a broken stream to the next node can be
/// resumed. Bounded by the window of the session.
struct Forwarding {
    incoming: mpsc::Receiver<Frame>,
    kept: VecDeque<Frame>,
    position: usize,
    is_complete: bool,
}

impl Forwarding {
    fn new(incoming: mpsc::Receiver<Frame>) -> Self {
        Self { incoming, kept: VecDeque::new(), position: 0, is_complete: false }
    }
}

#[async_trait]
impl FrameSource for Forwarding {
    async fn next(&mut self) -> Result<Option<Frame>, Error> {
        if self.position == self.kept.len() {
            if self.is_complete {
                return Ok(None);
            }
            let Some(frame) = self.incoming.recv().await else {
                return Err(Error::Source("the session of the sender ended".to_owned()));
            };
            self.is_complete = frame.seal.is_some();
            self.kept.push_back(frame);
        }
        let frame = self.kept.get(self.position).cloned();
        self.position += 1;
        Ok(frame)
    }

    fn rewind(&mut self, offset: u64) -> Result<(), Error> {
        let found = self.kept.iter().position(|frame| frame.offset >= offset);
        self.position = found.unwrap_or(self.kept.len());
        let expected = self.kept.get(self.position).map_or(offset, |frame| frame.offset);
        if expected != offset {
            return Err(Error::Source(format!("bytes from {offset} on are no longer kept")));
        }
        Ok(())
    }

    fn acknowledge(&mut self, offset: u64) {
        // The last frame stays: it is needed to request the final reply again.
        while self.kept.front().is_some_and(|f| f.end() <= offset && f.seal.is_none())
            && self.position > 0
        {
            self.kept.pop_front();
            self.position -= 1;
        }
    }
}
