//! The one mapping from namespace errors to failures of calls.

use std::time::Duration;

use dfs_proto::Failure;
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
    let failure = Failure::new(code, with_causes(error));
    match code {
        ErrorCode::Conflict | ErrorCode::Unavailable | ErrorCode::Busy => {
            failure.retry_after(RETRY_AFTER)
        }
        _ => failure,
    }
}
