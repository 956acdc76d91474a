//! Errors on the wire.

use std::collections::HashMap;
use std::error::Error as _;
use std::time::Duration;

use dfs_types::{ErrorCode, FrameError, with_causes};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::FieldError;

/// Marks the details of a status as those of dfs.
const DOMAIN: &str = "dfs";

/// Key of a detail in the metadata of an `ErrorInfo`.
const DETAIL: &str = "detail";
/// Key of the block that a detail is about.
const BLOCK: &str = "block";

/// More specific than the code, for programs. A reader that does not know a detail relies on the
/// code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// With [`ErrorCode::Unavailable`]: there is no cluster yet, and the coordinator waits for
    /// `Admin.Init`.
    Uninitialised,
    /// The metadata engine of the coordinator failed: the coordinator itself replies.
    MetadataFailed,
    /// At the end of a read: this block of the replica is bad or, with [`ErrorCode::Unavailable`],
    /// unreadable for now. Later blocks may be good.
    BadBlock(u64),
}

impl Detail {
    fn name(self) -> &'static str {
        match self {
            Self::Uninitialised => "UNINITIALISED",
            Self::MetadataFailed => "METADATA_FAILED",
            Self::BadBlock(_) => "BAD_BLOCK",
        }
    }

    fn to_metadata(self) -> HashMap<String, String> {
        let mut metadata = HashMap::from([(DETAIL.to_owned(), self.name().to_owned())]);
        if let Self::BadBlock(block) = self {
            metadata.insert(BLOCK.to_owned(), block.to_string());
        }
        metadata
    }

    fn from_metadata(metadata: &HashMap<String, String>) -> Option<Self> {
        let block = || metadata.get(BLOCK)?.parse().ok();
        [Self::Uninitialised, Self::MetadataFailed]
            .into_iter()
            .chain(block().map(Self::BadBlock))
            .find(|detail| metadata.get(DETAIL).is_some_and(|name| name == detail.name()))
    }
}

/// An error as sent over the wire.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The error code.
    pub code: ErrorCode,
    /// Message for people: what was wrong, where, and what to do.
    pub message: String,
    /// When a retry may succeed.
    pub retry_after: Option<Duration>,
    /// Further detail for programs.
    pub detail: Option<Detail>,
}

