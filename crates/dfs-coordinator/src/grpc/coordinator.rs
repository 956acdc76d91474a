//! The service `Coordinator`.

use std::pin::Pin;
use std::sync::Arc;

use dfs_metadata::namespace::{
    Delete, MakeDirectory, MakeSymlink, Namespace, OpenFile, Rename, SetAttributes, Undelete,
};
use dfs_proto::v1::coordinator_server::Coordinator;
use dfs_proto::{Failure, v1, wire};
use dfs_transport::{Caller, split};
use dfs_types::{FileKind, Name, Scope, Target};
use futures_util::Stream;
use tonic::{Request, Response, Status};

use super::{convert, repeat, upload, xattrs};
use crate::core::Core;
use crate::failure;

pub(super) struct Handler(pub(super) Arc<Core>);

type Answer<T> = Result<Response<T>, Status>;

fn answer<T>(result: Result<T, Failure>) -> Answer<T> {
    result.map(Response::new).map_err(Status::from)
}

#[tonic::async_trait]
impl Coordinator for Handler {
    async fn upload_file(&self, request: Request<v1::UploadRequest>) -> Answer<v1::UploadPlan> {
        answer(upload::upload_file(&self.0, split(request)?).await)
    }

    async fn replan_chunk(&self, request: Request<v1::ReplanRequest>) -> Answer<v1::UploadPlan> {
        answer(upload::replan_chunk(&self.0, split(request)?).await)
    }

    async fn renew_upload(&self, request: Request<v1::RenewRequest>) -> Answer<v1::RenewResponse> {
        answer(upload::renew_upload(&self.0, split(request)?).await)
    }

    async fn confirm_upload(
        &self,
        request: Request<v1::ConfirmRequest>,
    ) -> Answer<v1::ConfirmResponse> {
        answer(upload::confirm_upload(&self.0, split(request)?).await)
    }

    async fn abort_upload(&self, request: Request<v1::AbortRequest>) -> Answer<v1::AbortResponse> {
        answer(upload::abort_upload(&self.0, split(request)?).await)
    }

    async fn open_file(&self, request: Request<v1::OpenRequest>) -> Answer<v1::OpenResponse> {
        answer(self.open(split(request)?).await)
    }

    async fn stat(&self, request: Request<v1::StatRequest>) -> Answer<v1::StatResponse> {
        answer(self.stat_path(split(request)?).await)
    }

    type ListDirectoryStream = Pin<Box<dyn Stream<Item = Result<v1::ListPage, Status>> + Send>>;

    async fn list_directory(
        &self,
        request: Request<v1::ListRequest>,
    ) -> Answer<Self::ListDirectoryStream> {
        answer(self.list(split(request)?).await)
    }

    async fn make_directory(
        &self,
        request: Request<v1::MakeDirectoryRequest>,
    ) -> Answer<v1::MakeDirectoryResponse> {
        answer(self.mkdir(split(request)?).await)
    }

    async fn make_symlink(
        &self,
        request: Request<v1::MakeSymlinkRequest>,
    ) -> Answer<v1::MakeSymlinkResponse> {
        answer(self.symlink(split(request)?).await)
    }

    async fn rename(&self, request: Request<v1::RenameRequest>) -> Answer<v1::RenameResponse> {
        answer(self.rename_path(split(request)?).await)
    }

    async fn delete(&self, request: Request<v1::DeleteRequest>) -> Answer<v1::DeleteResponse> {
        answer(self.delete_path(split(request)?).await)
    }

    async fn undelete(
        &self,
        request: Request<v1::UndeleteRequest>,
    ) -> Answer<v1::UndeleteResponse> {
        answer(self.undelete_path(split(request)?).await)
    }

    async fn set_attributes(
        &self,
        request: Request<v1::SetAttributesRequest>,
    ) -> Answer<v1::SetAttributesResponse> {
        answer(self.change_attributes(split(request)?).await)
    }

    async fn get_xattr(
        &self,
        request: Request<v1::GetXattrRequest>,
    ) -> Answer<v1::GetXattrResponse> {
        answer(xattrs::get(self.namespace(), split(request)?).await)
    }

    async fn list_xattrs(
        &self,
        request: Request<v1::ListXattrsRequest>,
    ) -> Answer<v1::ListXattrsResponse> {
        answer(xattrs::list(self.namespace(), split(request)?).await)
    }

