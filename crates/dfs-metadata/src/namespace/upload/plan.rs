//! Planning: the chunks of a file and the nodes they go to.

use std::sync::atomic::Ordering;
use std::time::Duration;

use dfs_types::{
    Access, BLOCK_SIZE, CHUNK_SIZE_DEFAULT, CHUNK_SIZE_MAX, CHUNK_SIZE_MIN, ChunkId, FileKind,
    NodeId, Replication, Scope, Timestamp,
};

use super::token::Plan;
use super::{NextPage, Placement, PlanUpload, PlannedChunk, Replan, UploadPlan};
use crate::namespace::resolve::{Last, Place, resolve};
use crate::namespace::{Namespace, Policy};
use crate::placement::PlacementRequest;
use crate::records::inode::Inode;
use crate::records::upload::Upload;
use crate::{Error, keys};

/// Lifetime of the token of a plan.
pub const PLAN_LIFETIME: Duration = Duration::from_hours(1);

impl Namespace {
    /// Maximum number of chunks per page.
    pub const PLAN_CHUNKS_MAX: usize = 64;

    /// Plans the first page of an upload. Writes nothing but an occasional block of inode numbers, and
    /// the policy for a replication factor that nothing had before.
    pub async fn plan_upload(
        &self,
        scope: &Scope,
        request: &PlanUpload,
        placement: &Placement<'_>,
    ) -> Result<UploadPlan, Error> {
        scope.require(Access::Write)?;
        let chunk_size = request.chunk_size.unwrap_or(CHUNK_SIZE_DEFAULT);
        check_chunk_size(chunk_size)?;
        let mut tx = self.begin().await?;
        let is_directory = || Error::IsADirectory { target: request.target.clone() };
        let place = resolve(&mut tx, &request.target, Last::Follow).await?;
        if let Place::Root = place {
            return Err(is_directory());
        }
        let place = place.named()?.in_parent()?;
        if place.entry.is_some_and(|entry| entry.kind == FileKind::Directory) {
            return Err(is_directory());
        }
        tx.read_ahead(vec![keys::inode(place.parent), keys::REPLICATION]).await?;
        let parent = tx.get::<Inode>(&keys::inode(place.parent)).await?;
        let default = tx.expect_default().await?;
        let (policy, replication) = if let Some(copies) = request.replication_factor {
            let policy = self.number_of(Policy { copies, min_write: None }).await?;
            (policy, Replication { factor: copies, ..default })
        } else {
            let policy = parent.map(|parent| parent.policy.number).unwrap_or_default();
            (policy, tx.replication_under(policy, default).await?)
        };
        drop(tx);
        let identity = self.identity();
        let plan = Plan {
            cluster: identity.cluster,
            incarnation: identity.incarnation,
            inode: self.next_inode().await?,
            parent: place.parent,
            name: place.name,
            size: request.size,
            chunk_size,
            policy,
            is_explicit: request.replication_factor.is_some(),
            replicas: replication.factor,
            min_replicas: replication.min_write_for(replication.factor),
            expires: self.now().plus(PLAN_LIFETIME),
            client_host: request.client_host.clone(),
            client_zone: request.client_zone.clone(),
            chunks: Vec::new(),
        };
        self.plan_page(plan, 0, request.max_chunks, placement)
    }

    /// Plans the next page, with a new expiry if chunks of the upload were staged.
    pub async fn next_page(
        &self,
        scope: &Scope,
        request: &NextPage,
        placement: &Placement<'_>,
    ) -> Result<UploadPlan, Error> {
        scope.require(Access::Write)?;
        let plan = self.renewed(self.open_plan(&request.token)?).await?;
        if !request.from_offset.is_multiple_of(plan.chunk_size) {
            let (offset, size) = (request.from_offset, plan.chunk_size);
            let what =
                format!("a page starts at a multiple of the chunk size, {size}, not at {offset}");
            return Err(Error::Invalid { what });
        }
        self.plan_page(plan, request.from_offset, request.max_chunks, placement)
    }

    /// Plans one chunk again, under a new id.
    pub async fn replan_chunk(
        &self,
        scope: &Scope,
        request: &Replan,
        placement: &Placement<'_>,
    ) -> Result<UploadPlan, Error> {
        scope.require(Access::Write)?;
        let mut plan = self.renewed(self.open_plan(&request.token)?).await?;
        let what = || "it is not in the plan; use the token that holds it".to_owned();
        let unplanned = || Error::BadChunk { chunk: request.chunk, what: what() };
        let old = plan.chunk(request.chunk).ok_or_else(unplanned)?.clone();
        let nodes = self.choose(&plan, old.max_length, &request.avoid, placement)?;
        plan.chunks = vec![PlannedChunk { chunk: self.new_chunk(), nodes, ..old }];
        Ok(self.answer(plan, false))
    }