impl Failure {
    /// Creates a failure without retry hint and detail.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after: None, detail: None }
    }

    /// Adds a hint to retry after `delay`.
    #[must_use]
    pub fn retry_after(self, delay: Duration) -> Self {
        Self { retry_after: Some(delay), ..self }
    }

    /// Adds a detail.
    #[must_use]
    pub fn detail(self, detail: Detail) -> Self {
        Self { detail: Some(detail), ..self }
    }

    /// Parses a status. One not made by a dfs server (a proxy, a cut connection) gets the code
    /// closest to its gRPC code.
    pub fn from_status(status: &Status) -> Self {
        let details = status.get_error_details();
        let ours = details.error_info().filter(|info| info.domain == DOMAIN);
        let named = ours.and_then(|info| ErrorCode::from_name(&info.reason));
        Self {
            code: named.unwrap_or_else(|| closest(status)),
            message: message(status),
            retry_after: details.retry_info().and_then(|info| info.retry_delay),
            detail: ours.and_then(|info| Detail::from_metadata(&info.metadata)),
        }
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        let mut details = ErrorDetails::new();
        let more = failure.detail.map(Detail::to_metadata).unwrap_or_default();
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

/// Returns the gRPC code for a code.
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

/// Returns what went wrong. A status with a source was made here, because a connection broke, and
/// only the causes say why.
fn message(status: &Status) -> String {
    status.source().map_or_else(|| status.message().to_owned(), with_causes)
}

/// Returns the code for a status without details of dfs.
fn closest(status: &Status) -> ErrorCode {
    match status.code() {
        Code::InvalidArgument | Code::OutOfRange => ErrorCode::InvalidArgument,
        Code::NotFound => ErrorCode::NotFound,
        Code::AlreadyExists => ErrorCode::AlreadyExists,
        Code::FailedPrecondition => ErrorCode::Stale,
        Code::Aborted => ErrorCode::Conflict,
        Code::ResourceExhausted => ErrorCode::Busy,
        // No server of dfs returns `Unknown`: the connection broke, or the reply had no status.
        Code::Unavailable | Code::Unknown => ErrorCode::Unavailable,
        // Returned by tonic for its own timeouts and for cancelled callers.
        Code::DeadlineExceeded | Code::Cancelled => ErrorCode::OutcomeUnknown,
        Code::DataLoss => ErrorCode::Corrupt,
        Code::Unauthenticated => ErrorCode::Unauthenticated,
        Code::PermissionDenied => ErrorCode::PermissionDenied,
        Code::Unimplemented => ErrorCode::Unimplemented,
        // A source means that it was created here, for a broken connection.
        Code::Internal if status.source().is_some() => ErrorCode::Unavailable,
        Code::Internal | Code::Ok => ErrorCode::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_map_as_in_the_contract() {
        use Code as G;
        use ErrorCode as E;
        // gRPC code, errno, exit code, repeated to reveal mistakes in the mappings.
        let table = [
            (E::InvalidArgument, G::InvalidArgument, 22),
            (E::NameTooLong, G::InvalidArgument, 36),
            (E::NotFound, G::NotFound, 2),
            (E::AlreadyExists, G::AlreadyExists, 17),
            (E::NotEmpty, G::FailedPrecondition, 39),
            (E::NotADirectory, G::FailedPrecondition, 20),
            (E::IsADirectory, G::FailedPrecondition, 21),
            (E::WouldCycle, G::FailedPrecondition, 22),
            (E::CrossVolume, G::FailedPrecondition, 18),
            (E::Stale, G::FailedPrecondition, 116),
            (E::Conflict, G::Aborted, 11),
            (E::NoSpace, G::ResourceExhausted, 28),
            (E::QuotaExceeded, G::ResourceExhausted, 122),
            (E::Busy, G::Unavailable, 11),
            (E::NotEnoughNodes, G::Unavailable, 5),
            (E::Unavailable, G::Unavailable, 5),
            (E::OutcomeUnknown, G::DeadlineExceeded, 5),
            (E::ChecksumMismatch, G::DataLoss, 5),
            (E::Corrupt, G::DataLoss, 5),
            (E::Unauthenticated, G::Unauthenticated, 13),
            (E::PermissionDenied, G::PermissionDenied, 13),
            (E::ReadOnly, G::FailedPrecondition, 30),
            (E::WrongCluster, G::FailedPrecondition, 71),
            (E::UnsupportedVersion, G::FailedPrecondition, 71),
            (E::Unimplemented, G::Unimplemented, 38),
            (E::Internal, G::Internal, 5),
        ];
        assert_eq!(table.map(|row| row.0).as_slice(), E::ALL);
        for (code, grpc, errno) in table {
            let failure =
                Failure::new(code, "no such file /a").retry_after(Duration::from_millis(250));
            let status = Status::from(failure.clone());
            assert_eq!(status.code(), grpc, "{code}");
            assert_eq!(status.message(), "no such file /a");
            assert_eq!(Failure::from_status(&status), failure);
            assert_eq!(code.errno(), errno, "{code}");
            assert_eq!(ErrorCode::from_name(code.name()), Some(code));
        }
    }

    #[test]
    fn failure_without_a_hint_round_trips() {
        let failure = Failure::new(ErrorCode::Busy, "");
        assert_eq!(Failure::from_status(&failure.clone().into()), failure);
    }

    #[test]
    fn known_details_round_trip_and_unknown_ones_are_ignored() {
        for detail in [Detail::Uninitialised, Detail::MetadataFailed, Detail::BadBlock(17)] {
            let failure = Failure::new(ErrorCode::Unavailable, "x").detail(detail);
            assert_eq!(Failure::from_status(&failure.clone().into()), failure);
        }
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
            (Code::Unknown, ErrorCode::Unavailable),
            (Code::Internal, ErrorCode::Internal),
        ] {
            assert_eq!(Failure::from_status(&Status::new(code, "x")).code, ours);
        }
        let foreign = ErrorDetails::with_error_info("NOT_FOUND", "example.org", []);
        let status = Status::with_error_details(Code::Aborted, "x", foreign);
        assert_eq!(Failure::from_status(&status).code, ErrorCode::Conflict);
        let broken = Status::from_error(Box::new(std::io::Error::other("reset")));
        let broken = Failure::from_status(&broken);
        assert_eq!((broken.code, &broken.message[..]), (ErrorCode::Unavailable, "reset"));
    }
}
