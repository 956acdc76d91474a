//! Workload of the clients of a simulated cluster, and checks of its results.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use dfs_client::{
    Client, DeleteOptions, Error, GetOptions, MakeDirectoryOptions, PutOptions, PutSource,
    RenameOptions,
};
use dfs_types::{DfsPath, ErrorCode, Level, Random, SeededRandom};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::administration::{administer, note_status};
use super::healing::check_everything;
use super::host::DATANODES;
use super::invariants::{acknowledged_bytes, namespace};
use super::model::{Model, State, content_of};
use super::restoration::restore;
use super::trace::Trace;
use super::upgrade::{Progress, Stage};

/// Workers that change files, each in a separate directory.
pub(super) const WORKERS: u64 = 3;
/// Calls per worker.
const CALLS: u64 = 24;
/// Calls of the worker that starts once the write level is raised.
const CALLS_AFTER_RAISE: u64 = 10;
/// Names in use by a worker at the same time.
const NAMES: u64 = 4;
/// Time limit for the cluster to become healthy after the faults.
pub(super) const WHOLE_WITHIN: Duration = Duration::from_secs(90);
/// Time limit for raising the write level.
const RAISED_WITHIN: Duration = Duration::from_mins(5);

/// Counters of calls.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) calls: u64,
    pub(super) puts: u64,
    pub(super) reads: u64,
    pub(super) failed: u64,
    pub(super) unknown: u64,
}

/// State shared by workers and the runner.
#[derive(Debug, Default)]
pub(super) struct Shared {
    model: Mutex<Model>,
    counts: Mutex<Counts>,
    phase: Mutex<Phase>,
    /// The machine whose datanode is to be forgotten.
    lost_host: Mutex<Option<&'static str>>,
    has_crashed_at_move: AtomicBool,
    pub(super) trace: Trace,
}

/// Phases of a history. Each is entered by the client or by the runner, and awaited by the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) enum Phase {
    /// Workers change files while faults happen.
    #[default]
    Faults,
    /// The workers are done; faults are to end.
    Healing,
    /// Faults have ended.
    Healed,
    /// The metadata is to be copied.
    Backup,
    /// It is copied.
    BackedUp,
    /// The metadata is to be replaced by the copy.
    Restore,
    /// It is replaced: nothing may be deleted.
    Restored,
    /// An administrator is about to allow deletion again.
    Acknowledged,
    /// All files are right, and have their replicas.
    Whole,
    /// What nothing needs is collected.
    Collecting,
    /// The disks hold what the records name.
    Over,
}

impl Shared {
    pub(super) fn phase(&self) -> Phase {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn enter(&self, phase: Phase) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
    }

    /// Returns the machine whose datanode is to be forgotten.
    pub(super) fn lost_host(&self) -> Option<&'static str> {
        *self.lost_host.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_lost_host(&self, host: Option<&'static str>) {
        *self.lost_host.lock().unwrap_or_else(PoisonError::into_inner) = host;
    }

    pub(super) fn note_crash_at_move(&self) {
        self.has_crashed_at_move.store(true, Ordering::Relaxed);
    }

    /// Returns whether the coordinator crashed at a commit of a move since the last call.
    pub(super) fn take_crash_at_move(&self) -> bool {
        self.has_crashed_at_move.swap(false, Ordering::Relaxed)
    }

    pub(super) fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) type Wrong = String;

