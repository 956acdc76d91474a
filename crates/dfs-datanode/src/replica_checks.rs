//! Finds and reads replicas, and issues verdicts on them.
//!
//! A verdict has a number drawn before the replica was looked for, and is reported in heartbeats
//! until a coordinator has settled it. A replica is bad if a checksum is wrong in two reads, or if
//! it stays [unreadable](crate::unreadable) while its disk returns other bytes.

use std::time::Duration;

use dfs_chunkstore::{
    Blocks, ChunkHeader, DiskUsage, FullSpeed, ReadPace, SealedChunk, StoreError,
};
use dfs_proto::v1;
use dfs_types::{
    BLOCK_SIZE, ChunkSeal, Crc32c, DiskId, DiskState, Part, PlantedBug, ReplicaCondition,
    ReplicaRef, ReplicaVerdict, Stamp,
};
use tokio::time::timeout;

use crate::Error;
use crate::node::Node;
use crate::unreadable::{APART, Proof, REPLICAS_UNTIL_FAILED};
use crate::walk::{ChunkRange, Walk};

/// Time between two checks whether the store must be searched for replicas set aside.
const SEARCH_EVERY: Duration = Duration::from_secs(1);

impl Node {
    /// Finds the named replica. `NotFound` only if the disk that it names is in service and does not
    /// hold it, which is reported to the coordinators; see [`Self::absence`].
    pub(crate) async fn find(&self, replica: ReplicaRef) -> Result<SealedChunk, Error> {
        // What is written from now on has a greater stamp.
        let number = self.store.verdict_number();
        let found = self.look_up(replica).await;
        if let Err(Error::Store(StoreError::NotFound(_))) = found {
            self.report(verdict(replica, number, ReplicaCondition::Gone, 0));
        }
        found
    }

    /// Finds the named replica, without a verdict when there is none.
    pub(crate) async fn look_up(&self, replica: ReplicaRef) -> Result<SealedChunk, Error> {
        let found = self.store.stat(replica).await?;
        found.ok_or_else(|| self.absence(replica))
    }

    /// Returns the error for a replica that the store did not find. Nothing is known of the
    /// replicas of a disk that is out of service, or that has not been reconciled since it came
    /// back, so they are not reported as absent.
    ///
    /// Call it after asking the store: a failing disk is marked as failed before its
    /// replicas leave the index.
    pub(crate) fn absence(&self, replica: ReplicaRef) -> Error {
        let ReplicaRef { chunk, disk, .. } = replica;
        if self.proves_absence(disk) {
            StoreError::NotFound(chunk).into()
        } else {
            Error::DiskOutOfService { chunk, disk }
        }
    }

    /// Returns whether replicas that the store does not find on this disk are certainly not there.
    pub(crate) fn proves_absence(&self, disk: DiskId) -> bool {
        let is_proof = |usage: &DiskUsage| {
            usage.disk == disk && usage.state.proves_absence() && !usage.has_unread_heads
        };
        self.store.usage().iter().any(is_proof)
    }

    /// Returns whether a disk is out of service until the next start.
    fn has_failed(&self, disk: DiskId) -> bool {
        let has_failed = |usage: &DiskUsage| usage.disk == disk && usage.state == DiskState::Failed;
        self.store.usage().iter().any(has_failed)
    }

    /// Returns the error of a replica that was found and then failed. Reports a replica that is gone,
    /// with a verdict number that was drawn before the attempt.
    pub(crate) fn failure(&self, replica: ReplicaRef, number: u64, error: StoreError) -> Error {
        if !matches!(error, StoreError::NotFound(_)) {
            return error.into();
        }
        let error = self.absence(replica);
        if matches!(error, Error::Store(StoreError::NotFound(_))) {
            self.report(verdict(replica, number, ReplicaCondition::Gone, 0));
        }
        error
    }

    /// Reports a verdict to the coordinators, at once if it is new.
    pub(crate) fn report(&self, verdict: ReplicaVerdict) {
        if self.verdicts.add(verdict) {
            self.tell();
        }
    }

