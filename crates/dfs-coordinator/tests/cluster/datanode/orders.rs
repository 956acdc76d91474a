//! Orders, as the fake carries them out.

use dfs_proto::v1::build_replica_response::Outcome;
use dfs_proto::{Failure, v1};
use dfs_types::{
    ChunkId, DiskId, ErrorCode, Generation, ReadProof, RegistrationNumber, Seal, Stamp,
};
use tonic::Status;

use super::{FakeDataNode, HeldReplica, to_wire};

impl FakeDataNode {
    fn proof(&self, replica: v1::ReplicaRef, generation: u64) -> v1::ReadProof {
        let state = self.state.lock().unwrap();
        let proof = ReadProof {
            replica: dfs_proto::wire::replica("replica", Some(replica)).unwrap(),
            generation: Generation(generation),
            node: self.id,
            registration: RegistrationNumber(state.registration),
            seal: Seal([0; 32]),
        };
        proof.sealed(state.key.as_ref().unwrap()).into()
    }

    pub(super) fn verify(&self, request: v1::VerifyReplicaRequest) -> v1::VerifyReplicaResponse {
        let replica = request.replica.unwrap();
        let chunk = ChunkId::from_slice(&replica.chunk_id).unwrap();
        let (number, condition) = {
            let mut state = self.state.lock().unwrap();
            state.verified.push(chunk);
            let number = state.next_stamp;
            state.next_stamp += 1;
            let stamp = Stamp(replica.stamp);
            let is_here = state.replicas.get(&chunk).is_some_and(|held| held.stamp == stamp);
            let condition = match is_here {
                false => v1::ReplicaCondition::Gone,
                true if state.bad.contains(&(chunk, stamp)) => v1::ReplicaCondition::Bad,
                true => v1::ReplicaCondition::Sound,
            };
            (number, condition)
        };
        let is_sound = condition == v1::ReplicaCondition::Sound;
        let proof = is_sound.then(|| self.proof(replica.clone(), request.generation));
        let verdict = v1::ReplicaVerdict {
            replica: Some(replica),
            number,
            condition: condition.into(),
            block: 0,
        };
        v1::VerifyReplicaResponse { verdict: Some(verdict), proof }
    }

    /// Gives a replica a new stamp and seals a receipt for it.
    pub(super) fn adopt(
        &self,
        request: &v1::AdoptReplicaRequest,
    ) -> Result<v1::AdoptReplicaResponse, Status> {
        let replica = request.replica.clone().unwrap();
        let chunk = ChunkId::from_slice(&replica.chunk_id).unwrap();
        let held = self.holds(chunk).filter(|held| held.stamp.0 == replica.stamp);
        let held = held.ok_or_else(|| Status::not_found("no such replica"))?;
        if self.state.lock().unwrap().bad.contains(&(chunk, held.stamp)) {
            return Err(Failure::new(ErrorCode::Corrupt, "it is bad").into());
        }
        let receipt = self.write_sum(chunk, held.length, held.crc32c, held.sha256);
        if self.state.lock().unwrap().loses_adoptions {
            return Err(Status::unavailable("the reply is lost"));
        }
        let adopted = self.name(chunk, receipt.stamp);
        let proof = Some(self.proof(adopted, request.generation));
        Ok(v1::AdoptReplicaResponse { adopted: Some(to_wire(&receipt)), proof })
    }

    /// Refuses orders without a lease, or of an older one than seen before.
    pub(super) fn check_epoch(&self, epoch: u64) -> Result<(), Status> {
        let mut state = self.state.lock().unwrap();
        if epoch == 0 || epoch < state.epoch {
            return Err(Status::failed_precondition("an order of an old lease epoch"));
        }
        state.epoch = epoch;
        Ok(())
    }