/// Runs the workers and a reader, ends the faults, and checks everything.
pub(super) async fn run(
    client: Client,
    shared: Arc<Shared>,
    upgrade: Option<Arc<Progress>>,
    one_replica_from: Option<Duration>,
    seed: u64,
) -> Result<(), Wrong> {
    let restores = upgrade.is_none() && SeededRandom::new(seed ^ 0x4e57).below(5) == 0;
    let root = path("/");
    until("the cluster has formed", async || {
        client.admin().status().await.is_ok_and(|status| {
            status.nodes.iter().filter(|node| node.last_heard.is_some()).count() == DATANODES.len()
        })
    })
    .await?;
    for number in 0..WORKERS + u64::from(upgrade.is_some()) {
        let name = directory(number);
        let made = client.make_directory(&path(&name), MakeDirectoryOptions::default()).await;
        made.map_err(|error| format!("creating {name} in {root}: {error}"))?;
    }
    let mut tasks = JoinSet::new();
    for number in 0..WORKERS {
        let random = SeededRandom::new(seed.wrapping_mul(31).wrapping_add(number));
        let (client, shared) = (client.clone(), shared.clone());
        tasks.spawn(Worker { client, shared, random, number, names: 0 }.run(CALLS));
    }
    if let Some(upgrade) = upgrade.clone() {
        let random = SeededRandom::new(seed.wrapping_mul(31).wrapping_add(WORKERS));
        let (client, shared) = (client.clone(), shared.clone());
        tasks.spawn_local(async move {
            finalize(&client, &shared, &upgrade).await?;
            let worker = Worker { client, shared, random, number: WORKERS, names: 0 };
            worker.run(CALLS_AFTER_RAISE).await
        });
    }
    let reader = {
        let random = SeededRandom::new(seed ^ 0xfeed);
        let (client, shared) = (client.clone(), shared.clone());
        tokio::spawn(read_on(client, shared, random))
    };
    let administrator = {
        let random = SeededRandom::new(seed ^ 0xad31);
        tokio::spawn(administer(client.clone(), shared.clone(), random, one_replica_from))
    };
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(|error| error.to_string())??;
    }
    shared.enter(Phase::Healing);
    reader.await.map_err(|error| error.to_string())??;
    administrator.await.map_err(|error| error.to_string())?;
    until("faults have ended", async || shared.phase() == Phase::Healed).await?;
    check_everything(&client, &shared).await?;
    if let Some(upgrade) = upgrade {
        upgrade.enter(Stage::Downgrade);
        until("the older release was refused", async || upgrade.stage() == Stage::Refused).await?;
        check_everything(&client, &shared).await?;
    }
    if restores {
        restore(&client, &shared).await?;
    }
    shared.enter(Phase::Whole);
    until("nothing is left to collect", async || {
        sleep(Duration::from_secs(1)).await;
        note_status(&client, &shared).await;
        shared.phase() == Phase::Over
    })
    .await
}

/// Finalizes the upgrade once every machine is replaced, retrying until the newer level is
/// written.
async fn finalize(client: &Client, shared: &Shared, upgrade: &Progress) -> Result<(), Wrong> {
    until("all machines are replaced", async || upgrade.stage() >= Stage::Replaced).await?;
    let admin = client.admin();
    let mut is_asked = false;
    // A coordinator of the older release that crashed keeps its entry for minutes.
    until_within(RAISED_WITHIN, "the write level is raised", async || {
        let Ok(status) = admin.upgrade_status().await else { return false };
        if status.written == Level::REHEARSAL {
            return true;
        }
        assert!(is_asked || status.least == Level::NEWEST, "not requested: {status:?}");
        if status.wanted < Level::REHEARSAL || !status.blocked_by.is_empty() {
            is_asked = true;
            let Ok(cluster) = admin.status().await else { return false };
            let asked = admin.finalize_upgrade(cluster.cluster).await;
            let shown = shown(&asked.map(drop));
            shared.trace.note(format_args!("finalize the upgrade: {shown}"));
        }
        sleep(Duration::from_millis(400)).await;
        false
    })
    .await?;
    shared.trace.note("the write level is raised");
    Ok(())
}

struct Worker {
    client: Client,
    shared: Arc<Shared>,
    random: SeededRandom,
    number: u64,
    names: u64,
}

impl Worker {
    async fn run(mut self, calls: u64) -> Result<(), Wrong> {
        for _ in 0..calls {
            sleep(Duration::from_millis(self.random.below(1_200))).await;
            self.shared.counts().calls += 1;
            match self.random.below(10) {
                0..=3 => self.put().await?,
                4 | 5 => self.rename().await?,
                6 => self.delete().await?,
                7 => self.list().await?,
                _ => {
                    let name = self.any_name();
                    read(&self.client, &self.shared, &name).await?;
                }
            }
        }
        Ok(())
    }

