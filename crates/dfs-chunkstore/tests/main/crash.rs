//! Crashes at every point of a scripted life of a store, with the invariants checked after each.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dfs_chunkstore::sim::{Operation, SimFs, Synced};
use dfs_chunkstore::{
    ChunkStore, Config, DiskStore, Fs, FullSpeed, Identity, IdentityStore, Opening, Registration,
    SealedChunk, StoreError, conformance,
};
use dfs_types::{
    ChunkId, ClusterId, Crc32c, DiskState, Incarnation, RegistrationNumber, ReplicaRef,
    SeededRandom, Stamp,
};

use crate::support::{config, open_sim};

/// A chunk slightly too long for a segment.
const LARGE: usize = (1 << 20) + 4097;
const EIO: i32 = 5;

#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    Put(u128, usize),
    /// Written, but not sealed.
    Abandon(u128, usize),
    Delete(u128),
    SetAside(u128),
    Register(u64),
    Reopen,
    /// Reopen after a regular end.
    Close,
    /// Put during which a sync of this kind persists the data but reports a full disk.
    Refuse(u128, usize, Synced),
    /// Fails the chunk's disk, writes the chunk again on another disk, then restarts with both in
    /// service. With a single disk, only restarts.
    Twice(u128),
}

/// Fate of a chunk, as far as callers know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Expected {
    length: usize,
    replica: ReplicaRef,
    is_set_aside: bool,
}

/// Knowledge of the store's callers.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    chunks: BTreeMap<u128, Expected>,
    /// Older replicas of chunks that were written to another disk while theirs was out of service.
    older: BTreeSet<ReplicaRef>,
    /// The step in progress at the crash: it may have happened or not.
    doubt: Option<Step>,
    stamps: BTreeSet<Stamp>,
    identity: Option<Identity>,
    /// The last registration attempted; a crash may have interrupted it between disks.
    registration: u64,
    /// The last one acknowledged.
    acknowledged: u64,
    /// Number of times the store was opened; determines its ids.
    starts: u64,
    /// Number of syncs until it was opened in the current life.
    syncs_to_open: u64,
}

fn registration(number: u64) -> Registration {
    let number = RegistrationNumber(number);
    Registration { cluster: ClusterId(1), incarnation: Incarnation(1), number }
}

/// Every kind of write, in the orders that could interfere.
pub(crate) const SCRIPT: [Step; 44] = [
    Step::Put(6, 10),
    Step::Put(7, 10),
    Step::Register(1),
    Step::Put(1, 100),
    Step::Put(0x11, LARGE),
    Step::Put(2, 70_000),
    Step::Abandon(0x211, 2 << 20),
    Step::Abandon(3, 500),
    Step::Delete(1),
    Step::SetAside(2),
    Step::Put(1, 200),
    Step::Put(0x22, LARGE),
    Step::Put(0x111, LARGE),
    Step::SetAside(0x11),
    Step::Delete(0x22),
    Step::Reopen,
    Step::Put(4, 60_000),
    Step::Put(5, 0),
    Step::Register(2),
    Step::Delete(1),
    Step::Put(1, 300),
    Step::Delete(0x111),
    Step::Refuse(0x12, 20_000, Synced::File),
    Step::Put(0x13, 9_000),
    Step::Put(0x55, LARGE),
    Step::Refuse(0x66, LARGE, Synced::File),
    // The directory of the shards of large chunks, or one of the shards.
    Step::Refuse(0x44, LARGE, Synced::Folder),
    Step::Refuse(0x155, LARGE, Synced::Folder),
    Step::Put(0x14, 9_000),
    Step::Twice(0x14),
    Step::Delete(0x14),
    Step::Put(0x17, 100),
    Step::Put(0x88, LARGE),
    Step::Twice(0x88),
    Step::Delete(0x88),
    Step::Put(0x15, 60_000),
    Step::Put(0x16, 30_000),
    // Changes in segments whose indexes were written when the store was closed.
    Step::Close,
    Step::SetAside(0x15),
    Step::Delete(5),
    Step::Put(0x19, 100),
    Step::Close,
    Step::Delete(0x17),
    Step::Put(0x18, 100),
];

