//! JSON documents that several commands write, one function per thing, so that it has the same form
//! everywhere. `docs/json.md` lists their fields, checked by a test here.
//!
//! Documents carry data: sizes in bytes, durations in milliseconds and modes as numbers, times as
//! seconds and nanoseconds, ids as hexadecimal strings, `null` for unknown values.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use dfs_client::{
    ClusterStatus, DiskStatus, ExplainedChunk, ExplainedReplica, Explanation, FailingTarget,
    FileStat, NodeStatus, RefusedNode, ReplicationStatus, WorkerStatus, XattrName,
};
use dfs_types::{DfsPath, DiskScrub, FileKind, FileTime};
use serde_json::{Value, json};

use crate::printable::printable;

fn time(time: FileTime) -> Value {
    json!({ "seconds": time.seconds(), "nanos": time.nanos() })
}

/// The document of an inode for `stat`, `ls` and `tree`. Names that are not UTF-8 are escaped.
pub(crate) fn stat(path: &DfsPath, stat: &FileStat) -> Value {
    let attributes = &stat.attributes;
    let mut document = json!({
        "path": printable(path.as_bytes()),
        "inode": stat.inode.0,
        "kind": stat.kind.name(),
        "size": stat.size,
        "mode": attributes.mode,
        "uid": attributes.uid,
        "gid": attributes.gid,
        "mtime": time(attributes.mtime),
        "ctime": time(stat.ctime),
        "born": time(stat.born),
        "nlink": stat.nlink,
        "xattrs": stat.xattrs,
        "rdev": null,
        "target": null,
        "replication_factor": null,
        "has_default_replication": null,
    });
    match stat.kind {
        FileKind::Symlink => document["target"] = json!(printable(&stat.symlink_target)),
        FileKind::File | FileKind::Directory => {
            document["replication_factor"] = json!(stat.replication_factor);
            document["has_default_replication"] = json!(stat.has_default_replication);
        }
        FileKind::CharacterDevice | FileKind::BlockDevice => document["rdev"] = json!(stat.rdev),
        FileKind::Fifo | FileKind::Socket => {}
    }
    document
}

/// The document of `xattr get`. A value that is not UTF-8 is in base64.
pub(crate) fn xattr(name: &XattrName, value: &[u8]) -> Value {
    let (value, encoding) = match std::str::from_utf8(value) {
        Ok(text) => (text.to_owned(), "utf-8"),
        Err(_) => (BASE64_STANDARD.encode(value), "base64"),
    };
    json!({ "name": name.to_string(), "value": value, "encoding": encoding })
}

/// The document of a file for `explain`.
pub(crate) fn explanation(path: &DfsPath, found: &Explanation) -> Value {
    json!({
        "path": printable(path.as_bytes()),
        "inode": found.stat.inode.0,
        "size": found.stat.size,
        "replication_factor": found.stat.replication_factor,
        "has_default_replication": found.stat.has_default_replication,
        "chunks": found.chunks.iter().map(chunk).collect::<Vec<_>>(),
        "problems": found.problems,
    })
}

fn chunk(chunk: &ExplainedChunk) -> Value {
    json!({
        "chunk": chunk.chunk.to_string(),
        "file_offset": chunk.file_offset,
        "length": chunk.length,
        "replicas_wanted": chunk.wanted,
        "replicas": chunk.replicas.iter().map(replica).collect::<Vec<_>>(),
    })
}

fn replica(replica: &ExplainedReplica) -> Value {
    json!({
        "node": replica.node.to_string(),
        "disk": replica.disk.to_string(),
        "address": replica.address,
        "state": replica.state.map(|state| state.to_string()),
        "health": replica.health.to_string(),
        "verified": replica.verified,
        "problem": replica.problem,
    })
}

/// The document of `df`.
pub(crate) fn capacity(status: &ClusterStatus) -> Value {
    json!({
        "capacity": status.capacity(),
        "used": status.used(),
        "free": status.free(),
        "free_for_new_files": status.free() / u64::from(status.replication_factor.max(1)),
        "replication_factor": status.replication_factor,
    })
}

