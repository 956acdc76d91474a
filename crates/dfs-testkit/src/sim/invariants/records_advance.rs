//! Records of chunks only advance: a change of replicas raises the generation, a verdict is only
//! replaced by a later one, a doomed replica stays doomed, and no record names a replica again that
//! it has forgotten.

use std::collections::{BTreeMap, BTreeSet};

use dfs_metadata::namespace::{Chunk, ReplicaId};
use dfs_types::ChunkId;

/// The records after the last commits, and all replicas that were forgotten before.
#[derive(Debug, Default)]
pub(in crate::sim) struct Records {
    last: BTreeMap<ChunkId, Chunk>,
    forgotten: BTreeSet<(ChunkId, ReplicaId)>,
}

impl Records {
    /// Checks the record of a chunk after a commit; `None` for no record.
    pub(in crate::sim) fn check(
        &mut self,
        chunk: ChunkId,
        new: Option<Chunk>,
    ) -> Result<(), String> {
        let names = |replica| new.as_ref().is_some_and(|new| named(new).any(|it| it == replica));
        if let Some(old) = self.last.remove(&chunk) {
            if new.as_ref().is_some_and(|new| !advances(&old, new)) {
                return Err(format!("the record of chunk {chunk} went back: {old:?} to {new:?}"));
            }
            let gone = named(&old).filter(|replica| !names(*replica));
            self.forgotten.extend(gone.map(|replica| (chunk, replica)));
        }
        if let Some(new) = new {
            if let Some(again) = named(&new).find(|it| self.forgotten.contains(&(chunk, *it))) {
                return Err(format!("chunk {chunk} names {again:?} again: {new:?}"));
            }
            self.last.insert(chunk, new);
        }
        Ok(())
    }
}

fn named(record: &Chunk) -> impl Iterator<Item = ReplicaId> {
    record.replicas.iter().map(ReplicaId::of)
}

fn advances(old: &Chunk, new: &Chunk) -> bool {
    let is_newer = new.generation > old.generation
        || (new.generation, &new.replicas) == (old.generation, &old.replicas);
    is_newer
        && old.replicas.iter().all(|old| {
            let new = new.replicas.iter().find(|new| ReplicaId::of(new) == ReplicaId::of(old));
            new.is_none_or(|new| {
                new.verdict >= old.verdict && (new.is_doomed() || !old.is_doomed())
            })
        })
}

#[cfg(test)]
mod tests {
    use dfs_metadata::namespace::{Replica, ReplicaMark};
    use dfs_types::{
        ChunkSeal, Crc32c, DiskNumber, Generation, InodeId, Part, Redundancy, Sha256, Stamp,
    };

    use super::*;

    fn record(generation: u64, replicas: &[Replica]) -> Chunk {
        Chunk {
            seal: ChunkSeal { length: 5, crc32c: Crc32c(1), sha256: Sha256([0; 32]) },
            redundancy: Redundancy::Replicated { copies: 3 },
            policy: 0,
            replicas: replicas.to_vec(),
            generation: Generation(generation),
            references: 1,
            inode: InodeId::ROOT,
        }
    }

    fn replica(stamp: u64, mark: ReplicaMark, verdict: u64) -> Replica {
        Replica { mark, verdict, ..Replica::new(DiskNumber(1), Part::WHOLE, Stamp(stamp)) }
    }

    fn is_accepted(history: &[Chunk]) -> bool {
        let mut records = Records::default();
        history.iter().all(|record| records.check(ChunkId(1), Some(record.clone())).is_ok())
    }

    #[test]
    fn records_that_go_back_are_found() {
        use ReplicaMark::{Bad, Doomed, Sound};
        let named = |generation, mark, verdict| record(generation, &[replica(7, mark, verdict)]);
        assert!(is_accepted(&[named(1, Sound, 0), named(2, Bad, 3), named(3, Doomed, 3)]));
        assert!(is_accepted(&[named(1, Bad, 3), named(2, Sound, 4), named(2, Sound, 4)]));
        assert!(!is_accepted(&[named(2, Sound, 0), named(1, Sound, 0)]), "generation");
        assert!(!is_accepted(&[named(2, Sound, 0), named(2, Bad, 3)]), "same generation");
        assert!(!is_accepted(&[named(1, Bad, 3), named(2, Sound, 2)]), "verdict");
        assert!(!is_accepted(&[named(1, Doomed, 3), named(2, Sound, 3)]), "doomed");
        let again = [named(1, Doomed, 3), record(2, &[]), named(3, Sound, 0)];
        assert!(!is_accepted(&again), "the stamp of a replica that was forgotten");
    }
}