/// Steps after a crash: enough to open a new segment.
const AFTERWARDS: [Step; 2] = [Step::Put(0x21, 100), Step::Put(0x77, LARGE)];

/// Determines the ids of a store opened for a check.
const CHECKING: u64 = 99;

impl Expected {
    fn new(sealed: &SealedChunk) -> Self {
        Self {
            length: sealed.length as usize,
            replica: sealed.replica(),
            is_set_aside: sealed.is_set_aside,
        }
    }
}

impl History {
    /// Runs a script until the simulated machine stops.
    pub(crate) async fn live(&mut self, fs: &SimFs, config: &Config, script: &[Step]) {
        let Ok(mut store) = self.open(fs, config).await else { return };
        self.syncs_to_open = fs.syncs();
        // The stop looks like a failing disk, which a store with another one survives.
        if store.usage().iter().any(|disk| disk.state != DiskState::Healthy) {
            return;
        }
        self.settle(&store).await;
        for step in script {
            self.doubt = Some(*step);
            let is_done = match step {
                Step::Twice(number) if config.disks.len() > 1 => {
                    self.copy_elsewhere(fs, config, &store, *number).await
                }
                _ => self.take(fs, &store, *step).await,
            };
            if is_done.is_none() {
                return;
            }
            if matches!(step, Step::Reopen | Step::Close | Step::Twice(_)) {
                if matches!(step, Step::Close) {
                    store.close(Duration::from_secs(1)).await;
                }
                drop(store);
                let Ok(reopened) = self.open(fs, config).await else { return };
                if reopened.usage().iter().any(|disk| disk.state != DiskState::Healthy) {
                    return;
                }
                store = reopened;
            }
            self.doubt = None;
        }
    }

    async fn open(&mut self, fs: &SimFs, config: &Config) -> Result<DiskStore, String> {
        self.starts += 1;
        open_sim(fs, config.clone(), self.starts).await.map_err(|error| error.to_string())
    }

    /// Determines after a crash whether the step in progress took effect.
    async fn settle(&mut self, store: &DiskStore) {
        self.identity.get_or_insert_with(|| store.identity());
        let Some(step) = self.doubt.take() else { return };
        let (number, length) = match step {
            Step::Put(number, length) | Step::Refuse(number, length, _) => (number, length),
            Step::Delete(number) | Step::SetAside(number) | Step::Twice(number) => {
                (number, self.chunks.get(&number).map_or(0, |expected| expected.length))
            }
            Step::Register(_) => {
                self.registration = store.identity().registration.map_or(0, |found| found.number.0);
                return;
            }
            Step::Abandon(..) | Step::Reopen | Step::Close => return,
        };
        if let Some(sealed) = conformance::newest(store, ChunkId(number)).await {
            self.chunks.insert(number, Expected::new(&sealed));
            assert_eq!(sealed.length, length as u64);
        } else {
            self.chunks.remove(&number);
        }
    }

    /// Breaks the disk of a chunk and puts the chunk again. Afterwards the disk works again, but is
    /// out of service.
    async fn copy_elsewhere(
        &mut self,
        fs: &SimFs,
        config: &Config,
        store: &DiskStore,
        number: u128,
    ) -> Option<()> {
        let chunk = ChunkId(number);
        let sealed = conformance::newest(store, chunk).await?;
        let disk = store.usage().iter().position(|disk| disk.disk == sealed.disk)?;
        fs.fail(&config.disks[disk].folder, Operation::Write, EIO);
        store.set_aside(sealed.replica()).await.unwrap_err();
        fs.heal();
        if store.usage()[disk].state != DiskState::Failed {
            return None;
        }
        let length = self.chunks.get(&number)?.length;
        self.older.insert(sealed.replica());
        self.take(fs, store, Step::Put(number, length)).await
    }

