//! The fake coordinator.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dfs_proto::Failure;
use dfs_proto::v1;
use dfs_proto::v1::coordinator_server::Coordinator;
use dfs_proto::wire::{self, WireId as _};
use dfs_types::{ChunkId, ErrorCode, NodeId, Redundancy, Slot};
use tonic::{Request, Response, Status};

use crate::{Answered, Answers, CHUNK, File, MIN_REPLICAS, State, Upload, World, note, refusal};

/// One of the coordinators that share the world.
pub(crate) struct FakeCoordinator {
    pub(crate) world: Arc<World>,
    /// Its address.
    pub(crate) at: String,
}

impl FakeCoordinator {
    /// Notes the request id, and misbehaves as configured.
    async fn receive<T>(&self, call: &'static str, request: Request<T>) -> Result<T, Status> {
        note(&self.world, call, &request);
        let (hangs, latency) = {
            let mut state = self.world.state.lock().unwrap();
            *state.received.entry(self.at.clone()).or_default() += 1;
            (state.hanging.contains(&self.at), state.latency)
        };
        if hangs {
            std::future::pending::<()>().await;
        }
        if latency > Duration::ZERO {
            tokio::time::sleep(latency).await;
        }
        let mut state = self.world.state.lock().unwrap();
        if state.gathering.contains(&self.at) {
            let failure = Failure::new(ErrorCode::Unavailable, "just started");
            return Err(failure.retry_after(Duration::from_secs(5)).into());
        }
        if state.busy > 0 {
            state.busy -= 1;
            return Err(refusal(ErrorCode::Busy, "busy"));
        }
        Ok(request.into_inner())
    }

    async fn answer<T>(&self, call: &'static str, answer: T) -> Result<Response<T>, Status> {
        let loses = self.world.state.lock().unwrap().loses_answer_of.take_if(|lost| *lost == call);
        if loses.is_some() {
            self.world.network.cut();
            std::future::pending::<()>().await;
        }
        Ok(Response::new(answer))
    }

    fn plan_chunk(
        &self,
        state: &mut State,
        inode: u64,
        offset: u64,
        token: &Bytes,
        avoid: &[Bytes],
    ) -> Result<v1::PlannedChunk, Status> {
        let id = ChunkId(u128::from(state.next()) << 80);
        let upload = state.uploads.get_mut(&inode).expect("the upload is known");
        upload.planned.insert(id, (offset, token.clone()));
        let left = upload.size.map_or(u64::MAX, |size| size - offset);
        let mut nodes: Vec<_> = self.world.nodes.iter().map(|node| node.location()).collect();
        let first = upload.planned.len() % nodes.len();
        nodes.rotate_left(first);
        nodes.retain(|node| !avoid.contains(&node.node_id));
        nodes.truncate(3);
        if nodes.len() < MIN_REPLICAS as usize {
            return Err(refusal(ErrorCode::NotEnoughNodes, "too few nodes"));
        }
        Ok(v1::PlannedChunk {
            chunk_id: id.to_wire(),
            file_offset: offset,
            max_length: upload.chunk_size.min(left),
            nodes,
        })
    }

    /// Applies a change, or returns the first reply to a repeat.
    fn once(
        &self,
        slot: Option<v1::Slot>,
        body: String,
        change: impl FnOnce(&mut State) -> Result<v1::FileStat, Status>,
    ) -> Result<v1::FileStat, Status> {
        let mut state = self.world.state.lock().unwrap();
        let Slot { client, slot, sequence } = wire::slot("slot", slot)?;
        let key = (client.to_wire(), slot);
        match state.slots.get(&key) {
            Some((newest, kept, stat)) if *newest == sequence => {
                if *kept != body {
                    return Err(refusal(
                        ErrorCode::InvalidArgument,
                        "slot was used with another body",
                    ));
                }
                Ok(stat.clone())
            }
            Some((newest, ..)) if *newest > sequence => {
                Err(refusal(ErrorCode::Stale, "outdated sequence number"))
            }
            _ => {
                let stat = change(&mut state)?;
                state.slots.insert(key, (sequence, body, stat.clone()));
                Ok(stat)
            }
        }
    }

