//! Failures of commands: what went wrong, where, and what to do next.

use std::fmt;
use std::io;
use std::path::Path;

use dfs_types::{DfsPath, ErrorCode};

use crate::exit_code::{PERSON_NEEDED, exit_code, exit_code_of_signal};

/// A failure of a command.
#[derive(Debug)]
pub(crate) struct Error {
    code: ErrorCode,
    message: String,
    hint: Option<String>,
    /// True if it was already shown to the user.
    is_reported: bool,
    /// Exit code, if the code of the error does not determine it.
    exit: Option<u8>,
}

/// The result of a command or a part of it.
pub(crate) type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Returns a failure with the exit code of `code`.
    pub(crate) fn new(code: ErrorCode, message: impl fmt::Display) -> Self {
        Self { code, message: message.to_string(), hint: None, is_reported: false, exit: None }
    }

    /// Returns the failure of a command interrupted by a signal.
    pub(crate) fn interrupted(signal: i32) -> Self {
        let error = Self::new(ErrorCode::Internal, "interrupted");
        Self { exit: u8::try_from(signal).ok().map(exit_code_of_signal), ..error }
    }

    /// Returns the end of a command that has shown something which needs a person.
    pub(crate) fn person_needed() -> Self {
        let error = Self::new(ErrorCode::Internal, "a person is needed").reported();
        Self { exit: Some(PERSON_NEEDED), ..error }
    }

    /// Returns the failure of a wrong argument.
    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self::new(ErrorCode::InvalidArgument, message)
    }

    /// Returns an error of the operating system about a local path.
    pub(crate) fn local(action: &str, path: &Path, error: &io::Error) -> Self {
        let code = match error.kind() {
            io::ErrorKind::NotFound => ErrorCode::NotFound,
            io::ErrorKind::AlreadyExists => ErrorCode::AlreadyExists,
            io::ErrorKind::NotADirectory => ErrorCode::NotADirectory,
            io::ErrorKind::IsADirectory => ErrorCode::IsADirectory,
            io::ErrorKind::PermissionDenied => ErrorCode::PermissionDenied,
            io::ErrorKind::StorageFull => ErrorCode::NoSpace,
            io::ErrorKind::InvalidInput => ErrorCode::InvalidArgument,
            _ => ErrorCode::Internal,
        };
        let path =
            crate::printable::printable(std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()));
        Self::new(code, format_args!("cannot {action} {path}: {error}"))
    }

    /// Sets advice for the user.
    pub(crate) fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }

    /// Returns the error code.
    pub(crate) fn code(&self) -> ErrorCode {
        self.code
    }

    /// Returns the exit code of the process: by the kind of the error; as in shells, 128 plus the
    /// number of a signal; or that of a command that found what needs a person.
    pub(crate) fn exit_code(&self) -> u8 {
        self.exit.unwrap_or_else(|| exit_code(self.code))
    }

    /// Marks it as shown, so that it only determines the exit code.
    pub(crate) fn reported(self) -> Self {
        Self { is_reported: true, ..self }
    }

    /// Returns true if it was already shown to the user.
    pub(crate) fn is_reported(&self) -> bool {
        self.is_reported
    }

    /// Returns the document that `--json` writes.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "error": { "code": self.code.name(), "message": self.message, "hint": self.hint }
        })
    }
}

impl From<dfs_client::Error> for Error {
    fn from(error: dfs_client::Error) -> Self {
        let message = match error.request_id() {
            // The servers' logs under this id say more.
            Some(id) if error.code() == ErrorCode::Internal => format!("{error} (request {id})"),
            _ => error.to_string(),
        };
        let hint = match error.code() {
            ErrorCode::Unavailable => Some(
                "are the coordinator and the datanodes running? --coordinator or DFS_COORDINATOR sets \
                 the address of a coordinator",
            ),
            ErrorCode::OutcomeUnknown => Some("it may have taken effect; repeating it is safe"),
            ErrorCode::NotEnoughNodes => Some("`dfs doctor` says what is wrong"),
            ErrorCode::Corrupt => Some("`dfs explain` shows the replicas"),
            _ => None,
        };
        Self {
            code: error.code(),
            message,
            hint: hint.map(str::to_owned),
            is_reported: false,
            exit: None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n     {hint}"),
            None => Ok(()),
        }
    }
}

/// Parses a path of dfs as typed. Trailing slashes are dropped, as in a shell.
pub(crate) fn remote_path(text: &std::ffi::OsStr) -> Result<DfsPath> {
    use std::os::unix::ffi::OsStrExt as _;
    let bytes = text.as_bytes();
    let end =
        bytes.iter().rposition(|b| *b != b'/').map_or_else(|| bytes.len().min(1), |last| last + 1);
    DfsPath::new(bytes[..end].to_vec()).map_err(|error| {
        let code =
            if error.is_too_long() { ErrorCode::NameTooLong } else { ErrorCode::InvalidArgument };
        let shown = crate::printable::printable(&bytes[..bytes.len().min(200)]);
        Error::new(code, format_args!("{shown:?} is not a path in dfs: {error}"))
    })
}

/// Runs blocking work on a thread pool.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::new(ErrorCode::Internal, e))
}