    async fn take(&mut self, fs: &SimFs, store: &DiskStore, step: Step) -> Option<()> {
        match step {
            Step::Put(number, length) => {
                let sealed = conformance::put(store, ChunkId(number), length).await.ok()?;
                self.chunks.insert(number, Expected::new(&sealed));
                assert!(self.stamps.insert(sealed.stamp), "a stamp was issued twice");
            }
            Step::Abandon(number, length) => {
                let chunk = ChunkId(number);
                let mut writer = store.create(conformance::header(chunk, length)).await.ok()?;
                let bytes = conformance::content(chunk, length);
                conformance::append(&mut *writer, &bytes).await.ok()?;
            }
            Step::Delete(number) => {
                let replica = self.chunks.get(&number)?.replica;
                assert!(store.delete(replica).await.ok()?);
                self.chunks.remove(&number);
            }
            Step::SetAside(number) => {
                let expected = self.chunks.get_mut(&number)?;
                store.set_aside(expected.replica).await.ok()?;
                expected.is_set_aside = true;
            }
            Step::Register(number) => {
                store.store_registration(registration(number)).await.ok()?;
                if store.usage().iter().any(|disk| disk.state != DiskState::Healthy) {
                    return None;
                }
                self.registration = number;
                self.acknowledged = number;
            }
            Step::Refuse(number, length, of) => {
                fs.fill_next_sync(of);
                let refused = conformance::put(store, ChunkId(number), length).await.unwrap_err();
                if !matches!(refused, StoreError::NoSpace(_)) {
                    return None;
                }
            }
            Step::Reopen | Step::Close | Step::Twice(_) => {}
        }
        Some(())
    }

    /// Opens the store after a crash and checks it.
    pub(crate) async fn check(&self, fs: &SimFs, config: &Config) -> Result<(), String> {
        self.check_settled(fs, config)?;
        let store = open_sim(fs, config.clone(), CHECKING).await.map_err(|e| e.to_string())?;
        self.check_identity(&store, None)?;
        let listed = store.list(None, usize::MAX).await.map_err(|e| e.to_string())?;
        let (mut found, mut older) = (BTreeSet::new(), 0);
        for sealed in &listed {
            let number = sealed.chunk.0;
            if self.older.contains(&sealed.replica()) {
                let verified =
                    store.verify(sealed.replica(), &FullSpeed).await.map_err(|e| e.to_string())?;
                older += usize::from(verified.is_none());
                // Until the newer one is written, it is the only one.
                if self.chunks.get(&number).is_none_or(|it| it.replica != sealed.replica()) {
                    continue;
                }
            }
            found.insert(number);
            let doubted = match self.doubt {
                Some(Step::Put(n, length) | Step::Refuse(n, length, _)) if n == number => {
                    Some(length)
                }
                _ => None,
            };
            let expected = self.chunks.get(&number);
            let length = expected.map(|expected| expected.length).or(doubted);
            let length =
                length.ok_or_else(|| format!("{number:x} was never sealed, or was deleted"))?;
            let bytes = conformance::content(sealed.chunk, length);
            let seal = conformance::seal_of(&bytes);
            if (sealed.length, sealed.crc32c) != (seal.length, seal.crc32c) {
                return Err(format!("the seal of {number:x} differs"));
            }
            let verified =
                store.verify(sealed.replica(), &FullSpeed).await.map_err(|e| e.to_string())?;
            let header = store.header(sealed.replica()).await.map_err(|e| e.to_string())?;
            if verified.is_some() || header != conformance::header(sealed.chunk, length) {
                return Err(format!("{number:x} is incomplete"));
            }
            if let Some(expected) = expected {
                let may_be_aside = matches!(self.doubt, Some(Step::SetAside(n)) if n == number);
                let is_newer = matches!(self.doubt, Some(Step::Twice(n)) if n == number)
                    && sealed.stamp > expected.replica.stamp;
                if (sealed.replica() != expected.replica && !is_newer)
                    || (sealed.is_set_aside != expected.is_set_aside && !may_be_aside)
                {
                    return Err(format!("{number:x} is {sealed:?}, expected {expected:?}"));
                }
            }
        }
        if older != self.older.len() {
            return Err(format!("{older} of {} older replicas are left", self.older.len()));
        }
        for number in self.chunks.keys() {
            let may_be_gone = matches!(self.doubt, Some(Step::Delete(n)) if n == *number);
            if !found.contains(number) && !may_be_gone {
                return Err(format!("{number:x} was acknowledged, but is gone"));
            }
        }
        self.check_room(fs, config, &store).await
    }