    /// Returns a name of the worker that no call of unknown outcome may still change.
    fn any_name(&mut self) -> String {
        let slot = self.random.below(NAMES);
        loop {
            let name = format!("{}/{slot}-{}", directory(self.number), self.names);
            if !self.shared.model().is_clouded(&name) {
                return name;
            }
            self.names += 1;
        }
    }

    fn certain(&self, name: &str) -> State {
        self.shared.model().certain(name).unwrap_or_default()
    }

    async fn put(&mut self) -> Result<(), Wrong> {
        let name = self.any_name();
        let before = self.certain(&name);
        let version = self.shared.model().next_version();
        let bytes = content_of(version);
        let chunk_size = [64 << 10, 2 << 20][self.random.below(2) as usize];
        let options = PutOptions::default().chunk_size(chunk_size);
        let what = format!("put {name} version {version} of {} bytes", bytes.len());
        let changes = [(&*name, Some(version))];
        self.shared.model().begin(&changes);
        let result = self.client.put(&path(&name), PutSource::bytes(bytes), options).await;
        self.settle(&what, result.map(drop), &changes, &[(&*name, before)])?;
        Ok(())
    }

    async fn rename(&mut self) -> Result<(), Wrong> {
        let (from, to) = (self.any_name(), self.any_name());
        let (at_from, at_to) = (self.certain(&from), self.certain(&to));
        if from == to {
            return Ok(());
        }
        let what = format!("rename {from} to {to}");
        let changes = [(&*from, None), (&*to, at_from)];
        if at_from.is_some() {
            self.shared.model().begin(&changes);
        }
        let result = self.client.rename(&path(&from), &path(&to), RenameOptions::default()).await;
        if at_from.is_none() {
            return self.must_be_missing(&what, result);
        }
        self.settle(&what, result, &changes, &[(&*from, at_from), (&*to, at_to)])
    }

    async fn delete(&mut self) -> Result<(), Wrong> {
        let name = self.any_name();
        let before = self.certain(&name);
        let now = self.random.below(2) == 0;
        let what = format!("delete {name}{}", if now { " now" } else { "" });
        let changes = [(&*name, None)];
        if before.is_some() {
            self.shared.model().begin(&changes);
        }
        let options = DeleteOptions::default().now(now);
        let result = self.client.delete(&path(&name), options).await;
        if before.is_none() {
            return self.must_be_missing(&what, result);
        }
        self.settle(&what, result, &changes, &[(&*name, before)])
    }

    /// Makes a call on a name that is certainly free.
    fn must_be_missing(&self, what: &str, result: Result<(), Error>) -> Result<(), Wrong> {
        let shown = shown(&result);
        self.shared.trace.note(format_args!("{what}: {shown}"));
        match result {
            Err(error) if error.code() == ErrorCode::NotFound || may_fail_with(&error) => Ok(()),
            _ => Err(format!("{what}: {shown}, but the name does not exist")),
        }
    }

    fn settle(
        &self,
        what: &str,
        result: Result<(), Error>,
        changes: &[(&str, State)],
        before: &[(&str, State)],
    ) -> Result<(), Wrong> {
        let shown = shown(&result);
        self.shared.trace.note(format_args!("{what}: {shown}"));
        let mut model = self.shared.model();
        let mut counts = self.shared.counts();
        match result {
            Ok(()) => {
                counts.puts += u64::from(what.starts_with("put"));
                model.done(changes);
            }
            Err(error) if error.is_outcome_unknown() => {
                counts.unknown += 1;
                model.unknown(changes);
            }
            // A put is stale when a node that took part was forgotten.
            Err(error) if may_fail_with(&error) || error.code() == ErrorCode::Stale => {
                counts.failed += 1;
                model.refused(before);
            }
            Err(_) => return Err(format!("{what}: {shown}")),
        }
        Ok(())
    }