    async fn set_xattr(
        &self,
        request: Request<v1::SetXattrRequest>,
    ) -> Answer<v1::SetXattrResponse> {
        answer(xattrs::set(self.namespace(), split(request)?).await)
    }

    async fn remove_xattr(
        &self,
        request: Request<v1::RemoveXattrRequest>,
    ) -> Answer<v1::RemoveXattrResponse> {
        answer(xattrs::remove(self.namespace(), split(request)?).await)
    }
}

impl Handler {
    async fn open(
        &self,
        (caller, request): (Caller, v1::OpenRequest),
    ) -> Result<v1::OpenResponse, Failure> {
        let target = wire::target("target", request.target)?;
        if request.no_follow {
            let stat = self.namespace().stat(&caller.scope(), &target, false).await;
            let stat = stat.map_err(|error| failure::of(&error))?;
            if stat.kind == FileKind::Symlink {
                let stat = Some(convert::stat(stat));
                return Ok(v1::OpenResponse { stat, ..v1::OpenResponse::default() });
            }
        }
        let open = OpenFile {
            target,
            offset: request.offset,
            length: request.length,
            max_extents: request.max_extents as usize,
        };
        let plan = self
            .namespace()
            .open_file(&caller.scope(), &open)
            .await
            .map_err(|e| failure::of(&e))?;
        let replicas = plan.extents.iter().flat_map(|extent| &extent.chunk.replicas);
        self.0
            .ensure_known(replicas.filter_map(|replica| plan.disks.node(replica.disk)))
            .await
            .map_err(|e| failure::of(&e))?;
        Ok(convert::opened(&self.0, plan))
    }

    async fn stat_path(
        &self,
        (caller, request): (Caller, v1::StatRequest),
    ) -> Result<v1::StatResponse, Failure> {
        let target = wire::target("target", request.target)?;
        let stat = self.namespace().stat(&caller.scope(), &target, !request.no_follow).await;
        let stat = stat.map_err(|error| failure::of(&error))?;
        Ok(v1::StatResponse { stat: Some(convert::stat(stat)) })
    }

    /// Streams the pages of a listing, each read once the previous one was sent.
    async fn list(
        &self,
        (caller, request): (Caller, v1::ListRequest),
    ) -> Result<<Self as Coordinator>::ListDirectoryStream, Failure> {
        let directory = wire::target("target", request.target)?;
        let after = match &request.after[..] {
            [] => None,
            name => Some(wire::name("after", name)?),
        };
        let left = if request.limit == 0 { u64::MAX } else { request.limit };
        let listing = Listing {
            namespace: self.namespace().clone(),
            scope: caller.scope(),
            directory,
            after,
            left,
        };
        // The first page is read here, so that a wrong path is an error of the call itself.
        let (first, rest) = listing.page().await?;
        let pages = futures_util::stream::try_unfold(rest, |rest| async move {
            match rest {
                None => Ok(None),
                Some(listing) => listing.page().await.map(Some).map_err(Status::from),
            }
        });
        let first = futures_util::stream::iter([Ok(first)]);
        Ok(Box::pin(futures_util::StreamExt::chain(first, pages)))
    }

    async fn mkdir(
        &self,
        (caller, mut request): (Caller, v1::MakeDirectoryRequest),
    ) -> Result<v1::MakeDirectoryResponse, Failure> {
        let slot = request.slot.take();
        let repeat = repeat("MakeDirectory", slot, &request)?;
        let target = wire::named_target("target", request.target)?;
        let now = self.0.clock.now().into();
        let attributes = wire::attributes("attributes", request.attributes, now)?;
        let make = MakeDirectory { target, parents: request.parents, attributes };
        let stat = self.namespace().make_directory(&caller.scope(), &make, repeat.as_ref()).await;
        let stat = stat.map_err(|error| failure::of(&error))?;
        Ok(v1::MakeDirectoryResponse { stat: Some(convert::stat(stat)) })
    }

    async fn symlink(
        &self,
        (caller, mut request): (Caller, v1::MakeSymlinkRequest),
    ) -> Result<v1::MakeSymlinkResponse, Failure> {
        let slot = request.slot.take();
        let repeat = repeat("MakeSymlink", slot, &request)?;
        let now = self.0.clock.now().into();
        let make = MakeSymlink {
            target: wire::named_target("target", request.target)?,
            symlink_target: wire::symlink_target("symlink_target", &request.symlink_target)?,
            attributes: wire::attributes("attributes", request.attributes, now)?,
            replace: request.replace,
        };
        let stat = self.namespace().make_symlink(&caller.scope(), &make, repeat.as_ref()).await;
        let stat = stat.map_err(|error| failure::of(&error))?;
        Ok(v1::MakeSymlinkResponse { stat: Some(convert::stat(stat)) })
    }