    /// Checks that every disk knows that the acknowledged registration was on all of them, so that
    /// none accepts an older image.
    fn check_settled(&self, fs: &SimFs, config: &Config) -> Result<(), String> {
        for disk in config.disks.iter().filter(|_| self.acknowledged > 0) {
            let path = disk.folder.join("dfs-identity");
            let file = fs.open(&path, Opening::Existing).map_err(|error| error.to_string())?;
            let text = file.read_at(0, 4096).map_err(|error| error.to_string())?;
            let text = String::from_utf8_lossy(&text);
            let settled = text.lines().find_map(|line| line.strip_prefix("settled "));
            let number = settled.and_then(|settled| settled.split(' ').next_back());
            let settled = number.and_then(|number| number.parse::<u64>().ok());
            if settled.unwrap_or(0) < self.acknowledged {
                return Err(format!("{}: settled {settled:?}", path.display()));
            }
        }
        Ok(())
    }

    /// Checks the identity; a lost disk is missing.
    fn check_identity(&self, store: &DiskStore, lost: Option<usize>) -> Result<(), String> {
        let Identity { node, secret, registration: found, .. } = store.identity();
        let number = found.map_or(0, |found| found.number.0);
        let may_be = matches!(self.doubt, Some(Step::Register(n)) if n == number);
        if self.identity.is_some_and(|old| (old.node, old.secret) != (node, secret)) {
            return Err("it became another node".to_owned());
        }
        if number != self.registration && !may_be {
            return Err(format!("registration {number}, expected {}", self.registration));
        }
        for (number, disk) in store.usage().iter().enumerate() {
            let is_lost = lost == Some(number) && disk.state == DiskState::Missing;
            if disk.state != DiskState::Healthy && !is_lost {
                return Err(format!("disk {} is {}", disk.disk, disk.state));
            }
        }
        Ok(())
    }

    /// Checks that new stamps are greater than all stamps issued before.
    async fn check_stamps(&self, store: &DiskStore) -> Result<(), String> {
        let probe = conformance::put(store, ChunkId(0xffff), 10).await;
        let probe = probe.map_err(|error| error.to_string())?;
        if self.stamps.last().is_some_and(|last| *last >= probe.stamp) {
            return Err("a stamp issued before the crash was reused".to_owned());
        }
        Ok(())
    }

    /// Checks that deleting everything frees all space.
    async fn check_room(
        &self,
        fs: &SimFs,
        config: &Config,
        store: &DiskStore,
    ) -> Result<(), String> {
        let text = |error: dfs_chunkstore::StoreError| error.to_string();
        self.check_stamps(store).await?;
        for sealed in store.list(None, usize::MAX).await.map_err(text)? {
            if !store.delete(sealed.replica()).await.map_err(text)? {
                return Err("a listed replica cannot be deleted".to_owned());
            }
        }
        for disk in store.usage() {
            if disk.free != disk.capacity || disk.chunks != 0 {
                return Err(format!("{disk:?} counts something that does not exist"));
            }
        }
        // Removed names count until their directory is synced, which the store leaves to the OS.
        for folder in folders(fs, config) {
            fs.sync_dir(&folder).map_err(|e| e.to_string())?;
        }
        let space = fs.space(Path::new("/")).map_err(|e| e.to_string())?;
        let taken = space.total - space.available;
        // Identities, and minimal active segments.
        if taken > 16 << 10 {
            return Err(format!("{taken} bytes leaked"));
        }
        Ok(())
    }
}

