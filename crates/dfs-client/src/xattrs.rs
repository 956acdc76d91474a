//! Extended attributes.

use std::collections::BTreeMap;

use bytes::Bytes;
use dfs_proto::{v1, wire};
use dfs_types::{Target, XattrName};

use crate::{Client, Error, FileStat, Follow};

/// Condition for setting an extended attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum XattrMode {
    /// Sets it, whether it exists or not.
    #[default]
    Set,
    /// Fails with [`dfs_types::ErrorCode::AlreadyExists`] if it exists.
    Create,
    /// Fails with [`dfs_types::ErrorCode::NotFound`] if it does not exist.
    Replace,
}

impl Client {
    /// Reads an extended attribute; [`dfs_types::ErrorCode::NotFound`] when it is not set.
    pub async fn xattr(
        &self,
        target: impl Into<Target>,
        name: &XattrName,
        follow: Follow,
    ) -> Result<Bytes, Error> {
        let target = target.into();
        self.with_request_id(async {
            let context = target.to_string();
            let request = v1::GetXattrRequest {
                target: Some(target.into()),
                no_follow: follow == Follow::No,
                name: name.to_bytes(),
            };
            let answer = self.call(&context, |mut c| {
                let request = request.clone();
                async move { c.get_xattr(request).await }
            });
            Ok(answer.await?.value)
        })
        .await
    }

    /// Lists the names of all extended attributes, in byte order; at most 64.
    pub async fn xattrs(
        &self,
        target: impl Into<Target>,
        follow: Follow,
    ) -> Result<Vec<XattrName>, Error> {
        let target = target.into();
        Ok(self.list_xattrs(target, follow, false).await?.into_keys().collect())
    }

    /// Reads all extended attributes with their values, as of one time: at most 256 KiB.
    pub async fn xattr_values(
        &self,
        target: impl Into<Target>,
        follow: Follow,
    ) -> Result<BTreeMap<XattrName, Bytes>, Error> {
        self.list_xattrs(target.into(), follow, true).await
    }

    async fn list_xattrs(
        &self,
        target: Target,
        follow: Follow,
        values: bool,
    ) -> Result<BTreeMap<XattrName, Bytes>, Error> {
        self.with_request_id(async {
            let context = target.to_string();
            let request = v1::ListXattrsRequest {
                target: Some(target.into()),
                no_follow: follow == Follow::No,
                values,
            };
            let answer = self.call(&context, |mut c| {
                let request = request.clone();
                async move { c.list_xattrs(request).await }
            });
            let xattrs = wire::xattrs("xattrs", answer.await?.xattrs);
            xattrs.map_err(|error| Error::wire(context, &error))
        })
        .await
    }

    /// Sets an extended attribute: at most 64 KiB, with at most 64 attributes and 256 KiB per
    /// inode. Atomic, and durable on return.
    pub async fn set_xattr(
        &self,
        target: impl Into<Target>,
        name: &XattrName,
        value: impl Into<Bytes>,
        mode: XattrMode,
        follow: Follow,
    ) -> Result<FileStat, Error> {
        let (target, value) = (target.into(), value.into());
        self.with_request_id(async {
            let context = target.to_string();
            let slot = self.inner.slots.take().await;
            let request = v1::SetXattrRequest {
                target: Some(target.into()),
                no_follow: follow == Follow::No,
                name: name.to_bytes(),
                value,
                create: mode == XattrMode::Create,
                replace: mode == XattrMode::Replace,
                slot: Some(slot.slot().into()),
            };
            let answer = self.call(&context, |mut c| {
                let request = request.clone();
                async move { c.set_xattr(request).await }
            });
            crate::metadata::stat_of(&context, answer.await?.stat)
        })
        .await
    }

    /// Removes an extended attribute; [`dfs_types::ErrorCode::NotFound`] when it is not set.
    pub async fn remove_xattr(
        &self,
        target: impl Into<Target>,
        name: &XattrName,
        follow: Follow,
    ) -> Result<FileStat, Error> {
        let target = target.into();
        self.with_request_id(async {
            let context = target.to_string();
            let slot = self.inner.slots.take().await;
            let request = v1::RemoveXattrRequest {
                target: Some(target.into()),
                no_follow: follow == Follow::No,
                name: name.to_bytes(),
                slot: Some(slot.slot().into()),
            };
            let answer = self.call(&context, |mut c| {
                let request = request.clone();
                async move { c.remove_xattr(request).await }
            });
            crate::metadata::stat_of(&context, answer.await?.stat)
        })
        .await
    }
}
