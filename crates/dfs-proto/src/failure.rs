//! Errors on the wire.

use std::collections::HashMap;
use std::time::Duration;

use dfs_types::{ErrorCode, FrameError};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::FieldError;

/// Marks the details of a status as ours.
const DOMAIN: &str = "dfs";

/// Under which name a detail stands in the metadata of an `ErrorInfo`.
const DETAIL: &str = "detail";

/// More than the code says, where a program acts on it. Who does not know a detail goes by the
/// code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// With [`ErrorCode::Unavailable`]: there is no cluster yet, and the coordinator waits for
    /// `Admin.Init`.
    Uninitialised,
}

impl Detail {
    fn name(self) -> &'static str {
        match self {
            Self::Uninitialised => "UNINITIALISED",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        (name == Self::Uninitialised.name()).then_some(Self::Uninitialised)
    }
}

/// An error as it crosses the wire.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What went wrong.
    pub code: ErrorCode,
    /// What, where, and what to do about it, for people.
    pub message: String,
    /// When trying again may help.
    pub retry_after: Option<Duration>,
    /// What else there is to know.
    pub detail: Option<Detail>,
}

impl Failure {
    /// Without a hint when to try again, and without a detail.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after: None, detail: None }
    }

    /// With the hint to try again after `delay`.
    #[must_use]
    pub fn retry_after(self, delay: Duration) -> Self {
        Self { retry_after: Some(delay), ..self }
    }

    /// With a detail.
    #[must_use]
    pub fn detail(self, detail: Detail) -> Self {
        Self { detail: Some(detail), ..self }
    }

    /// Reads a status. One that no dfs server made (a proxy, a cut connection) gets the code that
    /// its gRPC code comes closest to.
    pub fn from_status(status: &Status) -> Self {
        let details = status.get_error_details();
        let ours = details.error_info().filter(|info| info.domain == DOMAIN);
        let named = ours.and_then(|info| ErrorCode::from_name(&info.reason));
        let detail = ours.and_then(|info| info.metadata.get(DETAIL));
        Self {
            code: named.unwrap_or_else(|| closest(status)),
            message: status.message().to_owned(),
            retry_after: details.retry_info().and_then(|info| info.retry_delay),
            detail: detail.and_then(|name| Detail::from_name(name)),
        }
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        let mut details = ErrorDetails::new();
        let more = failure.detail.map(|detail| (DETAIL.to_owned(), detail.name().to_owned()));
        let more: HashMap<String, String> = more.into_iter().collect();
        details.set_error_info(failure.code.name(), DOMAIN, more);
        if failure.retry_after.is_some() {
            details.set_retry_info(failure.retry_after);
        }
        Self::with_error_details(grpc_code(failure.code), failure.message, details)
    }
}

