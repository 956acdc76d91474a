//! Why a coordinator could not start, or had to end, or a step of its background work failed.

use std::io;

use dfs_transport::listen_code;
use dfs_types::ErrorCode;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting makes no sense.
    #[error("the setting {setting} {what}")]
    Setting {
        /// Its name.
        setting: &'static str,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The metadata store holds no cluster.
    #[error("the metadata store holds no cluster yet: run `dfs coordinator init` once to make one")]
    NotInitialised,
    /// The metadata store holds a cluster, and a second one was to be made.
    #[error("the metadata store holds the cluster {0} already; nothing was changed")]
    AlreadyInitialised(dfs_types::ClusterId),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: String,
        /// Why not.
        source: io::Error,
    },
    /// The gRPC server broke.
    #[error("the gRPC server ended")]
    Serve(#[source] io::Error),
    /// The reflection service could not be made of the contract.
    #[error("the compiled contract cannot be read")]
    Contract(#[source] tonic_reflection::server::Error),
    /// The metadata could not be read or changed.
    #[error("{step} failed")]
    Metadata {
        /// What was being done.
        step: &'static str,
        /// Why it failed.
        source: dfs_metadata::Error,
    },
}

impl Error {
    /// The code it is told by.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Setting { .. } => ErrorCode::InvalidArgument,
            Self::NotInitialised => ErrorCode::NotFound,
            Self::AlreadyInitialised(_) => ErrorCode::AlreadyExists,
            Self::Listen { source, .. } => listen_code(source),
            Self::Serve(_) | Self::Contract(_) => ErrorCode::Internal,
            Self::Metadata { source, .. } => source.start_code(),
        }
    }

    /// For `map_err`: the metadata failed this step.
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
    fn every_failed_start_has_its_code() {
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
            (Error::Serve(io::ErrorKind::BrokenPipe.into()), ErrorCode::Internal),
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