/// The document of `status`.
pub(crate) fn status(status: &ClusterStatus) -> Value {
    let counts = status.replication.as_ref();
    let count = |of: fn(&ReplicationStatus) -> u64| counts.map(of);
    let holder = Some(&status.worker_lease_holder).filter(|holder| !holder.is_empty());
    json!({
        "cluster": status.cluster.to_string(),
        "incarnation": status.incarnation.0,
        "revision": status.revision.0,
        "version": status.version,
        "replication_factor": status.replication_factor,
        "min_write_replicas": status.min_write_replicas,
        "worker_lease_holder": holder,
        "nodes": status.nodes.iter().map(node).collect::<Vec<_>>(),
        "replication": {
            "is_known": counts.is_some(),
            "chunks": count(|counts| counts.chunks),
            "under_replicated": count(|counts| counts.under_replicated),
            "missing": count(|counts| counts.missing),
            "bad_replicas": count(|counts| counts.bad_replicas),
            "repairing": count(|counts| counts.repairing),
            "unreadable_records": count(|counts| counts.unreadable_records),
            "unreadable_example": counts.map(|counts| counts.unreadable_example.as_str()),
            "without_spare": count(|counts| counts.without_spare),
            "without_target": count(|counts| counts.without_target),
            "degraded_ms": counts
                .and_then(|counts| counts.degraded)
                .map(|time| time.as_millis() as u64),
            "failing_targets": counts.map(|counts| {
                counts.failing_targets.iter().map(failing_target).collect::<Vec<_>>()
            }),
        },
        "reconciliation": {
            "progress": status.reconciliation.progress,
            "last_whole_ms": status.reconciliation.last_whole.map(|ago| ago.as_millis() as u64),
            "orphans": status.reconciliation.orphans,
            "orphan_bytes": status.reconciliation.orphan_bytes,
        },
        "repair_held": status.repair_held,
        "refused_nodes": status.refused_nodes.iter().map(refused_node).collect::<Vec<_>>(),
        "now_ms": status.now.millis(),
        "workers": status.workers.iter().map(worker).collect::<Vec<_>>(),
    })
}

fn failing_target(failing: &FailingTarget) -> Value {
    json!({
        "node": failing.node.to_string(),
        "rests_ms": failing.rests.as_millis() as u64,
        "reaches_no_source": failing.reaches_no_source,
    })
}

fn refused_node(refused: &RefusedNode) -> Value {
    json!({ "node": refused.node.to_string(), "address": refused.address })
}

/// The document of a worker for `status` and `worker`.
pub(crate) fn worker(worker: &WorkerStatus) -> Value {
    json!({
        "name": worker.name,
        "activity": worker.activity.name(),
        "message": worker.state,
        "done": worker.done,
        "failed": worker.failed,
        "queued": worker.queued,
        "unit": worker.unit.name(),
        "rate": worker.rate,
        "budget": worker.budget,
        "pause_left_ms": worker.pause_left.map(|left| left.as_millis() as u64),
    })
}

/// The document of a node for `status` and `node list`.
pub(crate) fn node(node: &NodeStatus) -> Value {
    json!({
        "id": node.id.to_string(),
        "address": node.address,
        "zone": node.zone,
        "host": node.host,
        "state": node.state.to_string(),
        "last_heard_ms": node.last_heard.map(|ago| ago.as_millis() as u64),
        "version": node.version,
        "refuses_chunks": node.refuses_chunks,
        "sessions": node.sessions,
        "maintenance_left_ms": node.maintenance_left.map(|left| left.as_millis() as u64),
        "lost_in_ms": node.lost_in.map(|left| left.as_millis() as u64),
        "disks": node.disks.iter().map(disk).collect::<Vec<_>>(),
    })
}

/// The document of a disk for `status` and `disk list`.
pub(crate) fn disk(disk: &DiskStatus) -> Value {
    json!({
        "id": disk.id.to_string(),
        "capacity": disk.capacity,
        "free": disk.free,
        "file_system": disk.file_system.map(|id| id.to_string()),
        "chunks": disk.chunks,
        "state": disk.state.name(),
        "reason": disk.reason,
        "read_percent": disk.read_percent,
        "can_be_removed": disk.can_be_removed,
        "scrub": disk.scrub.as_ref().map(scrub),
    })
}

