//! Damage to the disks of one datanode, which the replicas on the others must make up for.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dfs_chunkstore::sim::Image;
use dfs_types::{BLOCK_SIZE, Random, SeededRandom};
use turmoil::Sim;

use super::faults::{FIRST, LAST};
use super::host::Machine;
use super::model::content_of;
use super::workload::Shared;

/// Disks of a datanode.
pub(super) const DISKS: [&str; 2] = ["/disk-1", "/disk-2"];
/// Maximum number of events of one history.
const EVENTS_MAX: u64 = 6;
/// From when on files have one replica only in a history of that kind, and the last damage before, in
/// simulated milliseconds: that replica must be one that was read. The last ones are of contents, and so
/// late that no reader finds most of them before.
const ONE_REPLICA_FROM: u64 = 14_000;
const BEFORE_ONE_REPLICA: Range<u64> = 12_500..13_900;

#[derive(Debug, Clone, Copy)]
enum Event {
    /// A bit of a file with chunks flips.
    Flip,
    /// A bit of the content of a file that users see flips.
    FlipContent,
    /// A file with chunks is removed.
    Lose,
    /// The machine loses power, and starts without a disk.
    Unplug { disk: usize },
    /// The machine loses power, and starts with the disk again.
    Plug,
    /// The content of a disk is copied.
    Copy { disk: usize },
    /// The machine loses power, and starts with the copy in place of the disk.
    Rewind,
    /// The machine is lost for good, and starts with new disks once its datanode is forgotten.
    Replace,
}

/// Number of events of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DamageCounts {
    /// Flipped bits.
    pub flips: u64,
    /// Removed files.
    pub losses: u64,
    /// Disks that missed a start of their node.
    pub absences: u64,
    /// Disks that were set back to an earlier state.
    pub rewinds: u64,
    /// Datanodes lost for good.
    pub replacements: u64,
}

impl std::ops::AddAssign for DamageCounts {
    fn add_assign(&mut self, other: Self) {
        self.flips += other.flips;
        self.losses += other.losses;
        self.absences += other.absences;
        self.rewinds += other.rewinds;
        self.replacements += other.replacements;
    }
}

impl fmt::Display for DamageCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { flips, losses, absences, rewinds, replacements } = self;
        write!(
            f,
            "{flips} flipped bits, {losses} removed files, {absences} absent disks, {rewinds} \
             disks set back, {replacements} datanodes lost for good"
        )
    }
}

/// The damage of one history, by its start in simulated milliseconds.
pub(super) struct Damage {
    victim: Arc<Machine>,
    events: BTreeMap<u64, Vec<Event>>,
    random: SeededRandom,
    /// The disk that is unplugged.
    unplugged: Option<Image>,
    /// The copied disk.
    copy: Option<Image>,
    /// Set while the machine is lost and its datanode is not forgotten.
    is_lost: bool,
    /// From when on files have one replica only, if at all.
    pub(super) one_replica_from: Option<Duration>,
    shared: Arc<Shared>,
    /// Damage done.
    pub(super) done: DamageCounts,
}

impl Damage {
    /// Plans the damage to one of these datanodes; a third of the histories has none.
    pub(super) fn plan(seed: u64, datanodes: &[Arc<Machine>], shared: Arc<Shared>) -> Self {
        let random = SeededRandom::new(seed);
        let victim = datanodes[random.below(datanodes.len() as u64) as usize].clone();
        let mut events: BTreeMap<u64, Vec<Event>> = BTreeMap::new();
        let mut add = |at, event| events.entry(at).or_default().push(event);
        let has_one_replica = random.below(5) == 0;
        let count = if random.below(3) == 0 { 0 } else { 1 + random.below(EVENTS_MAX) };
        let mut last = LAST;
        if has_one_replica {
            let Range { start, end } = BEFORE_ONE_REPLICA;
            last = start;
            for _ in 0..EVENTS_MAX {
                add(start + random.below(end - start), Event::FlipContent);
            }
        }
        let mut is_disk_replaced = has_one_replica;
        for _ in 0..count {
            let at = FIRST + random.below(last - FIRST);
            let disk = random.below(DISKS.len() as u64) as usize;
            let later = at + 200 + random.below(8_000);
            match random.below(7) {
                kind if kind <= 1 || has_one_replica => add(at, Event::Flip),
                2..=3 => add(at, Event::Lose),
                // Once: without any disk of its last registration, a node is refused.
                _ if is_disk_replaced => {}
                4 => {
                    is_disk_replaced = true;
                    add(at, Event::Replace);
                }
                5 => {
                    is_disk_replaced = true;
                    add(at, Event::Unplug { disk });
                    add(later, Event::Plug);
                }
                _ => {
                    is_disk_replaced = true;
                    add(at, Event::Copy { disk });
                    add(later, Event::Rewind);
                }
            }
        }
        let (unplugged, copy, done) = (None, None, DamageCounts::default());
        let one_replica_from = has_one_replica.then(|| Duration::from_millis(ONE_REPLICA_FROM));
        let is_lost = false;
        Self { victim, events, random, unplugged, copy, is_lost, one_replica_from, shared, done }
    }

    /// Does the damage that is due.
    pub(super) fn tick(&mut self, sim: &mut Sim<'_>) {
        let now = sim.elapsed();
        while let Some(entry) = self.events.first_entry()
            && Duration::from_millis(*entry.key()) <= now
        {
            for event in entry.remove() {
                self.apply(sim, event);
            }
        }
    }