    /// Validates chunks as thoroughly as a real coordinator.
    fn check(state: &State, tokens: &[Bytes], chunks: &[v1::WrittenChunk]) -> Result<u64, Status> {
        let wrong = |what: &str| refusal(ErrorCode::InvalidArgument, what);
        let token = tokens.first().filter(|_| tokens.len() <= 64);
        let inode = inode_of(token.ok_or_else(|| wrong("1 to 64 tokens required"))?);
        let upload = state.uploads.get(&inode).ok_or_else(|| wrong("no such upload"))?;
        for chunk in chunks {
            let id = wire::id::<ChunkId>("chunk_id", &chunk.chunk_id)?;
            let (offset, token) = upload.planned.get(&id).ok_or_else(|| wrong("not planned"))?;
            if *offset != chunk.file_offset || !tokens.contains(token) {
                return Err(wrong("not planned by these tokens"));
            }
            let receipts = chunk.receipts.iter();
            let sound = receipts.filter(|receipt| {
                receipt.chunk_id == chunk.chunk_id && receipt.length == chunk.length
            });
            let nodes: BTreeSet<_> = sound.map(|receipt| &receipt.node_id).collect();
            if nodes.len() < MIN_REPLICAS as usize {
                return Err(wrong("too few receipts"));
            }
        }
        Ok(inode)
    }
}

fn inode_of(token: &Bytes) -> u64 {
    token.first_chunk().map(|inode| u64::from_be_bytes(*inode)).unwrap_or_default()
}

/// Returns the path of a target; the fake has no children.
fn path_of(target: Option<&v1::Target>) -> Bytes {
    target.expect("a target is set").path.clone()
}

fn is_absent(precondition: Option<&v1::Precondition>) -> bool {
    precondition.is_some_and(|precondition| precondition.absent)
}

fn parent_of(path: &Bytes) -> &[u8] {
    &path[..path.iter().rposition(|byte| *byte == b'/').unwrap_or_default()]
}

#[tonic::async_trait]
impl Coordinator for FakeCoordinator {
    async fn upload_file(&self, request: Request<v1::UploadRequest>) -> Answered<v1::UploadPlan> {
        let request = self.receive("UploadFile", request).await?;
        let plan = {
            let mut state = self.world.state.lock().unwrap();
            let inode =
                if request.token.is_empty() { state.next() } else { inode_of(&request.token) };
            let upload = state.uploads.entry(inode).or_insert_with(|| Upload {
                path: path_of(request.target.as_ref()),
                size: request.size,
                chunk_size: request.chunk_size.unwrap_or(CHUNK),
                ..Upload::default()
            });
            let (size, chunk_size) = (upload.size, upload.chunk_size);
            wire::chunk_size("chunk_size", chunk_size)?;
            let mut token = inode.to_be_bytes().to_vec();
            token.extend(state.next().to_be_bytes());
            let token = Bytes::from(token);
            let bound = if request.max_chunks == 0 { 64 } else { request.max_chunks.min(64) };
            let offsets = (0..u64::from(bound)).map(|n| request.from_offset + n * chunk_size);
            let offsets = offsets.take_while(|offset| size.is_none_or(|size| *offset < size));
            let mut chunks = Vec::new();
            for offset in offsets {
                chunks.push(self.plan_chunk(&mut state, inode, offset, &token, &[])?);
            }
            let end = request.from_offset + chunks.len() as u64 * chunk_size;
            state.count("UploadFile");
            v1::UploadPlan {
                token,
                inode,
                chunk_size,
                chunks,
                expires_ms: 0,
                has_more: size.is_some_and(|size| end < size),
                replication_factor: 3,
                min_write_replicas: MIN_REPLICAS,
            }
        };
        self.answer("UploadFile", plan).await
    }

    async fn replan_chunk(&self, request: Request<v1::ReplanRequest>) -> Answered<v1::UploadPlan> {
        let request = self.receive("ReplanChunk", request).await?;
        let plan = {
            let mut state = self.world.state.lock().unwrap();
            let inode = inode_of(&request.token);
            let id = wire::id("chunk_id", &request.chunk_id)?;
            let upload = state.uploads.get(&inode).expect("the upload is known");
            let (offset, _) = upload.planned[&id];
            let chunk_size = upload.chunk_size;
            let mut token = inode.to_be_bytes().to_vec();
            token.extend(state.next().to_be_bytes());
            let token = Bytes::from(token);
            let avoid = &request.avoid_nodes;
            let chunk = self.plan_chunk(&mut state, inode, offset, &token, avoid)?;
            state.count("ReplanChunk");
            v1::UploadPlan {
                token,
                inode,
                chunk_size,
                chunks: vec![chunk],
                expires_ms: 0,
                has_more: false,
                replication_factor: 3,
                min_write_replicas: MIN_REPLICAS,
            }
        };
        self.answer("ReplanChunk", plan).await
    }

