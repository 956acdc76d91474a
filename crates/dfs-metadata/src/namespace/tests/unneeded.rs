//! Replicas that no record needs.

use dfs_types::{ChunkId, DiskNumber, Part, Stamp};

use super::super::{ReplicaId, UnneededReplica};
use super::*;

fn replica(chunk: u128, disk: u32) -> UnneededReplica {
    let replica = ReplicaId { disk: DiskNumber(disk), part: Part::WHOLE, stamp: Stamp(7) };
    let since = Timestamp::from_millis(5);
    UnneededReplica { chunk: ChunkId(chunk), replica, since, bytes: 9 }
}

#[tokio::test]
async fn unneeded_replicas_are_kept_by_chunk_until_forgotten() {
    let fixture = Fixture::new().await;
    let (namespace, scope) = (&fixture.namespace, Scope::internal());
    let all: Vec<_> = (1..=150).flat_map(|chunk| [replica(chunk, 1), replica(chunk, 2)]).collect();
    namespace.change_unneeded(scope, &all, &[], None).await.unwrap();
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = namespace.unneeded(scope, after.as_ref(), 70).await.unwrap();
        found.extend(page.replicas);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(found, all);
    let within = async |from, to: Option<u128>, limit| {
        let range = (ChunkId(from), to.map(ChunkId));
        namespace.unneeded_in(scope, range, limit).await.unwrap()
    };
    assert_eq!(within(0, None, 1_000).await, all);
    assert_eq!(within(3, Some(5), 1_000).await, all[4..8]);
    assert_eq!(within(3, Some(5), 3).await, all[4..7]);
    assert_eq!(within(151, None, 10).await, []);
    namespace.change_unneeded(scope, &[], &all[1..], None).await.unwrap();
    assert_eq!(within(0, None, 10).await, all[..1]);
    let again = UnneededReplica { since: Timestamp::from_millis(6), ..all[0] };
    namespace.change_unneeded(scope, &[again], &[], None).await.unwrap();
    assert_eq!(within(0, None, 10).await, [again]);
}
