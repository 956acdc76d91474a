//! Failures of redb.

use std::fmt::Display;
use std::io;

use dfs_metadata::engine::EngineError;

/// Why an access to the store failed.
#[derive(Debug)]
pub(super) enum Fault {
    /// redb, or its backend, failed; the database must be reopened.
    Store(redb::Error),
    /// redb panicked on a state it considers impossible.
    Panicked,
    /// A stored record is invalid, although redb itself is sound.
    Record(EngineError),
}

impl<E: Into<redb::Error>> From<E> for Fault {
    fn from(error: E) -> Self {
        Self::Store(error.into())
    }
}

impl From<Fault> for EngineError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Store(redb::Error::Io(error)) => from_io(&error, error.to_string()),
            Fault::Store(error @ redb::Error::Corrupted(_)) => Self::Damaged(error.to_string()),
            Fault::Store(redb::Error::PreviousIo | redb::Error::DatabaseClosed) => {
                Self::Unavailable("the store is being reopened after a failure".to_owned())
            }
            Fault::Store(error) => Self::Unavailable(error.to_string()),
            Fault::Panicked => Self::Damaged("redb panicked on its contents".to_owned()),
            Fault::Record(error) => error,
        }
    }
}

/// Adds the path or backend to the error of opening it.
pub(super) fn open_error(what: &dyn Display, error: &io::Error) -> EngineError {
    from_io(error, format!("{what}: {error}"))
}

fn from_io(error: &io::Error, text: String) -> EngineError {
    use io::ErrorKind::{FileTooLarge, InvalidData, QuotaExceeded, StorageFull, UnexpectedEof};
    match error.kind() {
        StorageFull | QuotaExceeded | FileTooLarge => EngineError::NoSpace(text),
        InvalidData | UnexpectedEof => EngineError::Damaged(text),
        _ => EngineError::Unavailable(text),
    }
}

/// Returns a fault for an invalid record in a sound database.
pub(super) fn damaged(what: &str) -> Fault {
    Fault::Record(EngineError::Damaged(what.to_owned()))
}
