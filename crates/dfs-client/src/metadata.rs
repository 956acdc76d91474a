//! Calls that concern names alone.

use bytes::Bytes;
use dfs_proto::v1;
use dfs_types::DfsPath;

use crate::{
    AttributeChanges, Client, DeleteOptions, Error, FileStat, Follow, MakeDirectoryOptions,
    RenameOptions, SymlinkOptions,
};

impl Client {
    /// Describes what a path stands for.
    ///
    /// ```
    /// # mod fake { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/main/fake/mod.rs")); }
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let cluster = fake::Cluster::start(3).await;
    /// # let client = cluster.client();
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
    pub async fn stat(&self, path: &DfsPath, follow: Follow) -> Result<FileStat, Error> {
        self.with_request_id(async {
            let context = path.to_string();
            let request =
                v1::StatRequest { path: path.to_bytes(), no_follow: follow == Follow::No };
            let answer = self.call(&context, |mut c| {
                let request = request.clone();
                async move { c.stat(request).await }
            });
            stat_of(&context, answer.await?.stat)
        })
        .await
    }

    /// Makes a directory. Its parent must exist unless [`MakeDirectoryOptions::parents`] is set.
    pub async fn make_directory(
        &self,
        path: &DfsPath,
        options: MakeDirectoryOptions,
    ) -> Result<FileStat, Error> {
        self.with_request_id(async {
            let context = path.to_string();
            let slot = self.inner.slots.take().await;
            let request = v1::MakeDirectoryRequest {
                path: path.to_bytes(),
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

    /// Makes a symlink. Its target need not exist and is not interpreted.
    pub async fn make_symlink(
        &self,
        path: &DfsPath,
        target: impl Into<Bytes>,
        options: SymlinkOptions,
    ) -> Result<FileStat, Error> {
        let target = target.into();
        self.with_request_id(async {
            let context = path.to_string();
            let slot = self.inner.slots.take().await;
            let request = v1::MakeSymlinkRequest {
                path: path.to_bytes(),
                target,
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

    /// Renames in one step, whatever lies below. Replaces the target as rename(2) does, unless
    /// [`RenameOptions::no_replace`] is set.
    ///
    /// ```
    /// # mod fake { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/main/fake/mod.rs")); }
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let cluster = fake::Cluster::start(3).await;
    /// # let client = cluster.client();
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
        from: &DfsPath,
        to: &DfsPath,
        options: RenameOptions,
    ) -> Result<(), Error> {
        self.with_request_id(async {
            let context = format!("{from} to {to}");
            let slot = self.inner.slots.take().await;
            let request = v1::RenameRequest {
                from: from.to_bytes(),
                to: to.to_bytes(),
                no_replace: options.no_replace,
                slot: Some(slot.slot().into()),
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
    /// # mod fake { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/main/fake/mod.rs")); }
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let cluster = fake::Cluster::start(3).await;
    /// # let client = cluster.client();
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
    pub async fn delete(&self, path: &DfsPath, options: DeleteOptions) -> Result<(), Error> {
        self.with_request_id(async {
            let context = path.to_string();
            let slot = self.inner.slots.take().await;
            let request = v1::DeleteRequest {
                path: path.to_bytes(),
                recursive: options.recursive,
                now: options.now,
                slot: Some(slot.slot().into()),
            };
            let answer = self.call(&context, |mut c| {
                let request = request.clone();
                async move { c.delete(request).await }
            });
            answer.await.map(drop)
        })
        .await
    }

    /// Brings back what was deleted or replaced last under `path`, there or at `to`.
    pub async fn undelete(&self, path: &DfsPath, to: Option<&DfsPath>) -> Result<FileStat, Error> {
        self.with_request_id(async {
            let context = path.to_string();
            let slot = self.inner.slots.take().await;
            let request = v1::UndeleteRequest {
                path: path.to_bytes(),
                to: to.map(DfsPath::to_bytes).unwrap_or_default(),
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

    /// Changes attributes; what is not named stays.
    pub async fn set_attributes(
        &self,
        path: &DfsPath,
        changes: AttributeChanges,
        follow: Follow,
    ) -> Result<FileStat, Error> {
        self.with_request_id(async {
            let context = path.to_string();
            let slot = self.inner.slots.take().await;
            let request = v1::SetAttributesRequest {
                path: path.to_bytes(),
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
