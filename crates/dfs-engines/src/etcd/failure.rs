//! Conversion of etcd errors to engine errors.

use dfs_etcd::Error;
use dfs_metadata::engine::EngineError;
use dfs_types::Revision;

/// Converts the error of a call that changes nothing, or certainly did not take effect.
pub(super) fn engine_error(error: Error) -> EngineError {
    match error {
        Error::NoSpace(why) => EngineError::NoSpace(why),
        Error::Refused(why)
        | Error::TokenGone(why)
        | Error::Settings(why)
        | Error::Invalid(why) => EngineError::Refused(why),
        Error::Compacted
        | Error::FutureRevision
        | Error::LeaseGone
        | Error::Unreachable(_)
        | Error::NoAnswer(_) => EngineError::Unavailable(error.to_string()),
    }
}

/// Converts the error of a read at a revision.
pub(super) fn read_error(error: Error, revision: i64) -> EngineError {
    match error {
        Error::Compacted => EngineError::Compacted(Revision(revision as u64)),
        error => engine_error(error),
    }
}
