//! Findings against a toy model: every history of one replica up to a length, observed at every
//! three moments in order.

use dfs_types::{ChunkSeal, DiskNumber, Generation, InodeId, NodeId, Sha256, Stamp};

use super::*;
use crate::chunk_health::{NodeIntent, NodeLiveness};
use crate::namespace::NodeDisk;

const CHUNK: ChunkId = ChunkId(100);
const SEAL: ChunkSeal = ChunkSeal { length: 1, crc32c: Crc32c(1), sha256: Sha256([1; 32]) };
/// The replica that is judged.
const REPLICA: ReplicaId = ReplicaId { disk: DiskNumber(1), part: Part::WHOLE, stamp: Stamp(7) };
/// Another one, on another node.
const OTHER: ReplicaId = ReplicaId { disk: DiskNumber(2), part: Part::WHOLE, stamp: Stamp(7) };

fn cluster() -> Cluster {
    let mut cluster = Cluster::default();
    for number in 1..=3 {
        let intent = NodeIntent {
            state: dfs_types::NodeState::Active,
            is_leaving: false,
            in_maintenance: false,
        };
        let liveness = NodeLiveness {
            contact: crate::chunk_health::Contact::Responsive,
            ..NodeLiveness::default()
        };
        let id = dfs_types::DiskId(u128::from(number));
        let disk = NodeDisk::new(DiskNumber(number), id);
        cluster.add_node(NodeId(u128::from(number)), intent, &[disk], &liveness);
    }
    cluster
}

fn chunk(replicas: &[(ReplicaId, ReplicaMark)], references: u32) -> Chunk {
    let replica = |(id, mark): &(ReplicaId, ReplicaMark)| Replica {
        mark: *mark,
        ..Replica::new(id.disk, id.part, id.stamp)
    };
    Chunk {
        seal: SEAL,
        redundancy: Redundancy::Replicated { copies: 1 },
        policy: 0,
        replicas: replicas.iter().map(replica).collect(),
        generation: Generation::FIRST,
        references,
        inode: InodeId(7),
    }
}

/// What can happen to the replica. Illegal steps are skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// An upload seals it.
    Seal,
    /// The upload is confirmed, with this replica or with another one only.
    Confirm {
        with: bool,
    },
    /// A move begins to build it; a move ends with or without a commit.
    Build,
    Commit,
    GiveUp,
    /// Its record dooms it; the file is deleted.
    Doom,
    Delete,
    /// The node follows an order to delete it, and the record forgets it.
    Erase,
    Forget,
    /// The tombstone is removed.
    Remove,
    /// The floor passes the chunk.
    RaiseFloor,
    /// The disk loses it.
    Vanish,
}

const STEPS: [Step; 13] = [
    Step::Seal,
    Step::Confirm { with: true },
    Step::Confirm { with: false },
    Step::Build,
    Step::Commit,
    Step::GiveUp,
    Step::Doom,
    Step::Delete,
    Step::Erase,
    Step::Forget,
    Step::Remove,
    Step::RaiseFloor,
    Step::Vanish,
];

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct World {
    record: Option<Chunk>,
    was_recorded: bool,
    is_on_disk: bool,
    was_sealed: bool,
    is_moving: bool,
    is_below_floor: bool,
    has_vanished: bool,
}