    /// Verifies `block` of a replica, then the rest unless [`Verifications`] are at their limit.
    /// Sets the replica aside if it is bad. Returns whether it is set aside, now or earlier.
    ///
    /// [`Verifications`]: crate::verification_limits::Verifications
    pub(crate) async fn examine(&self, name: ReplicaRef, block: u64) -> Result<bool, Error> {
        let replica = self.find(name).await?;
        if replica.is_set_aside {
            return Ok(true);
        }
        let is_sound = self.is_block_sound(name, block).await?;
        let permit = if is_sound {
            let Some(permit) = self.verifications.begin(name) else { return Ok(false) };
            permit
        } else {
            // It may be wrong only in a cache.
            self.verifications.turn().await
        };
        let verdict = self.verify(replica).await;
        drop(permit);
        if verdict.is_err() {
            self.verifications.forget(name);
        }
        match verdict?.condition {
            ReplicaCondition::Bad => Ok(true),
            ReplicaCondition::Sound => Ok(false),
            ReplicaCondition::Gone => Err(self.absence(name)),
        }
    }

    async fn is_block_sound(&self, replica: ReplicaRef, block: u64) -> Result<bool, Error> {
        let offset = block.saturating_mul(BLOCK_SIZE as u64);
        match self.store.read(replica, offset, 1).await {
            Ok(blocks) => Ok(Crc32c::of_blocks(&blocks.data) == blocks.crcs),
            Err(StoreError::Damaged { .. }) => Ok(false),
            Err(error) => {
                self.note_unreadable(replica, &error);
                Err(error.into())
            }
        }
    }

    /// Reads the named replica end to end and compares it with the chunk. An error is no verdict.
    pub(crate) async fn verify_named(
        &self,
        name: ReplicaRef,
        seal: ChunkSeal,
    ) -> Result<ReplicaVerdict, Error> {
        let number = self.store.verdict_number();
        let found = match self.look_up(name).await {
            Err(Error::Store(StoreError::NotFound(_))) => {
                return Ok(verdict(name, number, ReplicaCondition::Gone, 0));
            }
            found => found?,
        };
        if !self.may_be_sealed_as(&found, seal).await {
            self.condemn(found, number, 0).await?;
            return Ok(verdict(name, number, ReplicaCondition::Bad, 0));
        }
        if PlantedBug::DoomWithoutRead.is_planted() {
            return Ok(verdict(name, number, ReplicaCondition::Sound, 0));
        }
        self.verify(found).await
    }

    /// Returns false if a replica was sealed with other bytes than these. What cannot be read proves
    /// nothing here: the verification that follows judges it.
    pub(crate) async fn may_be_sealed_as(&self, replica: &SealedChunk, seal: ChunkSeal) -> bool {
        if (replica.length, replica.crc32c) != (seal.length, seal.crc32c) {
            return false;
        }
        let first = self.store.read(replica.replica(), 0, 1).await;
        first.map_or(true, |blocks| blocks.sha256.is_none_or(|found| found == seal.sha256))
    }

    /// Reads a replica end to end, see [`Self::verify_at`].
    pub(crate) async fn verify(&self, replica: SealedChunk) -> Result<ReplicaVerdict, Error> {
        self.verify_at(replica, &FullSpeed).await
    }

    /// Reads a replica end to end, at this pace. Sets it aside if it is bad, and reports what is
    /// new to the coordinators. An error is no verdict.
    pub(crate) async fn verify_at(
        &self,
        replica: SealedChunk,
        pace: &dyn ReadPace,
    ) -> Result<ReplicaVerdict, Error> {
        let (name, number) = (replica.replica(), self.store.verdict_number());
        let bad = match self.store.verify(name, pace).await {
            Err(StoreError::Damaged { .. }) => Some(0),
            Err(error @ StoreError::Unreadable { .. }) => {
                return self.judge_unreadable(replica, number, error).await;
            }
            Err(StoreError::NotFound(_)) if self.proves_absence(name.disk) => {
                let gone = verdict(name, number, ReplicaCondition::Gone, 0);
                self.report(gone);
                return Ok(gone);
            }
            verified => verified.map_err(|error| self.failure(name, number, error))?,
        };
        self.unreadable.forget(name);
        if let Some(block) = bad {
            if !replica.is_set_aside {
                self.condemn(replica, number, block).await?;
            }
            return Ok(verdict(name, number, ReplicaCondition::Bad, block));
        }
        let sound = verdict(name, number, ReplicaCondition::Sound, 0);
        if replica.is_set_aside || self.verdicts.has(name) {
            self.report(sound);
        }
        Ok(sound)
    }

