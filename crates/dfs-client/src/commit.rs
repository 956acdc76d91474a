//! Completion of an upload: staging, confirming, aborting.

use std::time::Duration;

use bytes::Bytes;
use dfs_proto::v1;
use dfs_types::XattrName;
use tokio::time::timeout;

use crate::metadata::stat_of;
use crate::plan::{UploadPlan, WrittenChunk};
use crate::{Client, Error, FileStat, PutOptions};

/// Chunks confirmed in one call; any more are staged before.
pub(crate) const CHUNKS_PER_CALL: usize = 256;
/// Tokens that one call may carry.
pub(crate) const TOKENS_PER_CALL: usize = 64;
/// Time limit for aborting an upload.
const ABORT_WITHIN: Duration = Duration::from_secs(3);

impl Client {
    /// Stages chunks, so that the upload does not expire.
    pub(crate) async fn stage(
        &self,
        plan: &UploadPlan,
        chunks: &[WrittenChunk],
    ) -> Result<(), Error> {
        let request = v1::RenewRequest {
            tokens: tokens_of(plan, chunks),
            chunks: chunks.iter().map(Into::into).collect(),
        };
        let context = plan.path.to_string();
        let answer = self.call(&context, |mut c| {
            let request = request.clone();
            async move { c.renew_upload(request).await }
        });
        answer.await.map(drop)
    }

    /// Makes the file appear.
    pub(crate) async fn confirm(
        &self,
        plan: &UploadPlan,
        chunks: &[WrittenChunk],
        size: u64,
        options: &PutOptions,
    ) -> Result<FileStat, Error> {
        // The chunks identify a repeated call; an empty file needs a slot.
        let slot = match size {
            0 => Some(self.inner.slots.take().await),
            _ => None,
        };
        let request = v1::ConfirmRequest {
            tokens: tokens_of(plan, chunks),
            chunks: chunks.iter().map(Into::into).collect(),
            size,
            attributes: Some(options.attributes.into()),
            slot: slot.as_ref().map(|slot| slot.slot().into()),
            precondition: options.precondition.map(Into::into),
            xattrs: options.xattrs.iter().map(to_wire).collect(),
        };
        let context = plan.path.to_string();
        let answer = self.call(&context, |mut c| {
            let request = request.clone();
            async move { c.confirm_upload(request).await }
        });
        stat_of(&context, answer.await?.stat)
    }

    /// Aborts an upload, naming its `chunks` that are durable and not staged, so that they are
    /// deleted. Takes bounded time; what no coordinator receives is collected later.
    pub(crate) async fn abort(&self, plan: &UploadPlan, chunks: &[WrittenChunk]) {
        let context = plan.path.to_string();
        let aborting = async {
            let mut rest = chunks;
            while rest.len() > CHUNKS_PER_CALL || tokens_of(plan, rest).len() > TOKENS_PER_CALL {
                // A chunk has one token, the upload one more.
                let (staged, others) = rest.split_at(rest.len().min(TOKENS_PER_CALL - 1));
                self.stage(plan, staged).await?;
                rest = others;
            }
            let request = v1::AbortRequest {
                tokens: tokens_of(plan, rest),
                chunks: rest.iter().map(Into::into).collect(),
            };
            let answer = self.call(&context, |mut c| {
                let request = request.clone();
                async move { c.abort_upload(request).await }
            });
            answer.await.map(drop)
        };
        match timeout(ABORT_WITHIN, aborting).await {
            Ok(Ok(())) => tracing::debug!(context, "aborted an upload"),
            Ok(Err(error)) => tracing::debug!(context, %error, "aborting an upload failed"),
            Err(_) => tracing::debug!(context, "aborting an upload timed out"),
        }
    }
}

fn to_wire((name, value): (&XattrName, &Bytes)) -> v1::Xattr {
    v1::Xattr { name: name.to_bytes(), value: value.clone() }
}

/// Returns every token that the chunks need, once, and at least one.
pub(crate) fn tokens_of(plan: &UploadPlan, chunks: &[WrittenChunk]) -> Vec<Bytes> {
    let mut tokens: Vec<_> = chunks.iter().map(|chunk| chunk.planned.token.clone()).collect();
    tokens.push(plan.token.clone());
    tokens.sort();
    tokens.dedup();
    tokens
}