    async fn renew_upload(
        &self,
        request: Request<v1::RenewRequest>,
    ) -> Answered<v1::RenewResponse> {
        let request = self.receive("RenewUpload", request).await?;
        {
            let mut state = self.world.state.lock().unwrap();
            let inode = Self::check(&state, &request.tokens, &request.chunks)?;
            state.count("RenewUpload");
            state.uploads.entry(inode).or_default().staged.extend(request.chunks);
        }
        self.answer("RenewUpload", v1::RenewResponse { expires_ms: 0 }).await
    }

    async fn confirm_upload(
        &self,
        request: Request<v1::ConfirmRequest>,
    ) -> Answered<v1::ConfirmResponse> {
        let request = self.receive("ConfirmUpload", request).await?;
        let stat = {
            let mut state = self.world.state.lock().unwrap();
            let inode = Self::check(&state, &request.tokens, &request.chunks)?;
            if request.size == 0 && request.slot.is_none() {
                return Err(refusal(ErrorCode::InvalidArgument, "an empty file needs a slot"));
            }
            let before = state.inodes.get(&inode).map(|file| file.stat.clone());
            let stat = if let Some(stat) = before {
                stat
            } else {
                let upload = &state.uploads[&inode];
                let path = upload.path.clone();
                if is_absent(request.precondition.as_ref()) && state.names.contains_key(&path) {
                    return Err(refusal(ErrorCode::AlreadyExists, "it exists"));
                }
                let mut chunks = upload.staged.clone();
                chunks.extend(request.chunks);
                chunks.sort_by_key(|chunk| chunk.file_offset);
                let mut end = 0;
                for chunk in &chunks {
                    if chunk.file_offset != end {
                        return Err(refusal(ErrorCode::InvalidArgument, "chunks leave a hole"));
                    }
                    end += chunk.length;
                }
                if end != request.size {
                    return Err(refusal(ErrorCode::InvalidArgument, "wrong size"));
                }
                let stat = v1::FileStat {
                    inode,
                    kind: v1::FileKind::File.into(),
                    size: request.size,
                    attributes: request.attributes,
                    replication_factor: 3,
                    ..v1::FileStat::default()
                };
                state.count("ConfirmUpload");
                state.inodes.insert(inode, File { stat: stat.clone(), chunks });
                state.names.insert(path, inode);
                stat
            };
            v1::ConfirmResponse { stat: Some(stat) }
        };
        self.answer("ConfirmUpload", stat).await
    }

    async fn abort_upload(
        &self,
        request: Request<v1::AbortRequest>,
    ) -> Answered<v1::AbortResponse> {
        let request = self.receive("AbortUpload", request).await?;
        {
            let mut state = self.world.state.lock().unwrap();
            let inode = Self::check(&state, &request.tokens, &request.chunks)?;
            state.chunks_aborted += request.chunks.len();
            state.aborted.insert(inode);
        }
        self.answer("AbortUpload", v1::AbortResponse {}).await
    }