    /// Lists the directory of the worker, which nothing changes meanwhile.
    async fn list(&mut self) -> Result<(), Wrong> {
        let name = directory(self.number);
        match listed(&self.client, &name).await {
            Ok(paths) => {
                self.shared.trace.note(format_args!("list {name}: {} entries", paths.len()));
                namespace::check(&self.shared.model(), &name, &paths)
            }
            Err(error) if may_fail_with(&error) => Ok(()),
            Err(error) => Err(format!("list {name}: {error}")),
        }
    }
}

/// Returns the paths in a directory.
pub(super) async fn listed(client: &Client, directory: &str) -> Result<Vec<String>, Error> {
    let mut listing = client.list(path(directory));
    let mut paths = Vec::new();
    while let Some(entry) = listing.next().await? {
        let name = String::from_utf8_lossy(entry.name.as_bytes()).into_owned();
        paths.push(format!("{directory}/{name}"));
    }
    Ok(paths)
}

/// Reads files of all workers, concurrently with their changes.
async fn read_on(client: Client, shared: Arc<Shared>, random: SeededRandom) -> Result<(), Wrong> {
    while shared.phase() == Phase::Faults {
        sleep(Duration::from_millis(random.below(400))).await;
        let paths = shared.model().paths();
        if let Some(name) = paths.get(random.below(paths.len() as u64) as usize) {
            read(&client, &shared, name).await?;
        }
    }
    Ok(())
}

/// Reads a file and checks that it is a possible, complete version.
async fn read(client: &Client, shared: &Shared, name: &str) -> Result<(), Wrong> {
    let reading = shared.model().begin_read(name);
    let result = content(client, name).await;
    shared.trace.note(format_args!("read {name}: {}", shown_length(&result)));
    let possible = shared.model().end_read(reading);
    shared.counts().reads += 1;
    let found = match result {
        Ok(bytes) => bytes,
        Err(error) if may_fail_with(&error) => return Ok(()),
        // The file was replaced or deleted, and its chunks are gone, before all were read.
        Err(error) if error.code() == ErrorCode::Stale && possible.len() > 1 => return Ok(()),
        Err(error) => return Err(format!("read {name}: {error}")),
    };
    acknowledged_bytes::check(found.as_ref(), &possible).map_err(|wrong| format!("{name}: {wrong}"))
}

/// Returns the bytes of a file; `None` if it does not exist.
pub(super) async fn content(client: &Client, name: &str) -> Result<Option<Bytes>, Error> {
    let opened = client.get(&path(name), GetOptions::default()).await;
    let mut reader = match opened {
        Err(error) if error.code() == ErrorCode::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut all = Vec::new();
    while let Some(bytes) = reader.next().await? {
        all.extend_from_slice(&bytes);
    }
    Ok(Some(Bytes::from(all)))
}

pub(super) async fn until(what: &str, condition: impl AsyncFnMut() -> bool) -> Result<(), Wrong> {
    until_within(WHOLE_WITHIN, what, condition).await
}

pub(super) async fn until_within(
    within: Duration,
    what: &str,
    mut condition: impl AsyncFnMut() -> bool,
) -> Result<(), Wrong> {
    let deadline = Instant::now() + within;
    while !condition().await {
        if Instant::now() >= deadline {
            return Err(format!("not within {within:?}: {what}"));
        }
        sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// Returns true if calls may fail with this error during faults.
fn may_fail_with(error: &Error) -> bool {
    error.is_retryable() || error.is_outcome_unknown() || error.code() == ErrorCode::NoSpace
}

fn shown(result: &Result<(), Error>) -> String {
    match result {
        Ok(()) => "ok".to_owned(),
        Err(error) => format!("{} {error}", error.code().name()),
    }
}

pub(super) fn shown_length(result: &Result<Option<Bytes>, Error>) -> String {
    match result {
        Ok(Some(bytes)) => format!("{} bytes", bytes.len()),
        Ok(None) => "nothing".to_owned(),
        Err(error) => format!("{} {error}", error.code().name()),
    }
}

pub(super) fn directory(worker: u64) -> String {
    format!("/worker-{worker}")
}

pub(super) fn path(text: &str) -> DfsPath {
    DfsPath::new(Bytes::copy_from_slice(text.as_bytes())).expect("a short absolute path")
}