    /// Returns the verdict on a replica that could not be read completely: bad, if it was condemned
    /// before or stays unreadable, otherwise the error. Fails the disk if too many of its replicas
    /// stay unreadable. What fails while a disk returns nothing at all counts against neither.
    async fn judge_unreadable(
        &self,
        replica: SealedChunk,
        number: u64,
        error: StoreError,
    ) -> Result<ReplicaVerdict, Error> {
        let name = replica.replica();
        let bad = verdict(name, number, ReplicaCondition::Bad, 0);
        if self.store.probe(name.disk).await.is_err() {
            if !replica.is_set_aside {
                self.unreadable.start_over(name);
            }
            return Err(error.into());
        }
        if replica.is_set_aside {
            self.unreadable.end(name);
            return Ok(bad);
        }
        match self.unreadable.failed(name) {
            Proof::Disk => {
                self.store.fail_disk(name.disk, &too_many_unreadable());
                self.unreadable.forget_disk(name.disk);
                self.tell();
                Err(Error::DiskOutOfService { chunk: name.chunk, disk: name.disk })
            }
            Proof::Replica => {
                self.condemn(replica, number, 0).await?;
                self.unreadable.end(name);
                Ok(bad)
            }
            Proof::Nothing => Err(error.into()),
        }
    }

    /// Notes a replica whose disk did not return what was read, so that it is verified.
    fn note_unreadable(&self, replica: ReplicaRef, error: &StoreError) {
        if matches!(error, StoreError::Unreadable { .. }) {
            self.unreadable.note(replica);
        }
    }

    /// Verifies the replicas that could not be read; runs until dropped.
    pub(crate) async fn verify_unreadable(&self) {
        loop {
            let name = self.unreadable.next().await;
            let found = match self.look_up(name).await {
                Ok(found) if !found.is_set_aside => found,
                Ok(_) | Err(Error::Store(StoreError::NotFound(_))) => {
                    self.unreadable.end(name);
                    continue;
                }
                Err(_) => {
                    if self.has_failed(name.disk) {
                        self.unreadable.forget_disk(name.disk);
                    }
                    continue;
                }
            };
            let _turn = self.verifications.turn().await;
            let chunk = name.chunk;
            match self.verify(found).await {
                Ok(verdict) => {
                    let condition = verdict.condition;
                    tracing::info!(%chunk, %condition, "an unreadable replica was verified");
                }
                Err(error) => {
                    tracing::warn!(%chunk, %error, "an unreadable replica was not verified");
                }
            }
        }
    }

    /// Reads blocks of a replica that is not known to be bad, for a caller that verifies them.
    /// After a failure, and of a replica set aside, reads only what this node has verified: the
    /// blocks before a bad or unreadable one, which is the error of the next read.
    pub(crate) async fn read(
        &self,
        replica: SealedChunk,
        offset: u64,
        length: u64,
    ) -> Result<Blocks, Error> {
        let number = self.store.verdict_number();
        if !replica.is_set_aside {
            match self.store.read(replica.replica(), offset, length).await {
                Err(error @ StoreError::Damaged { .. }) => {
                    if let Err(second) = self.verify(replica).await {
                        let chunk = replica.chunk;
                        tracing::error!(%chunk, %error, %second, "a damaged replica was not verified");
                    }
                }
                Err(error @ StoreError::Unreadable { .. }) => {
                    self.note_unreadable(replica.replica(), &error);
                }
                read => {
                    return read.map_err(|error| self.failure(replica.replica(), number, error));
                }
            }
        }
        self.read_verified(replica, offset, length).await
    }

    /// Returns where the bytes of a replica come from; `None` if its header is damaged.
    pub(crate) async fn origin(
        &self,
        replica: SealedChunk,
    ) -> Result<Option<v1::ChunkOrigin>, Error> {
        let number = self.store.verdict_number();
        match self.store.header(replica.replica()).await {
            Ok(ChunkHeader { inode, path, file_offset, .. }) => {
                Ok(Some(v1::ChunkOrigin { inode: inode.0, path, file_offset }))
            }
            Err(StoreError::Damaged { .. } | StoreError::Unreadable { .. }) => Ok(None),
            Err(error) => Err(self.failure(replica.replica(), number, error)),
        }
    }

