//! Calls that concern metadata only.

use bytes::Bytes;
use dfs_proto::v1;
use dfs_types::Target;

use crate::{
    AttributeChanges, Client, DeleteOptions, Error, FileStat, Follow, MakeDirectoryOptions,
    RenameOptions, SymlinkOptions,
};

impl Client {
    /// Returns the attributes of a path, inode or child; for a child it looks up the name. An inode
    /// that was reaped is [`ErrorCode::Stale`](dfs_types::ErrorCode::Stale).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let cluster = dfs_fake::Cluster::start(3).await;
    /// # let client = dfs_fake::client!(cluster);
    /// use dfs_client::{Follow};
    /// # use dfs_client::{PutOptions, PutSource};
    /// use dfs_types::DfsPath;
    ///
    /// # let path = DfsPath::new("/songs")?;
    /// # client.put(&path, PutSource::bytes("la la la"), PutOptions::default()).await?;
    /// let stat = client.stat(&path, Follow::Yes).await?;
    /// assert_eq!((stat.kind, stat.size), (dfs_types::FileKind::File, 8));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn stat(&self, target: impl Into<Target>, follow: Follow) -> Result<FileStat, Error> {
        let target = target.into();
        self.with_request_id(async {
            let context = target.to_string();
            let request =
                v1::StatRequest { target: Some(target.into()), no_follow: follow == Follow::No };
            let answer = self.call(&context, |mut c| {
                let request = request.clone();
                async move { c.stat(request).await }
            });
            stat_of(&context, answer.await?.stat)
        })
        .await
    }

    /// Creates a directory. Its parent must exist unless [`MakeDirectoryOptions::parents`] is set.
    pub async fn make_directory(
        &self,
        target: impl Into<Target>,
        options: MakeDirectoryOptions,
    ) -> Result<FileStat, Error> {
        let target = target.into();
        self.with_request_id(async {
            let context = target.to_string();
            let slot = self.inner.slots.take().await;
            let request = v1::MakeDirectoryRequest {
                target: Some(target.into()),
                parents: options.parents,
                attributes: Some(options.attributes.into()),
                slot: Some(slot.slot().into()),
            };
            let answer = self.call(&context, |mut c| {
                let request = request.clone();
                async move { c.make_directory(request).await }
            });
            stat_of(&context, answer.await?.stat)
        })
        .await
    }

    /// Creates a symlink. Its target need not exist and is not interpreted.
    pub async fn make_symlink(
        &self,
        target: impl Into<Target>,
        symlink_target: impl Into<Bytes>,
        options: SymlinkOptions,
    ) -> Result<FileStat, Error> {
        let (target, symlink_target) = (target.into(), symlink_target.into());
        self.with_request_id(async {
            let context = target.to_string();
            let slot = self.inner.slots.take().await;
            let request = v1::MakeSymlinkRequest {
                target: Some(target.into()),
                symlink_target,
                attributes: Some(options.attributes.into()),
                replace: options.replace,
                slot: Some(slot.slot().into()),
            };
            let answer = self.call(&context, |mut c| {
                let request = request.clone();
                async move { c.make_symlink(request).await }
            });
            stat_of(&context, answer.await?.stat)
        })
        .await
    }

    /// Renames atomically, including everything below. Replaces an existing entry as rename(2)
    /// does, unless [`RenameOptions`] demand something else.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let cluster = dfs_fake::Cluster::start(3).await;
    /// # let client = dfs_fake::client!(cluster);
    /// # use dfs_client::{PutOptions, PutSource};
    /// use dfs_client::{DfsPath, RenameOptions};
    ///
    /// # let path = DfsPath::new("/songs")?;
    /// # client.put(&path, PutSource::bytes("la la la"), PutOptions::default()).await?;
    /// let to = DfsPath::new("/hits")?;
    /// client.rename(&path, &to, RenameOptions::default()).await?;
    /// assert_eq!(client.read_range(&to, 0, 2).await?, "la");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn rename(
        &self,
        from: impl Into<Target>,
        to: impl Into<Target>,
        options: RenameOptions,
    ) -> Result<(), Error> {
        let (from, to) = (from.into(), to.into());
        self.with_request_id(async {
            let context = format!("{from} to {to}");
            let slot = self.inner.slots.take().await;
            let request = v1::RenameRequest {
                from: Some(from.into()),
                to: Some(to.into()),
                precondition: options.precondition.map(Into::into),
                slot: Some(slot.slot().into()),
                exchange: options.exchange,
            };
            let answer = self.call(&context, |mut c| {
                let request = request.clone();
                async move { c.rename(request).await }
            });
            answer.await.map(drop)
        })
        .await
    }

    /// Deletes a file, symlink or directory.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let cluster = dfs_fake::Cluster::start(3).await;
    /// # let client = dfs_fake::client!(cluster);
    /// use dfs_client::{DeleteOptions, Follow};
    /// # use dfs_client::{PutOptions, PutSource};
    /// use dfs_types::DfsPath;
    ///
    /// # let path = DfsPath::new("/songs")?;
    /// # client.put(&path, PutSource::bytes("la la la"), PutOptions::default()).await?;
    /// client.delete(&path, DeleteOptions::default()).await?;
    /// let gone = client.stat(&path, Follow::Yes).await.unwrap_err();
    /// assert_eq!(gone.code(), dfs_types::ErrorCode::NotFound);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn delete(
        &self,
        target: impl Into<Target>,
        options: DeleteOptions,
    ) -> Result<(), Error> {
        let target = target.into();
        self.with_request_id(async {
            let context = target.to_string();
            let slot = self.inner.slots.take().await;
            let request = v1::DeleteRequest {
                target: Some(target.into()),
                recursive: options.recursive,
                now: options.now,
                slot: Some(slot.slot().into()),
                precondition: options.precondition.map(Into::into),
            };
            let answer = self.call(&context, |mut c| {
                let request = request.clone();
                async move { c.delete(request).await }
            });
            answer.await.map(drop)
        })
        .await
    }

    /// Restores the last deleted or replaced entry of a path or child, in its place or at `to`.
    pub async fn undelete(
        &self,
        target: impl Into<Target>,
        to: Option<Target>,
    ) -> Result<FileStat, Error> {
        let target = target.into();
        self.with_request_id(async {
            let context = target.to_string();
            let slot = self.inner.slots.take().await;
            let request = v1::UndeleteRequest {
                target: Some(target.into()),
                to: to.map(Into::into),
                slot: Some(slot.slot().into()),
            };
            let answer = self.call(&context, |mut c| {
                let request = request.clone();
                async move { c.undelete(request).await }
            });
            stat_of(&context, answer.await?.stat)
        })
        .await
    }

    /// Changes attributes; those not named stay.
    pub async fn set_attributes(
        &self,
        target: impl Into<Target>,
        changes: AttributeChanges,
        follow: Follow,
    ) -> Result<FileStat, Error> {
        let target = target.into();
        self.with_request_id(async {
            let context = target.to_string();
            let slot = self.inner.slots.take().await;
            let request = v1::SetAttributesRequest {
                target: Some(target.into()),
                no_follow: follow == Follow::No,
                mode: changes.mode,
                uid: changes.uid,
                gid: changes.gid,
                mtime: changes.mtime.map(Into::into),
                slot: Some(slot.slot().into()),
            };
            let answer = self.call(&context, |mut c| {
                let request = request.clone();
                async move { c.set_attributes(request).await }
            });
            stat_of(&context, answer.await?.stat)
        })
        .await
    }
}

pub(crate) fn stat_of(context: &str, stat: Option<v1::FileStat>) -> Result<FileStat, Error> {
    FileStat::from_wire(stat).map_err(|error| Error::wire(context, &error))
}