    /// Starts a machine that was lost with new disks once its datanode is forgotten.
    pub(super) fn replace_lost(&mut self, sim: &mut Sim<'_>) {
        if self.is_lost && self.shared.lost_host().is_none() {
            self.is_lost = false;
            // Faults of the old ones.
            self.victim.disks.end_process();
            self.victim.disks.heal();
            for disk in DISKS {
                self.victim.disks.wipe(Path::new(disk));
            }
            self.note(sim, format_args!("{} has new disks", self.victim.name));
            self.victim.set_away(false);
            self.victim.start(sim);
        }
    }

    /// Plugs in what is unplugged, and restarts the machine if it was damaged, as a disk that failed
    /// is tried again at the next start. No more damage is done.
    pub(super) fn heal(&mut self, sim: &mut Sim<'_>) {
        self.events.clear();
        self.apply(sim, Event::Plug);
        if self.has_damaged(self.victim.name) {
            self.stop(sim);
            self.victim.start(sim);
        }
    }

    /// Returns whether the disks of a machine were damaged.
    pub(super) fn has_damaged(&self, host: &str) -> bool {
        self.done != DamageCounts::default() && self.victim.name == host
    }

    fn apply(&mut self, sim: &mut Sim<'_>, event: Event) {
        let (name, disks) = (self.victim.name, self.victim.disks.clone());
        match event {
            Event::Flip => {
                let Some((path, length)) = self.any_file() else { return };
                let offset = self.random.below(length);
                self.flip(sim, &path, offset);
            }
            Event::FlipContent => {
                let Some((path, offset)) = self.any_content() else { return };
                self.flip(sim, &path, offset);
            }
            Event::Lose => {
                let Some((path, _)) = self.any_file() else { return };
                disks.lose(&path);
                self.done.losses += 1;
                self.note(sim, format_args!("{name} loses {}", path.display()));
            }
            Event::Copy { disk } => self.copy = Some(disks.image(Path::new(DISKS[disk]))),
            Event::Unplug { disk } => {
                let folder = Path::new(DISKS[disk]);
                self.stop(sim);
                self.unplugged = Some(disks.image(folder));
                disks.wipe(folder);
                self.done.absences += 1;
                self.note(sim, format_args!("{name} is without {}", folder.display()));
                self.victim.start(sim);
            }
            Event::Plug => {
                let Some(image) = self.unplugged.take() else { return };
                self.stop(sim);
                disks.restore(&image);
                self.note(sim, format_args!("{name} has its disk again"));
                self.victim.start(sim);
            }
            Event::Replace => {
                self.stop(sim);
                self.victim.set_away(true);
                self.is_lost = true;
                self.shared.set_lost_host(Some(name));
                self.done.replacements += 1;
                self.note(sim, format_args!("{name} is lost for good"));
            }
            Event::Rewind => {
                let Some(image) = self.copy.take() else { return };
                self.stop(sim);
                disks.restore(&image);
                self.done.rewinds += 1;
                self.note(sim, format_args!("a disk of {name} is set back"));
                self.victim.start(sim);
            }
        }
    }

    fn flip(&mut self, sim: &Sim<'_>, path: &Path, offset: u64) {
        let bit = self.random.below(8) as u8;
        if self.victim.disks.flip_bit(path, offset, bit).is_ok() {
            self.done.flips += 1;
            let (name, path) = (self.victim.name, path.display());
            self.note(sim, format_args!("a bit of {path} at {offset} of {name} flips"));
        }
    }

    fn note(&self, sim: &Sim<'_>, what: fmt::Arguments<'_>) {
        self.shared.trace.note_at(sim.elapsed(), what);
    }

    /// Cuts the power of the machine, since disks are replaced only while it is off.
    fn stop(&self, sim: &mut Sim<'_>) {
        if sim.is_host_running(self.victim.name) {
            self.victim.crash(sim, None);
        }
    }

    /// Returns a file with chunks, and its length.
    fn any_file(&self) -> Option<(PathBuf, u64)> {
        self.any(self.files_with_chunks().collect())
    }

    /// Returns where a byte of a version that some path certainly has is on the disks; `None` if
    /// they do not hold the version that was chosen.
    fn any_content(&self) -> Option<(PathBuf, u64)> {
        let live = self.shared.model().live();
        let content = content_of(self.any(live)?);
        // Of its first chunk, however small its chunks are.
        let start = content.get(..64)?;
        let within = self.random.below(content.len().min(BLOCK_SIZE) as u64);
        let holds = |(path, length): (PathBuf, u64)| {
            let bytes = self.victim.disks.read_all(&path, length).ok()?;
            let at = memchr::memmem::find(&bytes, start)?;
            Some((path, at as u64 + within))
        };
        self.files_with_chunks().find_map(holds)
    }

    fn files_with_chunks(&self) -> impl Iterator<Item = (PathBuf, u64)> {
        let all = DISKS.iter().flat_map(|disk| self.victim.disks.files(Path::new(disk)));
        let is_data = |path: &Path| path.iter().any(|part| part == "chunks" || part == "segments");
        all.filter(move |(path, length)| *length > 0 && is_data(path))
    }

    fn any<T>(&self, all: Vec<T>) -> Option<T> {
        let chosen = self.random.below(all.len().max(1) as u64) as usize;
        all.into_iter().nth(chosen)
    }
}
