//! The calls of an upload.

use dfs_metadata::namespace::{
    Confirm, NextPage, Placement, PlanUpload, Replan, UploadPlan, WrittenChunk,
};
use dfs_proto::{Failure, FieldError, v1, wire};
use dfs_transport::Caller;
use dfs_types::{CHUNK_SIZE_DEFAULT, Replication};
use tokio::time::Instant;

use super::{convert, repeat};
use crate::candidates;
use crate::core::Core;

/// Maximum number of tokens per call.
const TOKENS_MAX: usize = 64;
/// Maximum length of a token in bytes; those of this cluster are far shorter.
const TOKEN_LEN_MAX: usize = 64 << 10;
/// Maximum number of chunks per call.
const CHUNKS_MAX: usize = 1_024;
/// Maximum number of nodes that a replan may avoid.
const AVOID_MAX: usize = 64;
/// Maximum length of a machine or zone name in bytes.
const LABEL_LEN_MAX: usize = 255;

pub(super) async fn upload_file(
    core: &Core,
    (caller, request): (Caller, v1::UploadRequest),
) -> Result<v1::UploadPlan, Failure> {
    let max_chunks = request.max_chunks as usize;
    if !request.token.is_empty() {
        let page = NextPage {
            token: token("token", request.token)?,
            from_offset: request.from_offset,
            max_chunks,
        };
        let chunk_size = chunk_size_of(core, &caller, &page.token)?;
        return plan(core, chunk_size, async |placement| {
            core.namespace.next_page(&caller.scope(), &page, placement).await
        })
        .await;
    }
    let target = wire::named_target("target", request.target)?;
    let chunk_size =
        request.chunk_size.map(|bytes| wire::chunk_size("chunk_size", bytes)).transpose()?;
    let replication_factor = request
        .replication_factor
        .map(|replicas| replication_factor("replication_factor", replicas))
        .transpose()?;
    let upload = PlanUpload {
        target,
        size: request.size,
        chunk_size,
        replication_factor,
        max_chunks,
        client_host: label("client_host", request.client_host)?,
        client_zone: label("client_zone", request.client_zone)?,
    };
    let largest = chunk_size.unwrap_or(CHUNK_SIZE_DEFAULT).min(request.size.unwrap_or(u64::MAX));
    plan(core, largest, async |placement| {
        core.namespace.plan_upload(&caller.scope(), &upload, placement).await
    })
    .await
}

pub(super) async fn replan_chunk(
    core: &Core,
    (caller, request): (Caller, v1::ReplanRequest),
) -> Result<v1::UploadPlan, Failure> {
    let avoid = wire::at_most("avoid_nodes", request.avoid_nodes, AVOID_MAX)?;
    let replan = Replan {
        token: token("token", request.token)?,
        chunk: wire::id("chunk_id", &request.chunk_id)?,
        avoid: avoid.iter().map(|node| wire::id("avoid_nodes", node)).collect::<Result<_, _>>()?,
    };
    let chunk_size = chunk_size_of(core, &caller, &replan.token)?;
    plan(core, chunk_size, async |placement| {
        core.namespace.replan_chunk(&caller.scope(), &replan, placement).await
    })
    .await
}

/// Returns the largest chunk of a plan in bytes.
fn chunk_size_of(core: &Core, caller: &Caller, token: &[u8]) -> Result<u64, Failure> {
    core.namespace.chunk_size_of(&caller.scope(), token).map_err(|error| crate::failure::of(&error))
}

