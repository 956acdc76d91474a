//! The end of an upload: staging, confirming, giving up.

use bytes::Bytes;
use dfs_proto::v1;

use crate::metadata::stat_of;
use crate::upload::{Upload, WrittenChunk};
use crate::{Client, Error, FileStat, PutOptions};

/// Chunks that are confirmed in one call; more are staged before.
pub(crate) const CHUNKS_PER_CALL: usize = 256;
/// Tokens that one call may carry.
pub(crate) const TOKENS_PER_CALL: usize = 64;

impl Client {
    /// Stages chunks, so that the rest of the upload may take its time.
    pub(crate) async fn stage(
        &self,
        upload: &Upload,
        chunks: &[WrittenChunk],
    ) -> Result<(), Error> {
        let request = v1::RenewRequest {
            tokens: tokens_of(upload, chunks),
            chunks: chunks.iter().map(Into::into).collect(),
        };
        let context = upload.path.to_string();
        let answer = self.call(&context, |mut c| {
            let request = request.clone();
            async move { c.renew_upload(request).await }
        });
        answer.await.map(drop)
    }

    /// Makes the file appear.
    pub(crate) async fn confirm(
        &self,
        upload: &Upload,
        chunks: &[WrittenChunk],
        size: u64,
        options: &PutOptions,
    ) -> Result<FileStat, Error> {
        // A file with chunks is known by them when the call is repeated.
        let slot = match size {
            0 => Some(self.inner.slots.take().await),
            _ => None,
        };
        let request = v1::ConfirmRequest {
            tokens: tokens_of(upload, chunks),
            chunks: chunks.iter().map(Into::into).collect(),
            size,
            attributes: Some(options.attributes.into()),
            slot: slot.as_ref().map(|slot| slot.slot().into()),
            create_only: options.create_only,
        };
        let context = upload.path.to_string();
        let answer = self.call(&context, |mut c| {
            let request = request.clone();
            async move { c.confirm_upload(request).await }
        });
        stat_of(&context, answer.await?.stat)
    }

    /// Gives an upload up, as well as it can be: what is not told now is collected later.
    pub(crate) async fn abort(&self, token: Bytes) {
        let request = v1::AbortRequest { token };
        let Ok(chosen) = self.inner.coordinators.choose().await else { return };
        let Ok(channel) = self.inner.channels.control(&chosen.address) else { return };
        let mut client = v1::coordinator_client::CoordinatorClient::new(channel);
        let aborting = client.abort_upload(request);
        drop(tokio::time::timeout(std::time::Duration::from_secs(2), aborting).await);
    }
}

/// Every token that one of the chunks needs, once, and at least one.
pub(crate) fn tokens_of(upload: &Upload, chunks: &[WrittenChunk]) -> Vec<Bytes> {
    let mut tokens: Vec<_> = chunks.iter().map(|chunk| chunk.planned.token.clone()).collect();
    tokens.push(upload.token.clone());
    tokens.sort();
    tokens.dedup();
    tokens
}

/// Gives the upload up when it is dropped before it was confirmed.
pub(crate) struct AbortOnDrop {
    client: Client,
    token: Option<Bytes>,
}

impl AbortOnDrop {
    pub(crate) fn new(client: &Client, upload: &Upload) -> Self {
        Self { client: client.clone(), token: Some(upload.token.clone()) }
    }

    pub(crate) fn disarm(mut self) {
        self.token = None;
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        let (Some(token), Ok(runtime)) = (self.token.take(), tokio::runtime::Handle::try_current())
        else {
            return;
        };
        let client = self.client.clone();
        drop(runtime.spawn(async move { client.abort(token).await }));
    }
}
