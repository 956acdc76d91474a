//! Watches that survive failures of members and connections.

use std::collections::VecDeque;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dfs_etcd::etcdserverpb::WatchCreateRequest;
use dfs_etcd::mvccpb::Event;
use dfs_etcd::mvccpb::event::EventType;
use dfs_etcd::{Client, Error, RetryBudget, WatchAnswer, WatchStream};
use dfs_metadata::engine::{Change, EngineError, Watch};
use dfs_types::Revision;

use super::failure::read_error;
use super::keys::Keys;

/// Time limit of opening a new stream; the next call tries again.
const CONNECT_BUDGET: Duration = Duration::from_secs(8);

/// Pause after a broken stream, as the next one might break at once.
const RECONNECT_PAUSE: Duration = Duration::from_millis(50);

/// A watch. It takes from etcd only what its reader asks for. After a broken stream it continues at
/// another member, after the last complete revision.
#[derive(Debug)]
pub(super) struct EtcdWatch {
    client: Client,
    keys: Keys,
    prefix: Bytes,
    /// All changes up to this revision were received.
    position: i64,
    /// Received changes to be reported.
    ready: VecDeque<Change>,
    /// Changes of the revision after `position`, which may have more.
    partial: Vec<Event>,
    stream: Option<WatchStream>,
}

impl EtcdWatch {
    /// Watches changes under `prefix` after `position`, from the return of this call on.
    pub(super) async fn open(
        client: Client,
        keys: Keys,
        prefix: Bytes,
        position: i64,
    ) -> Result<Self, EngineError> {
        let (ready, partial) = (VecDeque::new(), Vec::new());
        let mut watch = Self { client, keys, prefix, position, ready, partial, stream: None };
        watch.connect().await?;
        Ok(watch)
    }

    async fn connect(&mut self) -> Result<&mut WatchStream, EngineError> {
        if self.stream.is_none() {
            self.partial.clear();
            let mut budget = RetryBudget::new(CONNECT_BUDGET);
            let stream = loop {
                match self.client.watch(self.request(), &mut budget).await {
                    Err(Error::NoAnswer(_) | Error::Unreachable(_))
                        if budget.pause(self.client.members()).await => {}
                    result => break result.map_err(|error| read_error(error, self.position))?,
                }
            };
            self.stream = Some(stream);
        }
        self.stream.as_mut().ok_or_else(|| EngineError::Unavailable("no stream".to_owned()))
    }

    fn request(&self) -> WatchCreateRequest {
        WatchCreateRequest {
            key: self.keys.user(&self.prefix),
            range_end: self.keys.end(&self.prefix),
            start_revision: self.position + 1,
            fragment: true,
        }
    }

    fn take(&mut self, answer: WatchAnswer) {
        self.partial.extend(answer.events);
        let Some(last) = self.partial.last().map(revision) else { return };
        let whole = if answer.is_partial {
            self.partial.partition_point(|event| revision(event) < last)
        } else {
            self.partial.len()
        };
        for event in self.partial.drain(..whole) {
            self.position = revision(&event);
            self.ready.extend(change(&self.keys, event));
        }
    }
}

fn revision(event: &Event) -> i64 {
    event.kv.as_ref().map_or(0, |kv| kv.mod_revision)
}

fn change(keys: &Keys, event: Event) -> Option<Change> {
    let is_put = event.r#type() == EventType::Put;
    let kv = event.kv?;
    Some(Change {
        // Copied, as they would keep the whole reply alive.
        key: Bytes::copy_from_slice(&keys.strip(&kv.key)),
        value: is_put.then(|| Bytes::copy_from_slice(&kv.value)),
        revision: Revision(kv.mod_revision as u64),
    })
}

#[async_trait]
impl Watch for EtcdWatch {
    async fn next(&mut self) -> Result<Change, EngineError> {
        loop {
            if let Some(change) = self.ready.pop_front() {
                return Ok(change);
            }
            match self.connect().await?.next().await {
                Ok(answer) => self.take(answer),
                Err(Error::NoAnswer(why)) => {
                    tracing::debug!(why, "reopening a watch of etcd");
                    self.stream = None;
                    tokio::time::sleep(RECONNECT_PAUSE).await;
                }
                Err(error) => {
                    self.stream = None;
                    return Err(read_error(error, self.position));
                }
            }
        }
    }
}