impl World {
    /// Returns the world after a step; `None` if the step is not legal.
    fn after(&self, step: Step) -> Option<Self> {
        let mut next = self.clone();
        let mark = |world: &World| {
            let record = world.record.as_ref()?;
            Some(named(record, REPLICA)?.mark)
        };
        let is_live = self.record.as_ref().is_some_and(|record| !record.is_tombstone());
        let legal = match step {
            Step::Seal => !self.was_sealed && !self.was_recorded,
            Step::Confirm { with } => {
                !self.was_recorded && !self.is_below_floor && (self.was_sealed || !with)
            }
            Step::Build => is_live && !self.was_sealed && !self.is_moving,
            // A node keeps one replica of a chunk, so a build is of a chunk not named here.
            Step::Commit => is_live && self.is_moving && mark(self).is_none(),
            Step::GiveUp => self.is_moving,
            Step::Doom => is_live && mark(self) == Some(ReplicaMark::Sound),
            Step::Delete => is_live,
            Step::Erase => {
                self.is_on_disk
                    && (mark(self) == Some(ReplicaMark::Doomed) || mark(self).is_some() && !is_live)
            }
            Step::Forget => mark(self).is_some() && !self.is_on_disk && !is_live,
            Step::Remove => {
                self.record.as_ref().is_some_and(Chunk::is_tombstone)
                    && mark(self).is_none()
                    && self.is_below_floor
            }
            Step::RaiseFloor => !self.is_below_floor,
            Step::Vanish => self.is_on_disk,
        };
        if !legal {
            return None;
        }
        match step {
            Step::Seal => (next.is_on_disk, next.was_sealed) = (true, true),
            Step::Confirm { with } => {
                let replica = if with { REPLICA } else { OTHER };
                next.record = Some(chunk(&[(replica, ReplicaMark::Sound)], 1));
                next.was_recorded = true;
            }
            Step::Build => {
                (next.is_on_disk, next.was_sealed, next.is_moving) = (true, true, true);
            }
            Step::Commit => {
                next.record.as_mut()?.replicas.push(Replica::new(
                    REPLICA.disk,
                    REPLICA.part,
                    REPLICA.stamp,
                ));
                next.is_moving = false;
            }
            Step::GiveUp => next.is_moving = false,
            Step::Doom => {
                let replicas = &mut next.record.as_mut()?.replicas;
                let doomed = replicas.iter_mut().find(|it| ReplicaId::of(it) == REPLICA)?;
                doomed.mark = ReplicaMark::Doomed;
            }
            Step::Delete => next.record.as_mut()?.references = 0,
            Step::Erase => next.is_on_disk = false,
            Step::Forget => {
                next.record.as_mut()?.replicas.retain(|it| ReplicaId::of(it) != REPLICA);
            }
            Step::Remove => next.record = None,
            Step::RaiseFloor => next.is_below_floor = true,
            Step::Vanish => (next.is_on_disk, next.has_vanished) = (false, true),
        }
        Some(next)
    }

    /// Returns whether any legal future makes a live record name the replica.
    fn can_be_named(&self, depth: usize) -> bool {
        let is_named = self.record.as_ref().is_some_and(|record| {
            !record.is_tombstone() && named(record, REPLICA).is_some_and(|it| !it.is_doomed())
        });
        is_named
            || depth > 0
                && STEPS
                    .iter()
                    .any(|step| self.after(*step).is_some_and(|next| next.can_be_named(depth - 1)))
    }
}

fn listed() -> Listed {
    Listed { length: SEAL.length, crc32c: SEAL.crc32c, is_set_aside: false }
}

/// Observes a history: the record at `worlds[at[0]]`, the list at `at[1]`, and the rest at `at[2]`.
fn observe(worlds: &[World], at: [usize; 3]) -> Finding {
    let [before, list, after] = at.map(|at| &worlds[at]);
    let found = listed();
    let sighting = Sighting {
        chunk: CHUNK,
        replica: REPLICA,
        before: before.record.as_ref(),
        listed: list.is_on_disk.then_some(&found),
        after: after.record.as_ref().map_or(RecordAfter::Absent, RecordAfter::Chunk),
        is_moving: worlds[at[1]..=at[2]].iter().any(|world| world.is_moving),
        // The floor only rises, and is read before the record.
        floor: if worlds[at[1]].is_below_floor { ChunkId(CHUNK.0 + 1) } else { ChunkId(0) },
    };
    sighting.finding(&cluster())
}

fn check(worlds: &[World]) -> usize {
    let end = worlds.len() - 1;
    let mut findings = 0;
    for before in 0..=end {
        for list in before..=end {
            for after in list..=end {
                let finding = observe(worlds, [before, list, after]);
                let (then, now) = (&worlds[list], &worlds[after]);
                let history = || format!("{finding:?} at {before}, {list}, {after}: {worlds:#?}");
                match finding {
                    Finding::Consistent => continue,
                    Finding::Gone => assert!(then.has_vanished, "{}", history()),
                    Finding::Undeleted => {
                        assert!(then.is_on_disk && !now.can_be_named(3), "{}", history());
                    }
                    Finding::Orphan | Finding::Surplus => {
                        assert!(!now.can_be_named(3), "{}", history());
                    }
                    Finding::Adoptable | Finding::Back => {
                        assert!(then.is_on_disk, "{}", history());
                    }
                }
                findings += 1;
            }
        }
    }
    findings
}

