//! Changes of the namespace: attempts, retries, and one reply per call.

use std::time::Duration;

use bytes::Bytes;

use super::transaction::{Attempt, Transaction};
use super::upload::FinishedUpload;
use super::{
    Delete, MakeDirectory, MakeSymlink, Namespace, RemoveXattr, Rename, Repeat, SetAttributes,
    SetXattr, Undelete,
};
use crate::Error;
use crate::records::answer::Answer;

/// Maximum number of attempts per change while others conflict with it.
pub(super) const TRIES: u32 = 40;
/// Longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_millis(64);

/// A change.
pub(super) enum Mutation<'a> {
    MakeDirectory(&'a MakeDirectory),
    MakeSymlink(&'a MakeSymlink),
    Rename(&'a Rename),
    Delete(&'a Delete),
    Undelete(&'a Undelete),
    SetAttributes(&'a SetAttributes),
    SetXattr(&'a SetXattr),
    RemoveXattr(&'a RemoveXattr),
    Confirm(&'a FinishedUpload<'a>),
}

impl Mutation<'_> {
    fn what(&self) -> &'static str {
        match self {
            Self::MakeDirectory(_) => "the directory to create",
            Self::MakeSymlink(_) => "the symlink to create",
            Self::Rename(_) => "the source of the rename",
            Self::Delete(_) => "the target of the deletion",
            Self::Undelete(_) => "the deleted name to restore",
            Self::SetAttributes(_) => "the attributes to set",
            Self::SetXattr(_) | Self::RemoveXattr(_) => "the extended attributes to change",
            Self::Confirm(_) => "the file to confirm",
        }
    }

    /// Returns keys that an attempt will read and that are known before it.
    fn known_keys(&self) -> Vec<Bytes> {
        match self {
            Self::Confirm(upload) => upload.known_keys(),
            _ => Vec::new(),
        }
    }
}

impl Namespace {
    /// Applies a change once: a repeat gets the first reply.
    pub(super) async fn apply(
        &self,
        mutation: Mutation<'_>,
        repeat: Option<&Repeat>,
    ) -> Result<Answer, Error> {
        for tries in 0..TRIES {
            self.pause_before(tries).await;
            let mut tx = self.begin().await?;
            let known = mutation.known_keys().into_iter();
            tx.read_ahead(known.chain(repeat.iter().flat_map(|repeat| repeat.keys())).collect())
                .await?;
            if let Some(repeat) = repeat
                && let Some(answer) =
                    super::reply_cache::earlier_answer(&mut tx, repeat, self.now()).await?
            {
                return Ok(answer);
            }
            let answer = self.attempt(&mutation, &mut tx).await?;
            if tx.is_read_only() {
                return Ok(answer);
            }
            if let Some(repeat) = repeat {
                super::reply_cache::keep(&mut tx, repeat, &answer);
            }
            if let Attempt::Committed(revision) = self.commit(tx).await? {
                return Ok(answer.committed(revision));
            }
        }
        Err(Error::Conflict { what: mutation.what(), tries: TRIES })
    }

    async fn attempt(
        &self,
        mutation: &Mutation<'_>,
        tx: &mut Transaction,
    ) -> Result<Answer, Error> {
        match mutation {
            Mutation::MakeDirectory(request) => self.try_make_directory(tx, request).await,
            Mutation::MakeSymlink(request) => self.try_make_symlink(tx, request).await,
            Mutation::Rename(request) => self.try_rename(tx, request).await,
            Mutation::Delete(request) => self.try_delete(tx, request).await,
            Mutation::Undelete(request) => self.try_undelete(tx, request).await,
            Mutation::SetAttributes(request) => self.try_set_attributes(tx, request).await,
            Mutation::SetXattr(request) => self.try_set_xattr(tx, request).await,
            Mutation::RemoveXattr(request) => self.try_remove_xattr(tx, request).await,
            Mutation::Confirm(upload) => self.try_confirm(tx, upload).await,
        }
    }

    /// Sleeps with exponential back-off and jitter, so that conflicting transactions do not retry in
    /// lockstep.
    pub(super) async fn pause_before(&self, tries: u32) {
        if tries > 1 {
            let longest = Duration::from_millis(1 << tries.min(16)).min(PAUSE_MAX);
            let chance = self.inner.components.random.below(longest.as_micros() as u64);
            tokio::time::sleep(Duration::from_micros(chance)).await;
        }
    }
}