/// Returns the directories of the disks and all directories below them.
fn folders(fs: &SimFs, config: &Config) -> Vec<PathBuf> {
    let mut all: Vec<_> = config.disks.iter().map(|disk| disk.folder.clone()).collect();
    let mut next = 0;
    while let Some(folder) = all.get(next).cloned() {
        let names = fs.list(&folder).unwrap_or_default();
        all.extend(names.iter().map(|name| folder.join(name)).filter(|path| fs.list(path).is_ok()));
        next += 1;
    }
    all
}

/// How a life ends.
#[derive(Debug, Clone, Copy)]
enum End {
    /// Everything unsynced is lost.
    Crash,
    /// Some of it is lost, as determined by this seed.
    Torn(u64),
    /// Also, this disk comes back empty.
    LostDisk(usize),
}

impl End {
    /// Returns all ends, with this many torn ones.
    fn all(torn: u64, config: &Config) -> Vec<Self> {
        let mut all = vec![Self::Crash];
        all.extend((1..=torn).map(Self::Torn));
        if config.disks.len() > 1 {
            all.extend((0..config.disks.len()).map(Self::LostDisk));
        }
        all
    }
}

/// A life until the simulated machine stops.
struct Life<'a> {
    config: &'a Config,
    fs: SimFs,
    history: History,
}

impl<'a> Life<'a> {
    async fn until(config: &'a Config, stop_at: usize, ignored_sync: Option<u64>) -> Self {
        let fs = SimFs::new();
        fs.stop_at(stop_at as u64);
        if let Some(sync) = ignored_sync {
            fs.ignore_sync(sync);
        }
        let mut history = History::default();
        history.live(&fs, config, &SCRIPT).await;
        Self { config, fs, history }
    }

    /// Returns the disks after one end of this life; its other ends remain available.
    fn ended(&self, end: End) -> SimFs {
        let fs = self.fs.fork();
        fs.heal();
        match end {
            End::Crash => fs.crash(),
            End::Torn(seed) => fs.crash_torn(&SeededRandom::new(seed)),
            End::LostDisk(lost) => {
                fs.crash();
                fs.wipe(&self.config.disks[lost].folder);
            }
        }
        fs
    }

    /// Checks the store after one end.
    async fn check(&self, end: End) -> Result<(), String> {
        let (fs, config) = (self.ended(end), self.config);
        let End::LostDisk(lost) = end else { return self.history.check(&fs, config).await };
        let store = open_sim(&fs, config.clone(), CHECKING).await.map_err(|e| e.to_string())?;
        // Before all disks had the identity, the lost one may have held the only copy of it.
        if self.history.identity.is_none() {
            return Ok(());
        }
        self.history.check_identity(&store, Some(lost))?;
        self.history.check_stamps(&store).await
    }

    /// Checks the store after torn writes, a short second life, and the loss of everything unsynced
    /// in it. If `is_ignoring`, the first sync of its start after those of the identities is
    /// ignored.
    async fn check_second(&self, seed: u64, is_ignoring: bool) -> Second {
        let (fs, config) = (self.ended(End::Torn(seed)), self.config);
        let mut history = self.history.clone();
        let usual = fs.syncs() + syncs_of_identities(config);
        if is_ignoring {
            fs.ignore_sync(usual);
        }
        history.live(&fs, config, &AFTERWARDS).await;
        fs.crash();
        let result = history.check(&fs, config).await;
        let has_repaired = self.history.identity.is_some() && history.syncs_to_open > usual;
        Second { result, has_repaired }
    }
}