    /// Builds from the first source that has the chunk.
    pub(super) fn build(&self, request: &v1::BuildReplicaRequest) -> v1::BuildReplicaResponse {
        let chunk = ChunkId::from_slice(&request.chunk_id).unwrap();
        let mut response = v1::BuildReplicaResponse::default();
        let is_replaced = |held: &HeldReplica| {
            request.replaces.iter().any(|replica| replica.stamp == held.stamp.0)
        };
        if let Some(held) = self.holds(chunk).filter(|held| !is_replaced(held)) {
            let replica = Some(v1::ReplicaRef {
                chunk_id: request.chunk_id.clone(),
                part: 0,
                disk_id: self.disk.to_bytes().to_vec().into(),
                stamp: held.stamp.0,
            });
            let existing = v1::ExistingReplica { replica, is_set_aside: false };
            response.outcome = Some(Outcome::Existing(existing));
            return response;
        }
        let is_cut_off = self.is_cut_off();
        for source in &request.sources {
            let (location, named) =
                (source.node.as_ref().unwrap(), source.replica.as_ref().unwrap());
            let node = self.neighbours.lock().unwrap().get(&location.address).cloned().unwrap();
            let held = node.holds(chunk).filter(|held| held.stamp.0 == named.stamp);
            if is_cut_off {
                response.failed.push(v1::DroppedReplica {
                    node_id: location.node_id.clone(),
                    code: "UNAVAILABLE".to_owned(),
                    message: "not reachable, as planned".to_owned(),
                });
                continue;
            }
            if let Some(held) = held {
                node.state.lock().unwrap().replicated.push(chunk);
                let receipt = self.write_sum(chunk, held.length, held.crc32c, held.sha256);
                let built = self.name(chunk, receipt.stamp);
                let built = v1::ReplicaRef { disk_id: to_wire(&receipt).disk_id, ..built };
                response.proof = Some(self.proof(built, request.generation));
                response.outcome = Some(Outcome::Built(to_wire(&receipt)));
                return response;
            }
            response.failed.push(v1::DroppedReplica {
                node_id: location.node_id.clone(),
                code: "NOT_FOUND".to_owned(),
                message: "no such chunk".to_owned(),
            });
        }
        response
    }

    /// Builds the replicas of small chunks, except of those that it was told to leave out.
    pub(super) fn build_small(
        &self,
        request: &v1::BuildSmallReplicasRequest,
    ) -> Result<Vec<v1::BuiltReplica>, Status> {
        let left_out = {
            let mut state = self.state.lock().unwrap();
            let left_out = state.small_builds_without.clone();
            let left_out = left_out.ok_or_else(|| Status::unimplemented("an older release"))?;
            state.small_orders.push(request.builds.len());
            if state.breaks_off_small_builds {
                return Err(Failure::new(ErrorCode::Unavailable, "as planned").into());
            }
            left_out
        };
        let chunk = |build: &v1::SmallReplicaBuild| ChunkId::from_slice(&build.chunk_id).unwrap();
        let builds = request.builds.iter().filter(|build| !left_out.contains(&chunk(build)));
        let build = |build: &v1::SmallReplicaBuild| {
            let v1::SmallReplicaBuild { chunk_id, length, crc32c, sha256, source, generation } =
                build.clone();
            let response = self.build(&v1::BuildReplicaRequest {
                chunk_id,
                length,
                crc32c,
                sha256,
                sources: source.into_iter().collect(),
                generation,
                ..v1::BuildReplicaRequest::default()
            });
            let Some(Outcome::Built(receipt)) = response.outcome else { return None };
            Some(v1::BuiltReplica { receipt: Some(receipt), proof: response.proof })
        };
        Ok(builds.filter_map(build).collect())
    }

    pub(super) fn delete(&self, request: &v1::DeleteChunksRequest) -> v1::DeleteChunksResponse {
        let mut state = self.state.lock().unwrap();
        let (mut deleted, mut failed) = (0, Vec::new());
        for replica in &request.replicas {
            let chunk = ChunkId::from_slice(&replica.chunk_id).unwrap();
            state.deletes.push((chunk, Stamp(replica.stamp)));
            if state.has_failed_disk || state.refuses_deletes {
                failed.push(v1::FailedDeletion {
                    replica: Some(replica.clone()),
                    code: "UNAVAILABLE".to_owned(),
                    message: "the disk is out of service".to_owned(),
                });
                continue;
            }
            let is_here = DiskId::from_slice(&replica.disk_id) == Some(self.disk);
            let held = state.replicas.get(&chunk);
            if is_here && held.is_some_and(|held| held.stamp.0 == replica.stamp) {
                state.replicas.remove(&chunk);
                deleted += 1;
            }
        }
        v1::DeleteChunksResponse { deleted, failed }
    }
}
