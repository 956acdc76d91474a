//! Building blocks of etcd transactions.

use bytes::Bytes;
use dfs_etcd::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use dfs_etcd::etcdserverpb::request_op::Request;
use dfs_etcd::etcdserverpb::response_op::Response;
use dfs_etcd::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, ResponseHeader, ResponseOp,
};
use dfs_etcd::mvccpb::KeyValue;

/// A version that no key has: for conditions that can never hold.
const NEVER: i64 = -1;

/// Requires that the key was last written at this revision.
pub(super) fn has_version(key: Bytes, revision: u64) -> Compare {
    // To etcd, a missing key has revision 0.
    let revision = i64::try_from(revision).ok().filter(|revision| *revision > 0).unwrap_or(NEVER);
    compare(key, Bytes::new(), CompareTarget::Mod, TargetUnion::ModRevision(revision))
}

/// Requires that no key from `key` up to `end` exists; without an end, that `key` does not.
pub(super) fn is_absent(key: Bytes, end: Bytes) -> Compare {
    compare(key, end, CompareTarget::Create, TargetUnion::CreateRevision(0))
}

/// Requires that the key was written this many times since its creation.
pub(super) fn has_writes(key: Bytes, count: i64) -> Compare {
    compare(key, Bytes::new(), CompareTarget::Version, TargetUnion::Version(count))
}

fn compare(key: Bytes, range_end: Bytes, target: CompareTarget, with: TargetUnion) -> Compare {
    Compare {
        result: CompareResult::Equal.into(),
        target: target.into(),
        key,
        range_end,
        target_union: Some(with),
    }
}

/// Sets a key, under a lease unless that is 0.
pub(super) fn put(key: Bytes, value: Bytes, lease: i64) -> RequestOp {
    op(Request::RequestPut(PutRequest { key, value, lease }))
}

/// Removes a key.
pub(super) fn delete(key: Bytes) -> RequestOp {
    op(Request::RequestDeleteRange(DeleteRangeRequest { key, range_end: Bytes::new() }))
}

/// Reads.
pub(super) fn read(range: RangeRequest) -> RequestOp {
    op(Request::RequestRange(range))
}

fn op(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

/// Returns the keys read; none for an operation that is not a read.
pub(super) fn found(response: ResponseOp) -> Vec<KeyValue> {
    match response.response {
        Some(Response::ResponseRange(range)) => range.kvs,
        _ => Vec::new(),
    }
}

/// Returns the revision at which a reply was given.
pub(super) fn revision_of(header: Option<&ResponseHeader>) -> i64 {
    header.map_or(0, |header| header.revision)
}
