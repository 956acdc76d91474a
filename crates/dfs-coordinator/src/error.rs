//! Errors that end a coordinator or a step of its background work.

use std::io;

use dfs_transport::listen_code;
use dfs_types::ErrorCode;

/// Why a coordinator could not start, had to stop, or failed a background step.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting is invalid.
    #[error("the setting {setting} {what}")]
    Setting {
        /// Name.
        setting: &'static str,
        /// Description of the defect.
        what: &'static str,
    },
    /// The metadata store holds no cluster.
    #[error(
        "the metadata store holds no cluster yet: run `dfs coordinator init` once to create one"
    )]
    NotInitialised,
    /// The metadata store already holds a cluster.
    #[error("the metadata store already holds cluster {0}; nothing was changed")]
    AlreadyInitialised(dfs_types::ClusterId),
    /// An address could not be bound.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: String,
        /// Cause.
        source: io::Error,
    },
    /// The reflection service could not be built from the contract.
    #[error("the compiled contract cannot be read")]
    Contract(#[source] tonic_reflection::server::Error),
    /// The metadata could not be read or changed.
    #[error("{step} failed")]
    Metadata {
        /// The step.
        step: &'static str,
        /// Cause.
        source: dfs_metadata::Error,
    },
}

impl Error {
    /// Returns its error code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Setting { .. } => ErrorCode::InvalidArgument,
            Self::NotInitialised => ErrorCode::NotFound,
            Self::AlreadyInitialised(_) => ErrorCode::AlreadyExists,
            Self::Listen { source, .. } => listen_code(source),
            Self::Contract(_) => ErrorCode::Internal,
            Self::Metadata { source, .. } => source.start_code(),
        }
    }

    /// Returns a closure for `map_err` that names the failed step.
    pub(crate) fn metadata(step: &'static str) -> impl FnOnce(dfs_metadata::Error) -> Self {
        move |source| Self::Metadata { step, source }
    }
}

#[cfg(test)]
mod tests {
    use dfs_metadata::engine::EngineError;
    use dfs_types::{ClusterId, Revision};

    use super::*;

    #[test]
    fn every_start_error_has_its_code() {
        let engine = |error| Error::metadata("a step")(dfs_metadata::Error::Engine(error));
        let metadata = Error::metadata;
        let text = || "text".to_owned();
        let listen = |kind: io::ErrorKind| Error::Listen {
            address: "a:1".to_owned(),
            source: io::Error::from(kind),
        };
        let table = [
            (Error::Setting { setting: "listen", what: "is empty" }, ErrorCode::InvalidArgument),
            (Error::NotInitialised, ErrorCode::NotFound),
            (Error::AlreadyInitialised(ClusterId(1)), ErrorCode::AlreadyExists),
            (listen(io::ErrorKind::AddrInUse), ErrorCode::Busy),
            (listen(io::ErrorKind::AddrNotAvailable), ErrorCode::InvalidArgument),
            (listen(io::ErrorKind::PermissionDenied), ErrorCode::PermissionDenied),
            (engine(EngineError::Unavailable(text())), ErrorCode::Unavailable),
            (engine(EngineError::OutcomeUnknown(text())), ErrorCode::OutcomeUnknown),
            (engine(EngineError::NoSpace(text())), ErrorCode::NoSpace),
            (engine(EngineError::Damaged(text())), ErrorCode::Corrupt),
            (
                engine(EngineError::NewerFormat { found: 9, supported: 1 }),
                ErrorCode::UnsupportedVersion,
            ),
            (engine(EngineError::InUse(text())), ErrorCode::Busy),
            (engine(EngineError::Compacted(Revision(1))), ErrorCode::Internal),
            (engine(EngineError::TooLarge(text())), ErrorCode::Internal),
            (metadata("a step")(dfs_metadata::Error::NotInitialised), ErrorCode::NotFound),
            (
                metadata("a step")(dfs_metadata::Error::Damaged { key: text(), what: "nothing" }),
                ErrorCode::Corrupt,
            ),
            (
                metadata("a step")(dfs_metadata::Error::NewerRecord {
                    key: text(),
                    unknown: dfs_metadata::Unknown::Format(2),
                }),
                ErrorCode::UnsupportedVersion,
            ),
            (
                metadata("a step")(dfs_metadata::Error::WrongCluster {
                    expected: ClusterId(1),
                    found: ClusterId(2),
                }),
                ErrorCode::WrongCluster,
            ),
        ];
        for (error, code) in table {
            assert_eq!(error.code(), code, "{error:?}");
        }
    }
}
