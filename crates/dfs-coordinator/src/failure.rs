//! The one mapping from namespace errors to failures of calls.

use std::time::Duration;

use dfs_proto::{Detail, Failure};
use dfs_types::{ErrorCode, with_causes};
use tracing::error;

/// Retry hint for transient failures.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// Converts the error of a namespace call.
pub(crate) fn of(error: &dfs_metadata::Error) -> Failure {
    let code = error.code();
    if code == ErrorCode::Internal {
        error!(error = with_causes(error), "a call failed because of a defect or a damaged store");
    }
    let mut failure = Failure::new(code, with_causes(error));
    if matches!(error, dfs_metadata::Error::Engine(_)) {
        failure = failure.detail(Detail::MetadataFailed);
    }
    match code {
        ErrorCode::Conflict | ErrorCode::Unavailable | ErrorCode::Busy => {
            failure.retry_after(RETRY_AFTER)
        }
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use dfs_metadata::engine::EngineError;

    use super::*;

    #[test]
    fn failure_of_the_metadata_engine_is_told_apart() {
        let engine = dfs_metadata::Error::Engine(EngineError::Unavailable("no quorum".to_owned()));
        assert_eq!(of(&engine).detail, Some(Detail::MetadataFailed));
        assert_eq!(of(&dfs_metadata::Error::NotInitialised).detail, None);
    }
}
