//! Errors of the SDK.

use dfs_proto::wire::FieldError;
use dfs_proto::{Detail, Failure};
use dfs_types::{ErrorCode, RequestId};

/// Why a call failed: the operation and its object, the cause, and the id under which servers have
/// logged it.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let cluster = dfs_fake::Cluster::start(3).await;
/// # let client = dfs_fake::client!(cluster);
/// use dfs_client::{DfsPath, Error, ErrorCode, Follow, MakeDirectoryOptions};
///
/// fn advice(error: &Error) -> &'static str {
///     if error.is_outcome_unknown() {
///         "it may have happened: check, or repeat it"
///     } else if error.is_retryable() {
///         "nothing happened: retry later"
///     } else {
///         "nothing happened: fix the cause"
///     }
/// }
///
/// let missing = client.stat(&DfsPath::new("/missing")?, Follow::Yes).await.unwrap_err();
/// assert_eq!(missing.code(), ErrorCode::NotFound);
/// assert_eq!(advice(&missing), "nothing happened: fix the cause");
///
/// // The coordinator makes a directory, and crashes before it replies.
/// # cluster.state().loses_answer_of = Some("MakeDirectory");
/// let path = DfsPath::new("/folder")?;
/// let making = client.make_directory(&path, MakeDirectoryOptions::default());
/// # let going = async {
/// #     while cluster.state().done("MakeDirectory") == 0 {
/// #         tokio::time::sleep(std::time::Duration::from_millis(1)).await;
/// #     }
/// #     cluster.stop_coordinator().await;
/// # };
/// # let (making, ()) = tokio::join!(making, going);
/// # let making = std::future::ready(making);
/// let unknown = making.await.unwrap_err();
/// assert_eq!(advice(&unknown), "it may have happened: check, or repeat it");
///
/// let unavailable = client.stat(&path, Follow::Yes).await.unwrap_err();
/// assert_eq!(advice(&unavailable), "nothing happened: retry later");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}", display(context, message))]
pub struct Error {
    code: ErrorCode,
    context: String,
    message: String,
    request_id: Option<RequestId>,
    detail: Option<Detail>,
}

/// The message, prefixed with its context unless it contains it.
fn display(context: &str, message: &str) -> String {
    if message.contains(context) { message.to_owned() } else { format!("{context}: {message}") }
}

impl Error {
    pub(crate) fn new(
        code: ErrorCode,
        context: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        let request_id = dfs_transport::current_request_id();
        Self { code, context: context.into(), message: message.into(), request_id, detail: None }
    }

    pub(crate) fn of(context: impl Into<String>, failure: &Failure) -> Self {
        let error = Self::new(failure.code, context, failure.message.clone());
        Self { detail: failure.detail, ..error }
    }

    pub(crate) fn wire(context: impl Into<String>, error: &FieldError) -> Self {
        let message = format!("malformed reply from the server: {error}");
        Self::new(ErrorCode::Internal, context, message)
    }

    /// Returns the code, from the closed list.
    pub fn code(&self) -> ErrorCode {
        self.code
    }

    /// Returns true if the same call may succeed later without intervention.
    pub fn is_retryable(&self) -> bool {
        self.code.is_retryable()
    }

    /// Returns true if the call may have taken effect nevertheless. Repeating it is safe.
    pub fn is_outcome_unknown(&self) -> bool {
        self.code.is_outcome_unknown()
    }

    /// Returns true if a coordinator replied that its metadata store holds no cluster yet.
    pub fn is_uninitialised(&self) -> bool {
        self.detail == Some(Detail::Uninitialised)
    }

    /// Returns true if a coordinator replied that its metadata engine fails.
    pub fn is_of_metadata(&self) -> bool {
        self.detail == Some(Detail::MetadataFailed)
    }

    /// Returns the id under which servers have logged the call.
    pub fn request_id(&self) -> Option<RequestId> {
        self.request_id
    }
}

impl From<Error> for std::io::Error {
    /// Maps the code to the closest kind; the error itself is the source.
    fn from(error: Error) -> Self {
        let kind = match error.code {
            ErrorCode::NotFound => std::io::ErrorKind::NotFound,
            ErrorCode::AlreadyExists => std::io::ErrorKind::AlreadyExists,
            ErrorCode::NotADirectory => std::io::ErrorKind::NotADirectory,
            ErrorCode::IsADirectory => std::io::ErrorKind::IsADirectory,
            ErrorCode::PermissionDenied => std::io::ErrorKind::PermissionDenied,
            ErrorCode::Stale => std::io::ErrorKind::StaleNetworkFileHandle,
            ErrorCode::NoSpace => std::io::ErrorKind::StorageFull,
            ErrorCode::Corrupt => std::io::ErrorKind::InvalidData,
            ErrorCode::InvalidArgument => std::io::ErrorKind::InvalidInput,
            _ => std::io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}
