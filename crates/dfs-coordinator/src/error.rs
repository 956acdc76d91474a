//! Why a coordinator could not start, or had to end, or a step of its background work failed.

use std::io;

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
    /// For `map_err`: the metadata failed this step.
    pub(crate) fn metadata(step: &'static str) -> impl FnOnce(dfs_metadata::Error) -> Self {
        move |source| Self::Metadata { step, source }
    }
}