    async fn rename_path(
        &self,
        (caller, mut request): (Caller, v1::RenameRequest),
    ) -> Result<v1::RenameResponse, Failure> {
        let slot = request.slot.take();
        let repeat = repeat("Rename", slot, &request)?;
        let rename = Rename {
            from: wire::named_target("from", request.from)?,
            to: wire::named_target("to", request.to)?,
            precondition: wire::precondition("precondition", request.precondition)?,
            exchange: request.exchange,
        };
        let renamed = self.namespace().rename(&caller.scope(), &rename, repeat.as_ref()).await;
        renamed.map_err(|error| failure::of(&error))?;
        Ok(v1::RenameResponse {})
    }

    async fn delete_path(
        &self,
        (caller, mut request): (Caller, v1::DeleteRequest),
    ) -> Result<v1::DeleteResponse, Failure> {
        let slot = request.slot.take();
        let repeat = repeat("Delete", slot, &request)?;
        let delete = Delete {
            target: wire::named_target("target", request.target)?,
            recursive: request.recursive,
            now: request.now,
            precondition: wire::precondition("precondition", request.precondition)?,
        };
        let until = self.namespace().delete(&caller.scope(), &delete, repeat.as_ref()).await;
        let until = until.map_err(|error| failure::of(&error))?;
        Ok(v1::DeleteResponse {
            restorable_until_ms: until.map_or(0, dfs_types::Timestamp::millis),
        })
    }

    async fn undelete_path(
        &self,
        (caller, mut request): (Caller, v1::UndeleteRequest),
    ) -> Result<v1::UndeleteResponse, Failure> {
        let slot = request.slot.take();
        let repeat = repeat("Undelete", slot, &request)?;
        let target = wire::named_target("target", request.target)?;
        let to = request.to.map(|to| wire::named_target("to", Some(to))).transpose()?;
        let undelete = Undelete { target, to };
        let stat = self.namespace().undelete(&caller.scope(), &undelete, repeat.as_ref()).await;
        let stat = stat.map_err(|error| failure::of(&error))?;
        Ok(v1::UndeleteResponse { stat: Some(convert::stat(stat)) })
    }

    async fn change_attributes(
        &self,
        (caller, mut request): (Caller, v1::SetAttributesRequest),
    ) -> Result<v1::SetAttributesResponse, Failure> {
        let slot = request.slot.take();
        let repeat = repeat("SetAttributes", slot, &request)?;
        let change = SetAttributes {
            target: wire::target("target", request.target)?,
            follow: !request.no_follow,
            mode: request.mode.map(|mode| wire::mode("mode", mode)).transpose()?,
            uid: request.uid,
            gid: request.gid,
            mtime: request.mtime.map(|time| wire::file_time("mtime", time)).transpose()?,
        };
        let stat = self.namespace().set_attributes(&caller.scope(), &change, repeat.as_ref()).await;
        let stat = stat.map_err(|error| failure::of(&error))?;
        Ok(v1::SetAttributesResponse { stat: Some(convert::stat(stat)) })
    }

    fn namespace(&self) -> &Namespace {
        &self.0.namespace
    }
}

/// The rest of a listing.
struct Listing {
    namespace: Namespace,
    scope: Scope,
    directory: Target,
    after: Option<Name>,
    left: u64,
}

impl Listing {
    /// Returns the next page, and the rest of the listing.
    async fn page(mut self) -> Result<(v1::ListPage, Option<Self>), Failure> {
        let limit = self.left.min(Namespace::PAGE_LEN_MAX as u64) as usize;
        let page = self
            .namespace
            .list_directory(&self.scope, &self.directory, self.after.as_ref(), limit)
            .await
            .map_err(|error| failure::of(&error))?;
        self.left -= page.entries.len() as u64;
        self.directory = Target::Inode(page.directory);
        self.after = page.entries.last().map(|entry| entry.name.clone());
        let has_more = page.has_more && self.left > 0 && self.after.is_some();
        let entries = page.entries.into_iter().map(convert::entry).collect();
        Ok((v1::ListPage { entries }, has_more.then_some(self)))
    }
}
