//! Clients that make calls and record the replies.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dfs_client::{
    Client, DeleteOptions, Error, FileStat, Follow, GetOptions, MakeDirectoryOptions, PutOptions,
    PutSource, RenameOptions,
};
use dfs_types::{CHUNK_SIZE_MIN, DfsPath, ErrorCode, Random as _, SeededRandom};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::history::{Answer, Call, Operation, Path, Seen, content, writer_of};

/// Interval between calls of a client, unless a call takes longer.
const PACE: Duration = Duration::from_millis(60);
/// Maximum number of reopens of a file that was replaced so long ago that its bytes are gone.
const REOPENS: u32 = 10;

/// Groups of names per round.
pub(super) const GROUPS: u32 = 4;

/// A call without a usable reply, which no fault here excuses.
#[derive(Debug, Clone)]
pub(super) struct Failed {
    pub(super) called: u64,
    pub(super) returned: u64,
    pub(super) what: String,
}

/// State shared by all clients of a run.
#[derive(Debug)]
pub(super) struct Records {
    began: Instant,
    next: AtomicU32,
    operations: Mutex<Vec<Operation>>,
    failed: Mutex<Vec<Failed>>,
}

impl Records {
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            next: AtomicU32::new(2),
            operations: Mutex::default(),
            failed: Mutex::default(),
        }
    }

    /// Returns the microseconds since the start.
    pub(super) fn now(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }

    /// Takes the records of a round.
    pub(super) fn take(&self) -> Vec<Operation> {
        std::mem::take(&mut self.operations.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes the calls that failed since the last time.
    pub(super) fn take_failed(&self) -> Vec<Failed> {
        std::mem::take(&mut self.failed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn add(&self, operation: Operation) {
        self.operations.lock().unwrap_or_else(PoisonError::into_inner).push(operation);
    }

    fn add_failed(&self, failed: Failed) {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).push(failed);
    }
}

/// One client in one round.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) client: Client,
    pub(super) round: u32,
    pub(super) records: Arc<Records>,
}

impl Caller {
    /// Creates the directories of the round.
    pub(super) async fn make_groups(&self) -> Result<(), Error> {
        for group in 0..GROUPS {
            let path = self.path(group, &[]);
            self.client
                .make_directory(&path, MakeDirectoryOptions::default().parents(true))
                .await?;
        }
        Ok(())
    }

    /// Makes calls determined by `seed` until stopped.
    pub(super) async fn run(self, seed: u64, stop: Arc<AtomicBool>) {
        let random = SeededRandom::new(seed);
        let mut pace = interval(PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !stop.load(Ordering::Relaxed) {
            pace.tick().await;
            let group = random.below(u64::from(GROUPS)) as u32;
            self.recorded(group, Call::any(&random)).await;
        }
    }

    /// Reads everything that may exist.
    pub(super) async fn look(&self) {
        for group in 0..GROUPS {
            for call in Call::looks() {
                self.recorded(group, call).await;
            }
        }
    }

    async fn recorded(&self, group: u32, call: Call) {
        let records = &self.records;
        let number = records.next.fetch_add(1, Ordering::Relaxed);
        let called = records.now();
        let answer = self.answer(number, group, call).await;
        let returned = records.now();
        let answer = match answer {
            Ok(answer) => answer,
            Err(LoadError::Call(error)) if is_refusal(error.code()) => Answer::Failed(error.code()),
            Err(error) => {
                let what = format!("#{number} {call:?} in group {group}: {error}");
                records.add_failed(Failed { called, returned, what });
                match error {
                    LoadError::Call(error) if error.is_outcome_unknown() => Answer::Unknown,
                    // Nothing happened, and nothing was read.
                    LoadError::Call(_) | LoadError::Content(_) => return,
                }
            }
        };
        records.add(Operation { number, group, call, answer, called, returned });
    }

    async fn answer(&self, number: u32, group: u32, call: Call) -> Result<Answer, LoadError> {
        let client = &self.client;
        let path = |path| self.path(group, path);
        Ok(match call {
            Call::MakeDirectory(at) => {
                let made =
                    client.make_directory(&path(at), MakeDirectoryOptions::default()).await?;
                Answer::Made(made.inode.0)
            }
            Call::Put(at) => {
                let options = PutOptions::default().chunk_size(CHUNK_SIZE_MIN);
                let source = PutSource::bytes(content(number));
                Answer::Made(client.put(&path(at), source, options).await?.inode.0)
            }
            Call::Rename(from, to) => {
                client.rename(&path(from), &path(to), RenameOptions::default()).await?;
                Answer::Done
            }
            Call::Delete { path: at, recursive } => {
                let options = DeleteOptions::default().recursive(recursive);
                client.delete(&path(at), options).await?;
                Answer::Done
            }
            Call::Stat(at) => Answer::Seen(seen(&client.stat(&path(at), Follow::Yes).await?)),
            Call::List(at) => {
                let mut listing = client.list(path(at));
                let mut entries = Vec::new();
                while let Some(entry) = listing.next().await? {
                    entries.push((entry.name.to_string(), seen(&entry.stat)));
                }
                Answer::Listed(entries)
            }
            Call::Read(at) => self.read(&path(at)).await?,
        })
    }

    async fn read(&self, path: &DfsPath) -> Result<Answer, LoadError> {
        for _ in 0..REOPENS {
            match self.read_once(path).await {
                Err(LoadError::Call(error)) if error.code() == ErrorCode::Stale => {}
                answer => return answer,
            }
        }
        self.read_once(path).await
    }

    async fn read_once(&self, path: &DfsPath) -> Result<Answer, LoadError> {
        let mut reader = self.client.get(path, GetOptions::default()).await?;
        let mut bytes = Vec::new();
        while let Some(part) = reader.next().await? {
            bytes.extend_from_slice(&part);
        }
        Ok(Answer::Read(seen(reader.stat()), writer_of(&bytes).map_err(LoadError::Content)?))
    }

    fn path(&self, group: u32, path: Path) -> DfsPath {
        let path = format!("/round-{}/group-{group}/{}", self.round, path.join("/"));
        DfsPath::new(path.trim_end_matches('/').to_owned()).expect("a valid path")
    }
}

/// Why there is no reply.
#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error("{}: {_0}", _0.code())]
    Call(#[from] Error),
    #[error("{_0}")]
    Content(String),
}

fn seen(stat: &FileStat) -> Seen {
    Seen { inode: stat.inode.0, kind: stat.kind, size: stat.size }
}

/// Returns true if a failure reveals something about the names, like the model.
fn is_refusal(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::NotFound
            | ErrorCode::AlreadyExists
            | ErrorCode::NotEmpty
            | ErrorCode::NotADirectory
            | ErrorCode::IsADirectory
            | ErrorCode::WouldCycle
    )
}
