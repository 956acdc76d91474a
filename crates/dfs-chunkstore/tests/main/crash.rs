//! Crashes at every point of a scripted life of a store, and what must hold after each.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use dfs_chunkstore::sim::SimFs;
use dfs_chunkstore::{
    ChunkStore, Config, DiskStore, Fs, Identity, IdentityStore, Registration, conformance,
};
use dfs_types::{ChunkId, ClusterId, Crc32c, Incarnation, RegistrationNumber, SeededRandom, Stamp};

use crate::support::{config, open_sim};

/// A chunk just too long for a segment.
const LARGE: usize = (1 << 20) + 4097;

#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    Put(u128, usize),
    /// Written, but not sealed.
    Abandon(u128, usize),
    Delete(u128),
    SetAside(u128),
    Register(u64),
    Reopen,
}

/// What became of a chunk, as far as callers were told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Told {
    length: usize,
    stamp: Option<Stamp>,
    is_set_aside: bool,
}

/// What callers of the store know.
#[derive(Debug, Default)]
pub(crate) struct History {
    chunks: BTreeMap<u128, Told>,
    /// The step under way at the crash: it may have happened or not.
    doubt: Option<Step>,
    stamps: BTreeSet<Stamp>,
    identity: Option<Identity>,
    registration: u64,
}

fn registration(number: u64) -> Registration {
    let number = RegistrationNumber(number);
    Registration { cluster: ClusterId(1), incarnation: Incarnation(1), number }
}

/// Each kind of write, in the orders that may hurt each other.
pub(crate) const SCRIPT: [Step; 22] = [
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
];

impl History {
    /// Lives through a script until the simulated machine stops.
    pub(crate) async fn live(&mut self, fs: &SimFs, config: &Config, script: &[Step]) {
        let mut seed = 1;
        let Ok(mut store) = open_sim(fs, config.clone(), seed).await else { return };
        // The stop looks like a disk that fails, which a store with another one survives.
        if store.usage().iter().any(|disk| disk.is_failed) {
            return;
        }
        self.identity.get_or_insert_with(|| store.identity());
        for step in script {
            self.doubt = Some(*step);
            if let Step::Reopen = step {
                drop(store);
                seed += 1;
                let Ok(reopened) = open_sim(fs, config.clone(), seed).await else { return };
                store = reopened;
            } else if self.take(&store, *step).await.is_none() {
                return;
            }
            self.doubt = None;
        }
    }

    async fn take(&mut self, store: &DiskStore, step: Step) -> Option<()> {
        match step {
            Step::Put(number, length) => {
                let sealed = conformance::put(store, ChunkId(number), length).await.ok()?;
                let told = Told { length, stamp: Some(sealed.stamp), is_set_aside: false };
                self.chunks.insert(number, told);
                assert!(self.stamps.insert(sealed.stamp), "a stamp was given out twice");
            }
            Step::Abandon(number, length) => {
                let chunk = ChunkId(number);
                let mut writer = store.create(conformance::header(chunk, length)).await.ok()?;
                let bytes = conformance::content(chunk, length);
                conformance::append(&mut *writer, &bytes).await.ok()?;
            }
            Step::Delete(number) => {
                let stamp = self.chunks.get(&number)?.stamp?;
                assert!(store.delete(ChunkId(number), stamp).await.ok()?);
                self.chunks.remove(&number);
            }
            Step::SetAside(number) => {
                let told = self.chunks.get_mut(&number)?;
                store.set_aside(ChunkId(number), told.stamp?).await.ok()?;
                told.is_set_aside = true;
            }
            Step::Register(number) => {
                store.store_registration(registration(number)).await.ok()?;
                if store.usage().iter().any(|disk| disk.is_failed) {
                    return None;
                }
                self.registration = number;
            }
            Step::Reopen => {}
        }
        Some(())
    }

    /// Opens the store after a crash and says what is wrong with it.
    pub(crate) async fn check(&self, fs: &SimFs, config: &Config) -> Result<(), String> {
        let seed = 99;
        let store = open_sim(fs, config.clone(), seed).await.map_err(|e| e.to_string())?;
        self.check_identity(&store)?;
        let listed = store.list(None, usize::MAX).await.map_err(|e| e.to_string())?;
        let mut found = BTreeSet::new();
        for sealed in &listed {
            let number = sealed.chunk.0;
            found.insert(number);
            let doubted = match self.doubt {
                Some(Step::Put(n, length)) if n == number => Some(length),
                _ => None,
            };
            let told = self.chunks.get(&number);
            let length = told.map(|told| told.length).or(doubted);
            let length =
                length.ok_or_else(|| format!("{number:x} was never sealed, or deleted"))?;
            let bytes = conformance::content(sealed.chunk, length);
            if sealed.seal != conformance::seal_of(&bytes) {
                return Err(format!("the seal of {number:x} differs"));
            }
            let verified = store.verify(sealed.chunk).await.map_err(|e| e.to_string())?;
            let header = store.header(sealed.chunk).await.map_err(|e| e.to_string())?;
            if verified.is_some() || header != conformance::header(sealed.chunk, length) {
                return Err(format!("{number:x} is not whole"));
            }
            if let Some(told) = told {
                let may_be_aside = matches!(self.doubt, Some(Step::SetAside(n)) if n == number);
                if Some(sealed.stamp) != told.stamp
                    || (sealed.is_set_aside != told.is_set_aside && !may_be_aside)
                {
                    return Err(format!("{number:x} is {sealed:?}, told {told:?}"));
                }
            }
        }
        for number in self.chunks.keys() {
            let may_be_gone = matches!(self.doubt, Some(Step::Delete(n)) if n == *number);
            if !found.contains(number) && !may_be_gone {
                return Err(format!("{number:x} was acknowledged and is gone"));
            }
        }
        self.check_room(fs, config, &store).await
    }