    async fn open_file(&self, request: Request<v1::OpenRequest>) -> Answered<v1::OpenResponse> {
        let request = self.receive("OpenFile", request).await?;
        let opened = {
            let mut state = self.world.state.lock().unwrap();
            state.count("OpenFile");
            let target = request.target.unwrap_or_default();
            let by_path = target.inode == 0;
            if by_path {
                state.count("OpenFile by path");
            }
            let inode = if by_path { state.names.get(&target.path) } else { Some(&target.inode) };
            let file = inode.and_then(|inode| state.inodes.get(inode)).ok_or_else(|| {
                let code = if by_path { ErrorCode::NotFound } else { ErrorCode::Stale };
                refusal(code, "no such file")
            })?;
            let length = if request.length == 0 { u64::MAX } else { request.length };
            let end = request.offset.saturating_add(length);
            let mut touched = file.chunks.iter().filter(|chunk| {
                chunk.file_offset < end && chunk.file_offset + chunk.length > request.offset
            });
            let page: Vec<_> =
                touched.by_ref().take(request.max_extents.min(256) as usize).collect();
            let next_offset = touched.next().map_or(0, |chunk| chunk.file_offset);
            let extents = page.iter().map(|chunk| {
                let id = wire::id::<ChunkId>("chunk_id", &chunk.chunk_id).unwrap();
                let replicas = chunk.receipts.iter().map(|receipt| {
                    let node = wire::id::<NodeId>("node_id", &receipt.node_id).unwrap();
                    v1::Replica {
                        node_id: receipt.node_id.clone(),
                        disk_id: receipt.disk_id.clone(),
                        stamp: receipt.stamp,
                        health: state
                            .replica_health
                            .get(&(id, node))
                            .map_or(v1::ReplicaHealth::Good, |health| *health)
                            .into(),
                        part: receipt.part,
                    }
                });
                v1::Extent {
                    file_offset: chunk.file_offset,
                    length: chunk.length,
                    chunk_id: chunk.chunk_id.clone(),
                    chunk_offset: 0,
                    chunk_length: chunk.length,
                    chunk_crc32c: chunk.crc32c,
                    chunk_sha256: chunk.sha256.clone(),
                    replicas: replicas.collect(),
                    redundancy: Some(redundancy(state.is_coded).into()),
                }
            });
            v1::OpenResponse {
                stat: Some(file.stat.clone()),
                extents: extents.collect(),
                next_offset,
                nodes: {
                    let known = self.world.nodes.iter();
                    let known = known.filter(|node| !state.unknown_nodes.contains(&node.id));
                    known.map(|node| node.location()).collect()
                },
            }
        };
        self.answer("OpenFile", opened).await
    }

    async fn stat(&self, request: Request<v1::StatRequest>) -> Answered<v1::StatResponse> {
        let request = self.receive("Stat", request).await?;
        let stat = {
            let mut state = self.world.state.lock().unwrap();
            state.count("Stat");
            let file = state
                .names
                .get(&path_of(request.target.as_ref()))
                .and_then(|inode| state.inodes.get(inode));
            file.map(|file| file.stat.clone())
        };
        let stat = stat.ok_or_else(|| refusal(ErrorCode::NotFound, "no such file"))?;
        self.answer("Stat", v1::StatResponse { stat: Some(stat) }).await
    }

    type ListDirectoryStream = Answers<v1::ListPage>;

    async fn list_directory(
        &self,
        request: Request<v1::ListRequest>,
    ) -> Answered<Self::ListDirectoryStream> {
        let request = self.receive("ListDirectory", request).await?;
        let mut path = path_of(request.target.as_ref()).to_vec();
        if path != b"/" {
            path.push(b'/');
        }
        let path = Bytes::from(path);
        let entries: Vec<_> = {
            let state = self.world.state.lock().unwrap();
            let named = state.names.iter().filter_map(|(name, inode)| {
                let is_below = parent_of(name) == parent_of(&path);
                let name = is_below.then(|| name.slice(path.len()..))?;
                let stat = state.inodes[inode].stat.clone();
                Some(v1::DirectoryEntry { name, stat: Some(stat) })
            });
            let named = named.filter(|entry| entry.name > request.after);
            named.take(request.limit as usize).collect()
        };
        let pages: Vec<_> =
            entries.chunks(400).map(|page| Ok(v1::ListPage { entries: page.to_vec() })).collect();
        let pages: Self::ListDirectoryStream = Box::pin(tokio_stream::iter(pages));
        self.answer("ListDirectory", pages).await
    }

    async fn make_directory(
        &self,
        request: Request<v1::MakeDirectoryRequest>,
    ) -> Answered<v1::MakeDirectoryResponse> {
        let request = self.receive("MakeDirectory", request).await?;
        let body = format!("{request:?}");
        let stat = self.once(request.slot.clone(), body, |state| {
            let inode = state.next();
            let stat = v1::FileStat {
                inode,
                kind: v1::FileKind::Directory.into(),
                attributes: request.attributes,
                ..v1::FileStat::default()
            };
            if state.names.contains_key(&path_of(request.target.as_ref())) {
                return Err(refusal(ErrorCode::AlreadyExists, "it exists"));
            }
            state.count("MakeDirectory");
            state.names.insert(path_of(request.target.as_ref()), inode);
            state.inodes.insert(inode, File { stat: stat.clone(), chunks: Vec::new() });
            Ok(stat)
        })?;
        self.answer("MakeDirectory", v1::MakeDirectoryResponse { stat: Some(stat) }).await
    }

