//! Errors of calls.

use std::error::Error as _;

use tonic::{Code, Status};

/// Why a call failed. Nothing was changed, except perhaps by [`Error::NoAnswer`].
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// No reply came in time. The call may have taken effect, or may still do so.
    #[error("etcd did not reply: {0}")]
    NoAnswer(String),
    /// No member could be reached.
    #[error("etcd cannot be reached: {0}")]
    Unreachable(String),
    /// The revision to be read is no longer kept.
    #[error("the revision is no longer kept by etcd")]
    Compacted,
    /// The member does not know the revision yet.
    #[error("the revision is not known to this member of etcd yet")]
    FutureRevision,
    /// The store of etcd is full: compact and defragment it, then disarm its alarm.
    #[error("etcd has no space left: {0}")]
    NoSpace(String),
    /// The lease has ended.
    #[error("the lease has ended")]
    LeaseGone,
    /// etcd denies access to this user, or permission to this call.
    #[error("etcd refused: {0}")]
    Refused(String),
    /// The token is no longer valid; a new one may be.
    #[error("etcd no longer knows the token: {0}")]
    TokenGone(String),
    /// The call itself is invalid, which is a defect of the caller.
    #[error("etcd rejected a call: {0}")]
    Invalid(String),
    /// The settings are invalid.
    #[error("{0}")]
    Settings(String),
}

impl Error {
    /// Converts a status of etcd or of the transport. Anything not known to be a refusal counts as
    /// no reply.
    pub(crate) fn from_status(status: &Status) -> Self {
        let text = status.message();
        let says = |words: &str| text.contains(words);
        match status.code() {
            Code::OutOfRange if says("compacted") => Self::Compacted,
            Code::OutOfRange if says("future revision") => Self::FutureRevision,
            Code::ResourceExhausted if says("space exceeded") => Self::NoSpace(text.to_owned()),
            Code::NotFound if says("lease not found") => Self::LeaseGone,
            Code::Unauthenticated => Self::TokenGone(text.to_owned()),
            Code::InvalidArgument
                if says("revision in header is old") || says("user name is empty") =>
            {
                Self::TokenGone(text.to_owned())
            }
            Code::InvalidArgument if says("authentication failed") => {
                Self::Refused(text.to_owned())
            }
            Code::PermissionDenied => Self::Refused(text.to_owned()),
            Code::InvalidArgument | Code::Unimplemented => Self::Invalid(text.to_owned()),
            _ if is_unsent(status) => Self::Unreachable(describe(status)),
            _ => Self::NoAnswer(describe(status)),
        }
    }
}

impl Error {
    /// Returns whether another member, or the same one later, may succeed.
    pub(crate) fn is_of_member(&self) -> bool {
        matches!(self, Self::NoAnswer(_) | Self::Unreachable(_))
    }
}

/// Returns whether there was no connection to send the call on.
fn is_unsent(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(cause) = source {
        if cause.is::<tonic::ConnectError>() {
            return true;
        }
        source = cause.source();
    }
    false
}

/// Describes a status with its causes: for a failed connection, they contain the reason.
fn describe(status: &Status) -> String {
    with_causes(status.message().to_owned(), status)
}

/// Appends the causes of an error that a text does not contain yet.
pub(crate) fn with_causes(mut text: String, error: &dyn std::error::Error) -> String {
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_differ_from_silence() {
        let of = |code, text: &str| Error::from_status(&Status::new(code, text));
        assert!(matches!(
            of(Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted"),
            Error::Compacted
        ));
        assert!(matches!(
            of(Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision"),
            Error::FutureRevision
        ));
        assert!(matches!(
            of(Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded"),
            Error::NoSpace(_)
        ));
        assert!(matches!(
            of(Code::ResourceExhausted, "etcdserver: too many requests"),
            Error::NoAnswer(_)
        ));
        assert!(matches!(
            of(Code::NotFound, "etcdserver: requested lease not found"),
            Error::LeaseGone
        ));
        assert!(matches!(
            of(Code::Unauthenticated, "etcdserver: invalid auth token"),
            Error::TokenGone(_)
        ));
        assert!(matches!(
            of(
                Code::InvalidArgument,
                "etcdserver: authentication failed, invalid user ID or password"
            ),
            Error::Refused(_)
        ));
        assert!(matches!(
            of(Code::PermissionDenied, "etcdserver: permission denied"),
            Error::Refused(_)
        ));
        assert!(matches!(
            of(Code::InvalidArgument, "etcdserver: duplicate key given in txn request"),
            Error::Invalid(_)
        ));
        for code in [Code::Unavailable, Code::Unknown, Code::Cancelled, Code::Internal] {
            assert!(matches!(of(code, "anything"), Error::NoAnswer(_)), "{code:?}");
        }
    }
}
