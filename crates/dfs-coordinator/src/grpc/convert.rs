//! Conversion of results of the namespace to wire messages.

use dfs_metadata::chunk_health::judge;
use dfs_metadata::namespace::{
    DirectoryEntry, FileStat, ReadExtent, ReadPlan, Replica, ReplicaMark, UploadPlan,
};
use dfs_proto::v1;
use dfs_proto::wire::WireId;
use dfs_types::{FileTime, NodeId, ReplicaHealth};
use tokio::time::Instant;

use crate::core::{Core, location, unknown_location};

pub(super) fn stat(stat: FileStat) -> v1::FileStat {
    let FileStat {
        inode,
        kind,
        size,
        attributes,
        ctime,
        born,
        nlink,
        rdev,
        symlink_target,
        replication_factor,
        policy,
        change,
        xattrs,
    } = stat;
    v1::FileStat {
        inode: inode.0,
        kind: v1::FileKind::from(kind).into(),
        size,
        attributes: Some(attributes.into()),
        ctime: Some(FileTime::from(ctime).into()),
        symlink_target,
        replication_factor: replication_factor.into(),
        policy,
        born: Some(FileTime::from(born).into()),
        nlink,
        rdev,
        change: Some(change.into()),
        xattrs,
    }
}

pub(super) fn entry(entry: DirectoryEntry) -> v1::DirectoryEntry {
    v1::DirectoryEntry { name: entry.name.to_bytes(), stat: Some(stat(entry.stat)) }
}

/// Converts a plan, with the addresses of its nodes.
pub(super) fn plan(core: &Core, plan: UploadPlan) -> v1::UploadPlan {
    let now = Instant::now();
    let registry = core.registry();
    let dial = |node: &NodeId| {
        registry.view(*node, now).map_or_else(|| unknown_location(*node), |view| location(&view))
    };
    let chunks = plan
        .chunks
        .iter()
        .map(|chunk| v1::PlannedChunk {
            chunk_id: chunk.chunk.to_wire(),
            file_offset: chunk.file_offset,
            max_length: chunk.max_length,
            nodes: chunk.nodes.iter().map(dial).collect(),
        })
        .collect();
    v1::UploadPlan {
        token: plan.token,
        inode: plan.inode.0,
        chunk_size: plan.chunk_size,
        chunks,
        expires_ms: plan.expires.millis(),
        has_more: plan.has_more,
        replication_factor: plan.replication_factor.into(),
        min_write_replicas: plan.min_write_replicas.into(),
    }
}

/// Returns the health that readers see: for them, a bad replica is bad even on a lost disk.
fn readers_health(replica: &Replica, health: ReplicaHealth) -> ReplicaHealth {
    match (replica.mark, health) {
        (ReplicaMark::Bad, ReplicaHealth::Lost) => ReplicaHealth::Bad,
        _ => health,
    }
}

/// Converts the location of a file's bytes; the replicas most likely to respond come first.
pub(super) fn opened(core: &Core, plan: ReadPlan) -> v1::OpenResponse {
    let now = Instant::now();
    let registry = core.registry();
    let cluster = registry.cluster(now);
    let mut nodes = std::collections::BTreeMap::new();
    let mut extents = Vec::with_capacity(plan.extents.len());
    for ReadExtent { file_offset, length, chunk_id, chunk_offset, chunk } in plan.extents {
        let health = judge(&chunk, &cluster).replicas;
        let replicas =
            chunk.replicas.iter().zip(health).filter(|(replica, _)| !replica.is_doomed());
        let mut replicas: Vec<_> = replicas
            .filter_map(|(replica, health)| Some((plan.disks.get(replica.disk)?, replica, health)))
            .collect();
        replicas.sort_by_key(|(_, replica, health)| (*health, cluster.is_slow(replica.disk)));
        for (location, ..) in &replicas {
            let view = || registry.view(location.node, now);
            nodes.entry(location.node).or_insert_with(view);
        }
        extents.push(v1::Extent {
            file_offset,
            length,
            chunk_id: chunk_id.to_wire(),
            chunk_offset,
            chunk_length: chunk.seal.length,
            chunk_crc32c: chunk.seal.crc32c.0,
            chunk_sha256: bytes::Bytes::copy_from_slice(&chunk.seal.sha256.0),
            replicas: replicas
                .iter()
                .map(|(location, replica, health)| v1::Replica {
                    node_id: location.node.to_wire(),
                    disk_id: location.disk.to_wire(),
                    stamp: replica.stamp.0,
                    health: v1::ReplicaHealth::from(readers_health(replica, *health)).into(),
                    part: replica.part.0.into(),
                })
                .collect(),
            redundancy: Some(chunk.redundancy.into()),
        });
    }
    drop(registry);
    let nodes = nodes
        .into_iter()
        .map(|(node, view)| view.map_or_else(|| unknown_location(node), |view| location(&view)))
        .collect();
    v1::OpenResponse {
        stat: Some(stat(plan.stat)),
        extents,
        next_offset: plan.next_offset.unwrap_or(0),
        nodes,
    }
}
