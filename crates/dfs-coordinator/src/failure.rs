//! Errors of the namespace, as callers are told them: the one mapping there is.

use std::time::Duration;

use dfs_proto::Failure;
use dfs_types::{ErrorCode, with_causes};
use tracing::error;

/// When to try again after something that passes by itself.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// What a caller is told of a failed call on the namespace.
pub(crate) fn of(error: &dfs_metadata::Error) -> Failure {
    let code = error.code();
    if code == ErrorCode::Internal {
        error!(error = with_causes(error), "a call met a defect or a damaged store");
    }
    let failure = Failure::new(code, with_causes(error));
    match code {
        ErrorCode::Conflict | ErrorCode::Unavailable | ErrorCode::Busy => {
            failure.retry_after(RETRY_AFTER)
        }
        _ => failure,
    }
}