fn extend(worlds: &mut Vec<World>, depth: usize, histories: &mut usize, findings: &mut usize) {
    *histories += 1;
    *findings += check(worlds);
    if depth == 0 {
        return;
    }
    for step in STEPS {
        let next = worlds.last().and_then(|world| world.after(step));
        if let Some(next) = next {
            worlds.push(next);
            extend(worlds, depth - 1, histories, findings);
            worlds.pop();
        }
    }
}

#[test]
fn every_finding_is_true_in_every_short_history() {
    let (mut histories, mut findings) = (0, 0);
    extend(&mut vec![World::default()], 7, &mut histories, &mut findings);
    assert!(histories > 500 && findings > 5_000, "{histories} histories, {findings} findings");
}

/// Returns the finding for a record that does not change meanwhile.
fn finding(record: Option<&Chunk>, listed: Option<&Listed>) -> Finding {
    let sighting = Sighting {
        chunk: CHUNK,
        replica: REPLICA,
        before: record,
        listed,
        after: record.map_or(RecordAfter::Absent, RecordAfter::Chunk),
        is_moving: false,
        floor: ChunkId::MAX,
    };
    sighting.finding(&cluster())
}

#[test]
fn unchanged_differences_are_found() {
    use ReplicaMark::{Bad, Doomed, Gone, Sound};
    let found = listed();
    let set_aside = Listed { is_set_aside: true, ..found };
    let other_bytes = Listed { length: 2, ..found };
    let named = |mark| chunk(&[(REPLICA, mark)], 1);
    let elsewhere = |mark| chunk(&[(OTHER, mark)], 1);
    let table = [
        (None, None, Finding::Consistent),
        (None, Some(&found), Finding::Orphan),
        (Some(named(Sound)), None, Finding::Gone),
        (Some(named(Bad)), None, Finding::Gone),
        (Some(named(Gone)), None, Finding::Consistent),
        (Some(named(Doomed)), None, Finding::Consistent),
        (Some(named(Sound)), Some(&found), Finding::Consistent),
        (Some(named(Bad)), Some(&set_aside), Finding::Consistent),
        (Some(named(Gone)), Some(&found), Finding::Back),
        (Some(named(Doomed)), Some(&found), Finding::Undeleted),
        (Some(chunk(&[(REPLICA, Sound)], 0)), Some(&found), Finding::Undeleted),
        (Some(chunk(&[(REPLICA, Sound)], 0)), None, Finding::Consistent),
        (Some(chunk(&[], 0)), Some(&found), Finding::Consistent),
        (Some(elsewhere(Sound)), Some(&found), Finding::Surplus),
        (Some(elsewhere(Gone)), Some(&found), Finding::Adoptable),
        (Some(elsewhere(Gone)), Some(&set_aside), Finding::Consistent),
        (Some(elsewhere(Gone)), Some(&other_bytes), Finding::Consistent),
        (Some(elsewhere(Sound)), None, Finding::Consistent),
    ];
    for (record, listed, expected) in table {
        assert_eq!(finding(record.as_ref(), listed), expected, "{record:?} {listed:?}");
    }
}

#[test]
fn unreadable_record_proves_nothing() {
    let (found, record) = (listed(), chunk(&[(REPLICA, ReplicaMark::Sound)], 1));
    for listed in [None, Some(&found)] {
        let sighting = Sighting {
            chunk: CHUNK,
            replica: REPLICA,
            before: Some(&record),
            listed,
            after: RecordAfter::Unreadable,
            is_moving: false,
            floor: ChunkId::MAX,
        };
        assert_eq!(sighting.finding(&cluster()), Finding::Consistent);
    }
}

#[test]
fn chunk_above_the_floor_is_no_orphan() {
    let found = listed();
    let sighting = Sighting {
        chunk: CHUNK,
        replica: REPLICA,
        before: None,
        listed: Some(&found),
        after: RecordAfter::Absent,
        is_moving: false,
        floor: CHUNK,
    };
    assert_eq!(sighting.finding(&cluster()), Finding::Consistent);
}