    fn check_identity(&self, store: &DiskStore) -> Result<(), String> {
        let Identity { node, registration: found } = store.identity();
        let number = found.map_or(0, |found| found.number.0);
        let may_be = matches!(self.doubt, Some(Step::Register(n)) if n == number);
        if self.identity.is_some_and(|old| old.node != node) {
            return Err("it became another node".to_owned());
        }
        if number != self.registration && !may_be {
            return Err(format!("registration {number}, told {}", self.registration));
        }
        match store.usage().iter().find(|disk| disk.is_failed) {
            Some(disk) => Err(format!("disk {} is out of service", disk.disk)),
            None => Ok(()),
        }
    }

    /// Stamps go on above all given out.
    async fn check_stamps(&self, store: &DiskStore) -> Result<(), String> {
        let probe = conformance::put(store, ChunkId(0xffff), 10).await;
        let probe = probe.map_err(|error| error.to_string())?;
        if self.stamps.last().is_some_and(|last| *last >= probe.stamp) {
            return Err("a stamp that was given out before the crash comes again".to_owned());
        }
        Ok(())
    }

    /// Everything can be deleted without a trace.
    async fn check_room(
        &self,
        fs: &SimFs,
        config: &Config,
        store: &DiskStore,
    ) -> Result<(), String> {
        let text = |error: dfs_chunkstore::StoreError| error.to_string();
        self.check_stamps(store).await?;
        for sealed in store.list(None, usize::MAX).await.map_err(text)? {
            if !store.delete(sealed.chunk, sealed.stamp).await.map_err(text)? {
                return Err("a listed copy cannot be deleted".to_owned());
            }
        }
        for disk in store.usage() {
            if disk.free != disk.capacity || disk.chunks != 0 {
                return Err(format!("{disk:?} counts something that is not there"));
            }
        }
        // Removed names count until their folder is synced, which a store leaves to the system.
        for folder in folders(fs, config) {
            fs.sync_dir(&folder).map_err(|e| e.to_string())?;
        }
        let space = fs.space(Path::new("/")).map_err(|e| e.to_string())?;
        let taken = space.total - space.available;
        // Identities, and what the active segments hold at least.
        if taken > 16 << 10 {
            return Err(format!("{taken} bytes are lost to nothing"));
        }
        Ok(())
    }
}

/// Folders of the disks and everything below.
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

/// How a run ends.
#[derive(Debug, Clone, Copy)]
struct Fate {
    stop_at: u64,
    ignored_sync: Option<u64>,
    /// Keep some of what was not synced.
    torn: Option<u64>,
    /// This disk comes back empty.
    lost_disk: Option<usize>,
}

impl Fate {
    /// Ways to end at one operation.
    fn all_at(stop_at: usize, ignored_sync: Option<u64>, config: &Config) -> Vec<Self> {
        let torn = None;
        let clean = Self { stop_at: stop_at as u64, ignored_sync, torn, lost_disk: None };
        let mut all = vec![clean, Self { torn: Some(1), ..clean }, Self { torn: Some(2), ..clean }];
        if config.disks.len() > 1 {
            let lost = 0..config.disks.len();
            all.extend(lost.map(|disk| Self { lost_disk: Some(disk), ..clean }));
        }
        all
    }
}

async fn run(config: &Config, fate: Fate) -> Result<(), String> {
    let fs = SimFs::new();
    fs.stop_at(fate.stop_at);
    if let Some(sync) = fate.ignored_sync {
        fs.ignore_sync(sync);
    }
    let mut history = History::default();
    history.live(&fs, config, &SCRIPT).await;
    match fate.torn {
        Some(seed) => fs.crash_torn(&SeededRandom::new(seed)),
        None => fs.crash(),
    }
    let Some(lost) = fate.lost_disk else { return history.check(&fs, config).await };
    fs.wipe(&config.disks[lost].folder);
    let store = open_sim(&fs, config.clone(), 99).await.map_err(|e| e.to_string())?;
    // Before all disks had an identity, the lost one may have been the node.
    if history.identity.is_none() {
        return Ok(());
    }
    history.check_identity(&store)?;
    history.check_stamps(&store).await
}

/// Syncs before each operation of the script, and in all.
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
async fn a_crash_at_any_point_keeps_what_was_acknowledged() {
    for config in configs() {
        for stop_at in 0..syncs_before(&config).await.len() {
            for fate in Fate::all_at(stop_at, None, &config) {
                assert_eq!(run(&config, fate).await, Ok(()), "{fate:?}");
            }
        }
    }
}

#[tokio::test]
async fn every_sync_is_needed() {
    for config in configs() {
        let syncs = syncs_before(&config).await;
        let count = *syncs.last().unwrap();
        for sync in 0..count {
            // Most show at once: from the first operation after the sync on.
            let first = syncs.partition_point(|before| *before <= sync);
            let mut fates =
                (first..syncs.len()).flat_map(|stop_at| Fate::all_at(stop_at, Some(sync), &config));
            let is_red = loop {
                let Some(fate) = fates.next() else { break false };
                if run(&config, fate).await.is_err() {
                    break true;
                }
            };
            assert!(is_red, "nothing is worse without sync {sync} of {count}");
        }
    }
}

#[test]
fn the_script_has_both_formats() {
    // Guards the tests above against a change of the bound that would make them easier.
    let lengths = SCRIPT.iter().filter_map(|step| match step {
        Step::Put(_, length) => Some(*length),
        _ => None,
    });
    assert!(lengths.clone().any(|length| length > 1 << 20));
    assert!(lengths.clone().any(|length| length < 1 << 20));
    assert_ne!(Crc32c::of(&conformance::content(ChunkId(1), 9)), Crc32c::default());
}