impl From<FieldError> for Failure {
    fn from(error: FieldError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

impl From<FieldError> for Status {
    fn from(error: FieldError) -> Self {
        Failure::from(error).into()
    }
}

impl From<FrameError> for Failure {
    fn from(error: FrameError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

/// The gRPC code that stands for ours.
fn grpc_code(code: ErrorCode) -> Code {
    match code {
        ErrorCode::InvalidArgument | ErrorCode::NameTooLong => Code::InvalidArgument,
        ErrorCode::NotFound => Code::NotFound,
        ErrorCode::AlreadyExists => Code::AlreadyExists,
        ErrorCode::NotEmpty
        | ErrorCode::NotADirectory
        | ErrorCode::IsADirectory
        | ErrorCode::WouldCycle
        | ErrorCode::CrossVolume
        | ErrorCode::Stale
        | ErrorCode::ReadOnly
        | ErrorCode::WrongCluster
        | ErrorCode::UnsupportedVersion => Code::FailedPrecondition,
        ErrorCode::Conflict => Code::Aborted,
        ErrorCode::NoSpace | ErrorCode::QuotaExceeded => Code::ResourceExhausted,
        ErrorCode::Busy | ErrorCode::NotEnoughNodes | ErrorCode::Unavailable => Code::Unavailable,
        ErrorCode::OutcomeUnknown => Code::DeadlineExceeded,
        ErrorCode::ChecksumMismatch | ErrorCode::Corrupt => Code::DataLoss,
        ErrorCode::Unauthenticated => Code::Unauthenticated,
        ErrorCode::PermissionDenied => Code::PermissionDenied,
        ErrorCode::Unimplemented => Code::Unimplemented,
        ErrorCode::Internal => Code::Internal,
    }
}

/// Our code for a status without our details.
fn closest(status: &Status) -> ErrorCode {
    use std::error::Error as _;
    match status.code() {
        Code::InvalidArgument | Code::OutOfRange => ErrorCode::InvalidArgument,
        Code::NotFound => ErrorCode::NotFound,
        Code::AlreadyExists => ErrorCode::AlreadyExists,
        Code::FailedPrecondition => ErrorCode::Stale,
        Code::Aborted => ErrorCode::Conflict,
        Code::ResourceExhausted => ErrorCode::Busy,
        Code::Unavailable => ErrorCode::Unavailable,
        // What tonic makes of its own timeouts and of a caller that left.
        Code::DeadlineExceeded | Code::Cancelled => ErrorCode::OutcomeUnknown,
        Code::DataLoss => ErrorCode::Corrupt,
        Code::Unauthenticated => ErrorCode::Unauthenticated,
        Code::PermissionDenied => ErrorCode::PermissionDenied,
        Code::Unimplemented => ErrorCode::Unimplemented,
        // With a source it was made here, of a connection that broke.
        Code::Unknown | Code::Internal if status.source().is_some() => ErrorCode::Unavailable,
        Code::Unknown | Code::Internal | Code::Ok => ErrorCode::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_the_contract() {
        use Code as G;
        use ErrorCode as E;
        // gRPC code, errno, exit code: spelled out once more, so that a slip in the mappings shows.
        let table = [
            (E::InvalidArgument, G::InvalidArgument, 22, 2),
            (E::NameTooLong, G::InvalidArgument, 36, 2),
            (E::NotFound, G::NotFound, 2, 3),
            (E::AlreadyExists, G::AlreadyExists, 17, 4),
            (E::NotEmpty, G::FailedPrecondition, 39, 4),
            (E::NotADirectory, G::FailedPrecondition, 20, 4),
            (E::IsADirectory, G::FailedPrecondition, 21, 4),
            (E::WouldCycle, G::FailedPrecondition, 22, 4),
            (E::CrossVolume, G::FailedPrecondition, 18, 4),
            (E::Stale, G::FailedPrecondition, 116, 1),
            (E::Conflict, G::Aborted, 11, 5),
            (E::NoSpace, G::ResourceExhausted, 28, 1),
            (E::QuotaExceeded, G::ResourceExhausted, 122, 1),
            (E::Busy, G::Unavailable, 11, 5),
            (E::NotEnoughNodes, G::Unavailable, 5, 5),
            (E::Unavailable, G::Unavailable, 5, 5),
            (E::OutcomeUnknown, G::DeadlineExceeded, 5, 5),
            (E::ChecksumMismatch, G::DataLoss, 5, 1),
            (E::Corrupt, G::DataLoss, 5, 1),
            (E::Unauthenticated, G::Unauthenticated, 13, 6),
            (E::PermissionDenied, G::PermissionDenied, 13, 6),
            (E::ReadOnly, G::FailedPrecondition, 30, 6),
            (E::WrongCluster, G::FailedPrecondition, 71, 1),
            (E::UnsupportedVersion, G::FailedPrecondition, 71, 1),
            (E::Unimplemented, G::Unimplemented, 38, 1),
            (E::Internal, G::Internal, 5, 1),
        ];
        assert_eq!(table.map(|row| row.0).as_slice(), E::ALL);
        for (code, grpc, errno, exit) in table {
            let failure =
                Failure::new(code, "no such file /a").retry_after(Duration::from_millis(250));
            let status = Status::from(failure.clone());
            assert_eq!(status.code(), grpc, "{code}");
            assert_eq!(status.message(), "no such file /a");
            assert_eq!(Failure::from_status(&status), failure);
            assert_eq!((code.errno(), code.exit_code()), (errno, exit), "{code}");
            assert_eq!(ErrorCode::from_name(code.name()), Some(code));
        }
    }

    #[test]
    fn a_failure_without_a_hint_stays_without() {
        let failure = Failure::new(ErrorCode::Busy, "");
        assert_eq!(Failure::from_status(&failure.clone().into()), failure);
    }

    #[test]
    fn a_detail_crosses_and_one_that_is_not_known_is_not_missed() {
        let failure = Failure::new(ErrorCode::Unavailable, "x").detail(Detail::Uninitialised);
        assert_eq!(Failure::from_status(&failure.clone().into()), failure);
        let metadata = [(DETAIL.to_owned(), "LATER".to_owned())];
        let later = ErrorDetails::with_error_info("UNAVAILABLE", DOMAIN, HashMap::from(metadata));
        let later = Failure::from_status(&Status::with_error_details(Code::Unknown, "x", later));
        assert_eq!(later, Failure::new(ErrorCode::Unavailable, "x"));
    }

    #[test]
    fn foreign_statuses_get_the_closest_code() {
        for (code, ours) in [
            (Code::Unavailable, ErrorCode::Unavailable),
            (Code::DeadlineExceeded, ErrorCode::OutcomeUnknown),
            (Code::Cancelled, ErrorCode::OutcomeUnknown),
            (Code::ResourceExhausted, ErrorCode::Busy),
            (Code::OutOfRange, ErrorCode::InvalidArgument),
            (Code::Unknown, ErrorCode::Internal),
        ] {
            assert_eq!(Failure::from_status(&Status::new(code, "x")).code, ours);
        }
        let foreign = ErrorDetails::with_error_info("NOT_FOUND", "example.org", []);
        let status = Status::with_error_details(Code::Aborted, "x", foreign);
        assert_eq!(Failure::from_status(&status).code, ErrorCode::Conflict);
        let broken = Status::from_error(Box::new(std::io::Error::other("reset")));
        assert_eq!(Failure::from_status(&broken).code, ErrorCode::Unavailable);
    }
}