/// Outcome of a second life.
struct Second {
    result: Result<(), String>,
    /// True if its start made more durable than the identities.
    has_repaired: bool,
}

/// Number of syncs when a store starts that writes its identities and has nothing else to do.
fn syncs_of_identities(config: &Config) -> u64 {
    2 * config.disks.len() as u64
}

/// Returns the number of syncs before each operation of the script, and in total.
async fn syncs_before(config: &Config) -> Vec<u64> {
    let mut syncs = Vec::new();
    loop {
        let fs = SimFs::new();
        fs.stop_at(syncs.len() as u64);
        History::default().live(&fs, config, &SCRIPT).await;
        let is_end = fs.operations() <= syncs.len() as u64;
        syncs.push(fs.syncs());
        if is_end {
            return syncs;
        }
    }
}

fn configs() -> [Config; 2] {
    [config(&["/a"]), config(&["/x/a", "/x/b"])]
}

#[tokio::test]
async fn crash_at_any_point_keeps_acknowledged_chunks() {
    for config in configs() {
        for stop_at in 0..syncs_before(&config).await.len() {
            let life = Life::until(&config, stop_at, None).await;
            for end in End::all(2, &config) {
                assert_eq!(life.check(end).await, Ok(()), "{end:?} at {stop_at}");
            }
        }
    }
}

/// Returns true if ignoring this sync makes the check of some end fail.
async fn is_needed(config: &Config, syncs_before: &[u64], sync: u64) -> bool {
    // Most missing syncs show at the next crash, some only with certain torn writes, and some only
    // several operations later: try the cheap cases first.
    const LOOKS: [(Range<usize>, u64); 3] = [(0..3, 2), (3..24, 0), (0..8, 60)];
    let first = syncs_before.partition_point(|before| *before <= sync);
    for (stops, torn) in LOOKS {
        for stop_at in stops.map(|after| first + after) {
            let life = Life::until(config, stop_at, Some(sync)).await;
            for end in End::all(torn, config) {
                if life.check(end).await.is_err() {
                    return true;
                }
            }
        }
    }
    false
}

#[tokio::test]
async fn every_sync_is_needed() {
    for config in configs() {
        let syncs = syncs_before(&config).await;
        let count = *syncs.last().unwrap();
        for sync in 0..count {
            let is_needed = is_needed(&config, &syncs, sync).await;
            assert!(is_needed, "sync {sync} of {count} makes no difference");
        }
    }
}

/// Torn writes found by the first start after a crash do not reappear after the next crash, when
/// the tail of that segment is not checked any more.
#[tokio::test]
async fn second_crash_keeps_acknowledged_chunks() {
    for config in configs() {
        let (mut repaired, mut needed) = (0, 0);
        for stop_at in 0..syncs_before(&config).await.len() {
            let life = Life::until(&config, stop_at, None).await;
            for seed in 1..=4 {
                let Second { result, has_repaired } = life.check_second(seed, false).await;
                assert_eq!(result, Ok(()), "seed {seed} at {stop_at}");
                if has_repaired {
                    repaired += 1;
                    needed += u64::from(life.check_second(seed, true).await.result.is_err());
                }
            }
        }
        assert!(needed > 0, "no sync of {repaired} repairs is needed");
    }
}

#[test]
fn script_covers_both_formats() {
    // Guards the tests above against a change of the limit that would weaken them.
    let lengths = SCRIPT.iter().filter_map(|step| match step {
        Step::Put(_, length) => Some(*length),
        _ => None,
    });
    assert!(lengths.clone().any(|length| length > 1 << 20));
    assert!(lengths.clone().any(|length| length < 1 << 20));
    assert_ne!(Crc32c::of(&conformance::content(ChunkId(1), 9)), Crc32c::default());
}
