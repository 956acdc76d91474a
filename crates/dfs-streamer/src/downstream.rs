//! Handing on to the replicas of a session.

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use dfs_types::{BLOCK_SIZE, ErrorCode, Frame, NodeId, Random, Receipt, SessionId};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};

use crate::sender::{Link, SenderConfig, send_chunk};
use crate::{Dropped, Error, FrameSource, Outcome};

/// A node that the frames are handed on to.
pub struct Downstream {
    /// Who.
    pub node: NodeId,
    /// The session that was prepared there.
    pub session: SessionId,
    /// The way there.
    pub link: Arc<dyn Link>,
}

/// A replica that is being fed, by a task that ends when this is dropped.
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
        // As many frames as fit the window when each has but one block, and the last.
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
                // The session is gone, or has dropped the replica: nobody wants the answer.
                () = tell.closed() => return,
                ended = sending => ended,
            };
            drop(tell.send(Progress::Ended(ended)));
        };
        drop(dfs_transport::spawn_in_request(work));
        Self { node, frames, progress }
    }

    /// Hands a frame on without waiting. An error says that the replica must be dropped, as it
    /// would miss the frame.
    pub(crate) fn forward(&self, frame: Frame) -> Result<(), Dropped> {
        match self.frames.try_send(frame) {
            // It has ended by itself, and `failure` will tell why.
            Ok(()) | Err(TrySendError::Closed(_)) => Ok(()),
            Err(TrySendError::Full(_)) => {
                Err(self.dropped(&Error::Cut("too many frames wait for it".to_owned())))
            }
        }
    }

    /// Waits until there is news. Cancel-safe.
    pub(crate) async fn changed(&mut self) {
        // An error is news too, which `failure` tells.
        drop(self.progress.changed().await);
    }

    /// How much it has received.
    pub(crate) fn received(&self) -> u64 {
        match &*self.progress.borrow() {
            Progress::Received(offset) => *offset,
            Progress::Ended(_) => 0,
        }
    }

    /// Why it is of no more use, if it is not.
    pub(crate) fn failure(&self) -> Option<Dropped> {
        let is_over = self.progress.has_changed().is_err();
        match &*self.progress.borrow() {
            Progress::Received(_) if is_over => Some(self.dropped(&lost())),
            Progress::Ended(Err(error)) => Some(self.dropped(error)),
            Progress::Received(_) | Progress::Ended(Ok(_)) => None,
        }
    }

    /// Waits for the replica to be durable. The sender's bounds bound this too.
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
                message: "its receipt is not its own".to_owned(),
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
        message: "handing on ended without a result".to_owned(),
    }
}

/// Frames on their way through: kept until they are acknowledged, so that a broken stream to the
/// next node can be taken up again. The session bounds them by its window.
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
        // The last frame stays: with it the final answer can be asked for again.
        while self.kept.front().is_some_and(|f| f.end() <= offset && f.seal.is_none())
            && self.position > 0
        {
            self.kept.pop_front();
            self.position -= 1;
        }
    }
}