    async fn make_symlink(
        &self,
        _: Request<v1::MakeSymlinkRequest>,
    ) -> Answered<v1::MakeSymlinkResponse> {
        Err(Status::unimplemented(""))
    }

    async fn rename(&self, request: Request<v1::RenameRequest>) -> Answered<v1::RenameResponse> {
        let request = self.receive("Rename", request).await?;
        let body = format!("{request:?}");
        self.once(request.slot.clone(), body, |state| {
            let (from, to) = (path_of(request.from.as_ref()), path_of(request.to.as_ref()));
            if is_absent(request.precondition.as_ref()) && state.names.contains_key(&to) {
                return Err(refusal(ErrorCode::AlreadyExists, "it exists"));
            }
            let inode = state.names.remove(&from);
            let inode = inode.ok_or_else(|| refusal(ErrorCode::NotFound, "no such file"))?;
            for name in state.below(&from) {
                let inode = state.names.remove(&name).expect("it was listed");
                state.names.insert([&to, &name[from.len()..]].concat().into(), inode);
            }
            state.names.insert(to, inode);
            Ok(v1::FileStat::default())
        })?;
        self.answer("Rename", v1::RenameResponse::default()).await
    }

    async fn delete(&self, request: Request<v1::DeleteRequest>) -> Answered<v1::DeleteResponse> {
        let request = self.receive("Delete", request).await?;
        let body = format!("{request:?}");
        self.once(request.slot.clone(), body, |state| {
            let path = path_of(request.target.as_ref());
            let below = state.below(&path);
            if !below.is_empty() && !request.recursive {
                return Err(refusal(ErrorCode::NotEmpty, "not empty"));
            }
            if state.names.remove(&path).is_none() {
                return Err(refusal(ErrorCode::NotFound, "no such file"));
            }
            for name in below {
                state.names.remove(&name);
            }
            Ok(v1::FileStat::default())
        })?;
        self.answer("Delete", v1::DeleteResponse::default()).await
    }

    async fn undelete(&self, _: Request<v1::UndeleteRequest>) -> Answered<v1::UndeleteResponse> {
        Err(Status::unimplemented(""))
    }

    async fn set_attributes(
        &self,
        request: Request<v1::SetAttributesRequest>,
    ) -> Answered<v1::SetAttributesResponse> {
        let request = self.receive("SetAttributes", request).await?;
        let body = format!("{request:?}");
        let stat = self.once(request.slot.clone(), body, |state| {
            state.count("SetAttributes");
            let inode = state.names.get(&path_of(request.target.as_ref())).copied();
            let file = inode.and_then(|inode| state.inodes.get(&inode));
            let file = file.ok_or_else(|| refusal(ErrorCode::NotFound, "no such file"))?;
            Ok(file.stat.clone())
        })?;
        self.answer("SetAttributes", v1::SetAttributesResponse { stat: Some(stat) }).await
    }

    async fn get_xattr(&self, _: Request<v1::GetXattrRequest>) -> Answered<v1::GetXattrResponse> {
        Err(Status::unimplemented(""))
    }

    async fn list_xattrs(
        &self,
        _: Request<v1::ListXattrsRequest>,
    ) -> Answered<v1::ListXattrsResponse> {
        Err(Status::unimplemented(""))
    }

    async fn set_xattr(&self, _: Request<v1::SetXattrRequest>) -> Answered<v1::SetXattrResponse> {
        Err(Status::unimplemented(""))
    }

    async fn remove_xattr(
        &self,
        _: Request<v1::RemoveXattrRequest>,
    ) -> Answered<v1::RemoveXattrResponse> {
        Err(Status::unimplemented(""))
    }
}

fn redundancy(is_coded: bool) -> Redundancy {
    if is_coded {
        let crcs = vec![dfs_types::Crc32c(0); 3];
        Redundancy::Erasure { codec: 1, k: 2, m: 1, blocks: 1, crcs }
    } else {
        Redundancy::Replicated { copies: 3 }
    }
}