    async fn read_verified(
        &self,
        replica: SealedChunk,
        offset: u64,
        length: u64,
    ) -> Result<Blocks, Error> {
        let (chunk, block) = (replica.chunk, offset / BLOCK_SIZE as u64);
        let number = self.store.verdict_number();
        let mut read = self.store.read(replica.replica(), offset, length).await;
        if let Err(StoreError::Damaged { .. } | StoreError::Unreadable { .. }) = read {
            // Perhaps only a later block is unreadable.
            read = self.store.read(replica.replica(), offset, 1).await;
        }
        match read {
            Ok(blocks) => {
                let good = self.pool.run(move || blocks.before_first_bad()).await;
                let good = good.map_err(StoreError::from)?;
                if good.data.is_empty() {
                    return Err(Error::BadBlock { chunk, block });
                }
                Ok(good)
            }
            Err(StoreError::Damaged { .. }) => Err(Error::BadBlock { chunk, block }),
            Err(StoreError::Unreadable { .. }) => Err(Error::UnreadableBlock { chunk, block }),
            Err(error) => Err(self.failure(replica.replica(), number, error)),
        }
    }

    /// Sets a bad replica aside, and reports it.
    async fn condemn(&self, replica: SealedChunk, number: u64, block: u64) -> Result<(), Error> {
        let ReplicaRef { chunk, disk, .. } = replica.replica();
        self.counts.checksum_errors.increment();
        let _marking = self.marking.lock().await;
        self.store.set_aside(replica.replica()).await?;
        self.counts.set_aside.increment();
        tracing::error!(
            %chunk, node = %self.id, %disk, block,
            "a replica is damaged on disk and was set aside; the cluster re-replicates it"
        );
        self.report(verdict(replica.replica(), number, ReplicaCondition::Bad, block));
        Ok(())
    }

    /// Reports the replicas found damaged at the start or set aside before, and reinstates those
    /// that the records call sound; runs until dropped.
    pub(crate) async fn keep_set_aside(&self) {
        let mut must_search = true;
        loop {
            if must_search && let Err(error) = self.find_set_aside().await {
                tracing::warn!(%error, "cannot list replicas set aside");
            }
            if let Ok(sound) = timeout(SEARCH_EVERY, self.verdicts.sound()).await {
                for replica in sound {
                    self.reinstate(replica).await;
                }
            }
            must_search = self.verdicts.take_incomplete();
        }
    }

    async fn find_set_aside(&self) -> Result<(), StoreError> {
        for damaged in self.store.damaged().into_iter().filter(|head| !head.is_unread) {
            // Only the name of its file says which chunk it was.
            if let Some(chunk) = damaged.chunk {
                let (part, stamp) = (Part::WHOLE, Stamp(0));
                let replica = ReplicaRef { chunk, part, disk: damaged.disk, stamp };
                self.report(verdict(replica, self.opened_at, ReplicaCondition::Gone, 0));
            }
        }
        let mut walk = Walk::new(self, ChunkRange::ALL);
        loop {
            let number = self.store.verdict_number();
            let Some(replicas) = walk.next().await? else { return Ok(()) };
            for replica in replicas.iter().filter(|replica| replica.is_set_aside) {
                self.report(verdict(replica.replica(), number, ReplicaCondition::Bad, 0));
            }
        }
    }

    async fn reinstate(&self, replica: ReplicaRef) {
        let _marking = self.marking.lock().await;
        // Unless it was found bad again.
        if !self.verdicts.take_sound(replica) {
            return;
        }
        let ReplicaRef { chunk, disk, .. } = replica;
        match self.store.reinstate(replica).await {
            Ok(()) => tracing::info!(%chunk, %disk, "a replica was verified and is used again"),
            Err(StoreError::NotFound(_)) => {}
            // It stays set aside, and is reported again after the next start.
            Err(error) => tracing::warn!(%chunk, %disk, %error, "cannot reinstate a replica"),
        }
    }
}

/// Returns why a disk with many unreadable replicas is out of service, and what to do.
fn too_many_unreadable() -> String {
    format!(
        "{REPLICAS_UNTIL_FAILED} of its replicas could not be read twice, at least {} minutes apart: \
         replace the disk; if only its connection was at fault, restart the node to use it again",
        APART.as_secs() / 60
    )
}

fn verdict(
    replica: ReplicaRef,
    number: u64,
    condition: ReplicaCondition,
    block: u64,
) -> ReplicaVerdict {
    ReplicaVerdict { replica, number, condition, block }
}