fn scrub(scrub: &DiskScrub) -> Value {
    json!({
        "last_end_ms": scrub.last.map(|last| last.end.millis()),
        "last_bytes": scrub.last.map(|last| last.bytes),
        "last_errors": scrub.last.map(|last| last.errors),
        "replicas": scrub.replicas,
        "errors": scrub.errors,
        "left_replicas": scrub.left_replicas,
        "left_bytes": scrub.left_bytes,
        "every_ms": scrub.every.map(|every| every.as_millis() as u64),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::CommandFactory as _;
    use dfs_types::{
        Attributes, Change, ChunkId, ClusterId, DiskId, InodeId, NodeId, NodeState, ReplicaHealth,
    };

    use super::*;
    use crate::args::Cli;
    use crate::json_page;

    /// Checks a document that has every field, those in arrays included.
    fn check(command: &str, document: &Value) {
        let found = json_page::check(command, document);
        let listed = json_page::listed(command);
        let unknown: Vec<_> = listed.keys().filter(|field| !found.contains_key(**field)).collect();
        assert!(unknown.is_empty(), "{command}: {unknown:?} are listed but not written");
    }

    fn file() -> FileStat {
        FileStat {
            inode: InodeId(7),
            kind: FileKind::File,
            size: 5,
            attributes: Attributes::default(),
            ctime: FileTime::default(),
            born: FileTime::default(),
            nlink: 1,
            rdev: 0,
            change: Change::default(),
            xattrs: 0,
            symlink_target: bytes::Bytes::new(),
            replication_factor: 3,
            has_default_replication: true,
        }
    }

    #[test]
    fn documents_match_the_page() {
        let path = DfsPath::new("/a").unwrap();
        let file = file();
        check("stat", &stat(&path, &file));
        let link = FileStat {
            kind: FileKind::Symlink,
            symlink_target: bytes::Bytes::from_static(b"b"),
            ..file.clone()
        };
        check("stat", &stat(&path, &link));
        let found = Explanation {
            stat: file,
            chunks: vec![ExplainedChunk {
                chunk: ChunkId(1),
                file_offset: 0,
                length: 5,
                wanted: 3,
                replicas: vec![ExplainedReplica {
                    node: NodeId(1),
                    disk: DiskId(1),
                    address: "a:7080".to_owned(),
                    state: Some(NodeState::Active),
                    health: ReplicaHealth::Good,
                    verified: Some(true),
                    problem: None,
                }],
            }],
            problems: vec!["chunk 1 has 1 good replica".to_owned()],
        };
        check("explain", &explanation(&path, &found));
        let name = XattrName::new(&b"user.a"[..]).unwrap();
        let text = xattr(&name, "é".as_bytes());
        check("xattr get", &text);
        assert_eq!((&text["value"], &text["encoding"]), (&json!("é"), &json!("utf-8")));
        let binary = xattr(&name, b"\xff\0\x01");
        assert_eq!((&binary["value"], &binary["encoding"]), (&json!("/wAB"), &json!("base64")));
    }

    #[test]
    fn cluster_documents_match_the_page() {
        let mut cluster = ClusterStatus::new(ClusterId(1));
        let mut node = NodeStatus::new(NodeId(1), "a:7080", NodeState::Active);
        node.disks = vec![DiskStatus::new(DiskId(1), 10)];
        node.disks[0].scrub = Some(DiskScrub::default());
        cluster.nodes = vec![node];
        let unknown = status(&cluster);
        assert_eq!(unknown["replication"]["missing"], Value::Null, "unknown is not zero");
        let mut counts = ReplicationStatus::default();
        let (node, rests) = (NodeId(1), Duration::from_secs(1));
        counts.failing_targets = vec![FailingTarget { node, rests, reaches_no_source: true }];
        cluster.replication = Some(counts);
        cluster.refused_nodes = vec![RefusedNode { node: NodeId(2), address: "b:7080".to_owned() }];
        check("df", &capacity(&cluster));
        let mut document = status(&cluster);
        // Only the SDK can construct workers.
        document["workers"] = json!([
            {
                "name": "repair", "activity": "running", "message": "", "done": 0, "failed": 0,
                "queued": 0, "unit": "bytes", "rate": null, "budget": 0, "pause_left_ms": null,
            },
        ]);
        check("status", &document);
    }
    /// Commands that write content or logs rather than documents.
    const WITHOUT_DOCUMENTS: [&str; 4] = ["cat", "completions", "local", "datanode"];

    /// Collects all commands without subcommands, by their full names.
    fn leaves(command: &clap::Command, name: &str, found: &mut Vec<String>) {
        if command.get_subcommands().next().is_none() {
            found.push(name.to_owned());
        }
        for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
            leaves(below, format!("{name} {}", below.get_name()).trim(), found);
        }
    }

    #[test]
    fn page_lists_every_command_and_no_other() {
        let mut commands = Vec::new();
        leaves(&Cli::command(), "", &mut commands);
        commands.retain(|command| !WITHOUT_DOCUMENTS.contains(&command.as_str()));
        commands.sort();
        let mut listed: Vec<_> = json_page::sections().flat_map(|(commands, _)| commands).collect();
        listed.sort_unstable();
        assert_eq!(listed, commands);
    }
}