    /// Returns the largest chunk of a plan in bytes.
    pub fn chunk_size_of(&self, scope: &Scope, token: &[u8]) -> Result<u64, Error> {
        scope.require(Access::Write)?;
        Ok(self.open_plan(token)?.chunk_size)
    }

    /// Updates the expiry of a plan: that of an upload with staged chunks is extended, others keep
    /// theirs.
    async fn renewed(&self, plan: Plan) -> Result<Plan, Error> {
        let staged = self.begin().await?.peek::<Upload>(&keys::upload(plan.inode)).await?;
        let now = self.expiry_now();
        match staged {
            Some(upload) if !upload.reaping && upload.expires > now => {
                let expires = self.now().plus(PLAN_LIFETIME);
                Ok(Plan { expires: expires.max(plan.expires), ..plan })
            }
            _ if plan.is_expired(now) => Err(Error::UploadExpired { name: plan.name }),
            _ => Ok(plan),
        }
    }

    fn plan_page(
        &self,
        mut plan: Plan,
        from: u64,
        max_chunks: usize,
        placement: &Placement<'_>,
    ) -> Result<UploadPlan, Error> {
        let most = match max_chunks {
            0 => Self::PLAN_CHUNKS_MAX,
            wanted => wanted.min(Self::PLAN_CHUNKS_MAX),
        };
        plan.chunks.clear();
        let mut offset = from;
        while plan.chunks.len() < most && plan.size.is_none_or(|size| offset < size) {
            let left = plan.size.map_or(u64::MAX, |size| size - offset);
            let max_length = plan.chunk_size.min(left);
            let nodes = self.choose(&plan, max_length, &[], placement)?;
            let chunk = self.new_chunk();
            plan.chunks.push(PlannedChunk { chunk, file_offset: offset, max_length, nodes });
            offset = offset.saturating_add(plan.chunk_size);
        }
        let has_more = plan.size.is_some_and(|size| offset < size);
        Ok(self.answer(plan, has_more))
    }

    fn answer(&self, plan: Plan, has_more: bool) -> UploadPlan {
        UploadPlan {
            token: self.seal_plan(&plan),
            inode: plan.inode,
            chunk_size: plan.chunk_size,
            chunks: plan.chunks,
            expires: plan.expires,
            has_more,
            replication_factor: plan.replicas,
            min_write_replicas: plan.min_replicas,
        }
    }

    /// Returns an id above the floor, even when a clock that was ahead raised the floor above this
    /// time.
    fn new_chunk(&self) -> ChunkId {
        let floor = Timestamp::from_millis(self.inner.floor_ms.load(Ordering::Relaxed));
        ChunkId::new(self.now().max(floor), &*self.inner.components.random)
    }

    fn choose(
        &self,
        plan: &Plan,
        bytes: u64,
        avoid: &[NodeId],
        placement: &Placement<'_>,
    ) -> Result<Vec<NodeId>, Error> {
        let request = PlacementRequest {
            count: usize::from(plan.replicas),
            bytes,
            avoid,
            host: &plan.client_host,
            zone: &plan.client_zone,
        };
        let random = &*self.inner.components.random;
        let nodes = placement.selector.select(placement.candidates, &request, random);
        let wanted = usize::from(plan.min_replicas);
        if nodes.len() >= wanted {
            return Ok(nodes);
        }
        let allowed = placement.candidates.iter().filter(|found| !avoid.contains(&found.node));
        let allowed = allowed.count();
        if allowed >= wanted {
            return Err(Error::NoSpace { found: nodes.len(), wanted, bytes });
        }
        Err(Error::NotEnoughNodes { found: allowed, wanted })
    }
}

fn check_chunk_size(bytes: u64) -> Result<(), Error> {
    let is_whole = bytes.is_multiple_of(BLOCK_SIZE as u64);
    if is_whole && (CHUNK_SIZE_MIN..=CHUNK_SIZE_MAX).contains(&bytes) {
        return Ok(());
    }
    let what = format!(
        "a chunk size must be a multiple of {BLOCK_SIZE} from {CHUNK_SIZE_MIN} to \
         {CHUNK_SIZE_MAX}, not {bytes}"
    );
    Err(Error::Invalid { what })
}

impl Plan {
    /// Returns whether it has expired.
    pub(super) fn is_expired(&self, now: Timestamp) -> bool {
        self.expires <= now
    }
}