/// Plans with the current nodes, and records the planned bytes.
async fn plan(
    core: &Core,
    chunk_size: u64,
    ask: impl AsyncFnOnce(&Placement<'_>) -> Result<UploadPlan, dfs_metadata::Error>,
) -> Result<v1::UploadPlan, Failure> {
    let views = core.registry().views(Instant::now());
    let candidates = candidates::candidates(&views, chunk_size);
    let placement = Placement { candidates: &candidates, selector: &*core.selector };
    let plan =
        ask(&placement).await.map_err(|error| candidates::refusal(core, &error, chunk_size))?;
    candidates::check_not_early(core, &plan)?;
    let now = Instant::now();
    {
        let mut registry = core.registry();
        for chunk in &plan.chunks {
            for node in &chunk.nodes {
                registry.plan(*node, chunk.max_length, now);
            }
        }
    }
    Ok(convert::plan(core, plan))
}

pub(super) async fn renew_upload(
    core: &Core,
    (caller, request): (Caller, v1::RenewRequest),
) -> Result<v1::RenewResponse, Failure> {
    let tokens = tokens(request.tokens)?;
    let chunks = written_chunks(request.chunks)?;
    let expires = core
        .namespace
        .stage(&caller.scope(), &tokens, &chunks)
        .await
        .map_err(|e| crate::failure::of(&e))?;
    Ok(v1::RenewResponse { expires_ms: expires.millis() })
}

pub(super) async fn confirm_upload(
    core: &Core,
    (caller, mut request): (Caller, v1::ConfirmRequest),
) -> Result<v1::ConfirmResponse, Failure> {
    let slot = request.slot.take();
    let repeat = repeat("ConfirmUpload", slot, &request)?;
    let confirm = Confirm {
        tokens: tokens(request.tokens)?,
        chunks: written_chunks(request.chunks)?,
        size: request.size,
        attributes: wire::attributes("attributes", request.attributes, core.clock.now().into())?,
        precondition: wire::precondition("precondition", request.precondition)?,
        xattrs: wire::xattrs("xattrs", request.xattrs)?,
    };
    let stat = core
        .namespace
        .confirm(&caller.scope(), &confirm, repeat.as_ref())
        .await
        .map_err(|error| crate::failure::of(&error))?;
    Ok(v1::ConfirmResponse { stat: Some(convert::stat(stat)) })
}

pub(super) async fn abort_upload(
    core: &Core,
    (caller, request): (Caller, v1::AbortRequest),
) -> Result<v1::AbortResponse, Failure> {
    let tokens = tokens(request.tokens)?;
    let chunks = written_chunks(request.chunks)?;
    core.namespace
        .abort(&caller.scope(), &tokens, &chunks)
        .await
        .map_err(|error| crate::failure::of(&error))?;
    core.background.upload_aborted();
    Ok(v1::AbortResponse {})
}

/// Parses the replication of files and writes.
pub(super) fn replication(factor: u32, min_write: Option<u32>) -> Result<Replication, FieldError> {
    let factor = replication_factor("replication_factor", factor)?;
    let min_write =
        min_write.map(|replicas| replication_factor("min_write_replicas", replicas)).transpose()?;
    if min_write.is_some_and(|min| min > factor) {
        let what = format_args!("at most the replication factor ({factor}) is allowed");
        return Err(FieldError::new("min_write_replicas", what));
    }
    Ok(Replication { factor, min_write })
}

/// Parses the number of replicas of a file.
fn replication_factor(field: &'static str, replicas: u32) -> Result<u8, FieldError> {
    u8::try_from(replicas)
        .ok()
        .filter(|replicas| (1..=Replication::FACTOR_MAX).contains(replicas))
        .ok_or_else(|| {
            let max = Replication::FACTOR_MAX;
            FieldError::new(field, format_args!("1 to {max} replicas are allowed, not {replicas}"))
        })
}

fn tokens(tokens: Vec<bytes::Bytes>) -> Result<Vec<bytes::Bytes>, FieldError> {
    if tokens.is_empty() {
        return Err(FieldError::new("tokens", "not set"));
    }
    wire::at_most("tokens", tokens, TOKENS_MAX)?
        .into_iter()
        .map(|bytes| token("tokens", bytes))
        .collect()
}

fn token(field: &'static str, token: bytes::Bytes) -> Result<bytes::Bytes, FieldError> {
    match token.len() {
        0 => Err(FieldError::new(field, "not set")),
        len if len > TOKEN_LEN_MAX => Err(FieldError::new(field, "not a token of this cluster")),
        _ => Ok(token),
    }
}

/// Parses the name of a machine or zone.
pub(super) fn label(field: &'static str, label: String) -> Result<String, FieldError> {
    if label.len() > LABEL_LEN_MAX {
        let what = format_args!("at most {LABEL_LEN_MAX} bytes are allowed, not {}", label.len());
        return Err(FieldError::new(field, what));
    }
    Ok(label)
}

fn written_chunks(chunks: Vec<v1::WrittenChunk>) -> Result<Vec<WrittenChunk>, FieldError> {
    wire::at_most("chunks", chunks, CHUNKS_MAX)?.into_iter().map(written_chunk).collect()
}

fn written_chunk(chunk: v1::WrittenChunk) -> Result<WrittenChunk, FieldError> {
    let v1::WrittenChunk { chunk_id, file_offset, length, crc32c, sha256, receipts } = chunk;
    let receipts =
        wire::at_most("chunks.receipts", receipts, usize::from(Replication::FACTOR_MAX))?;
    Ok(WrittenChunk {
        chunk: wire::id("chunks.chunk_id", &chunk_id)?,
        file_offset,
        seal: wire::seal("chunks.sha256", (length, crc32c, &sha256))?,
        receipts: receipts
            .into_iter()
            .map(|receipt| wire::receipt("chunks.receipts", receipt))
            .collect::<Result<_, _>>()?,
    })
}
