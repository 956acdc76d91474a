//! Records of chunks only advance: a change of replicas raises the generation, a verdict is only
//! replaced by a later one, a doomed replica stays doomed, and no record names a replica again that
//! it has forgotten.

use std::collections::{BTreeMap, BTreeSet};

use dfs_metadata::namespace::{Chunk, ReplicaId};
use dfs_types::ChunkId;

/// The records of the last check, and all replicas that were forgotten before.
#[derive(Default)]
pub(in crate::sim) struct Records {
    last: BTreeMap<ChunkId, Chunk>,
    forgotten: BTreeSet<(ChunkId, ReplicaId)>,
}

impl Records {
    /// Compares all records with those of the last check.
    pub(in crate::sim) fn check<'a>(
        &mut self,
        records: impl Iterator<Item = (ChunkId, &'a Chunk)>,
    ) -> Result<(), String> {
        let now: BTreeMap<_, _> = records.map(|(chunk, record)| (chunk, record.clone())).collect();
        for (chunk, old) in std::mem::take(&mut self.last) {
            let new = now.get(&chunk);
            if new.is_some_and(|new| !advances(&old, new)) {
                return Err(format!("the record of chunk {chunk} went back: {old:?} to {new:?}"));
            }
            let named: BTreeSet<_> =
                new.into_iter().flat_map(|new| &new.replicas).map(ReplicaId::of).collect();
            let before = old.replicas.iter().map(ReplicaId::of);
            let gone = before.filter(|replica| !named.contains(replica));
            self.forgotten.extend(gone.map(|replica| (chunk, replica)));
        }
        for (chunk, record) in &now {
            let mut named = record.replicas.iter().map(|replica| (*chunk, ReplicaId::of(replica)));
            if let Some((_, again)) = named.find(|it| self.forgotten.contains(it)) {
                return Err(format!("chunk {chunk} names {again:?} again: {record:?}"));
            }
        }
        self.last = now;
        Ok(())
    }
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
        history.iter().all(|record| records.check([(ChunkId(1), record)].into_iter()).is_ok())
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
