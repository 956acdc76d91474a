//! What a call of the SDK can end with.

use dfs_proto::Failure;
use dfs_proto::wire::FieldError;
use dfs_types::{ErrorCode, RequestId};

/// Why a call failed: what was done to what, what was said of it, and the id under which servers
/// have logged it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}", told(context, message))]
pub struct Error {
    code: ErrorCode,
    context: String,
    message: String,
    request_id: Option<RequestId>,
}

/// What was said, after what it is about unless that is named in it.
fn told(context: &str, message: &str) -> String {
    if message.contains(context) { message.to_owned() } else { format!("{context}: {message}") }
}

impl Error {
    pub(crate) fn new(
        code: ErrorCode,
        context: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        let request_id = dfs_transport::current_request_id();
        Self { code, context: context.into(), message: message.into(), request_id }
    }

    pub(crate) fn of(context: impl Into<String>, failure: &Failure) -> Self {
        Self::new(failure.code, context, failure.message.clone())
    }

    pub(crate) fn wire(context: impl Into<String>, error: &FieldError) -> Self {
        let message = format!("an answer of the server is not sound: {error}");
        Self::new(ErrorCode::Internal, context, message)
    }

    /// What went wrong, from the closed list.
    pub fn code(&self) -> ErrorCode {
        self.code
    }

    /// Whether the same call may succeed a little later with nothing done about it.
    pub fn is_retryable(&self) -> bool {
        self.code.is_retryable()
    }

    /// Whether the call may have taken effect all the same. Repeating it is safe.
    pub fn is_outcome_unknown(&self) -> bool {
        self.code.is_outcome_unknown()
    }

    /// Under which id servers have logged the call.
    pub fn request_id(&self) -> Option<RequestId> {
        self.request_id
    }
}
