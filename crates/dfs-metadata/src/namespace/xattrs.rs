//! Extended attributes.

use std::collections::BTreeMap;

use bytes::Bytes;
use dfs_types::{Access, FileKind, InodeId, Scope, Target, XattrName};

use super::mutation::Mutation;
use super::resolve::{Last, resolve};
use super::stat::gone;
use super::transaction::Transaction;
use super::{FileStat, Namespace, Repeat};
use crate::records::answer::{Answer, stat_of};
use crate::records::inode::Inode;
use crate::records::xattrs::{SeparateXattr, XattrValue, Xattrs};
use crate::{Error, keys};

/// Sets an extended attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetXattr {
    /// Inode to change.
    pub target: Target,
    /// Follows a symlink at the end of the path.
    pub follow: bool,
    /// Name.
    pub name: XattrName,
    /// Value, at most [`XattrName::VALUE_LEN_MAX`] bytes.
    pub value: Bytes,
    /// Refuses to replace a value.
    pub create: bool,
    /// Refuses to add a name.
    pub replace: bool,
}

/// Removes an extended attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoveXattr {
    /// Inode to change.
    pub target: Target,
    /// Follows a symlink at the end of the path.
    pub follow: bool,
    /// Name.
    pub name: XattrName,
}

impl Namespace {
    /// Sets an extended attribute and returns the changed inode.
    pub async fn set_xattr(
        &self,
        scope: &Scope,
        request: &SetXattr,
        repeat: Option<&Repeat>,
    ) -> Result<FileStat, Error> {
        scope.require(Access::Write)?;
        let invalid = |error: dfs_types::XattrError| Error::Invalid { what: error.to_string() };
        XattrName::check_value(&request.value).map_err(invalid)?;
        if request.create && request.replace {
            let what = "`create` and `replace` exclude each other";
            return Err(Error::Invalid { what: what.to_owned() });
        }
        stat_of(self.apply(Mutation::SetXattr(request), repeat).await?)
    }

    /// Removes an extended attribute and returns the changed inode.
    pub async fn remove_xattr(
        &self,
        scope: &Scope,
        request: &RemoveXattr,
        repeat: Option<&Repeat>,
    ) -> Result<FileStat, Error> {
        scope.require(Access::Write)?;
        stat_of(self.apply(Mutation::RemoveXattr(request), repeat).await?)
    }

    /// Returns the value of an extended attribute.
    pub async fn xattr(
        &self,
        scope: &Scope,
        target: &Target,
        follow: bool,
        name: &XattrName,
    ) -> Result<Bytes, Error> {
        scope.require(Access::Read)?;
        let mut tx = self.begin().await?;
        let (inode, mut record) = tx.with_xattrs(target, follow).await?;
        match record.xattrs.0.remove(name) {
            None => Err(missing(target, name)),
            Some(XattrValue::Inline(value)) => Ok(value),
            Some(XattrValue::Separate(_)) => {
                let key = keys::xattr(inode, name);
                let SeparateXattr(value) = tx.peek(&key).await?.ok_or_else(|| no_value(&key))?;
                Ok(value)
            }
        }
    }

    /// Returns all extended attributes with their values, at one snapshot.
    pub async fn xattr_values(
        &self,
        scope: &Scope,
        target: &Target,
        follow: bool,
    ) -> Result<BTreeMap<XattrName, Bytes>, Error> {
        scope.require(Access::Read)?;
        let mut tx = self.begin().await?;
        let (inode, record) = tx.with_xattrs(target, follow).await?;
        let keys: Vec<_> =
            record.xattrs.separate().map(|(name, _)| keys::xattr(inode, name)).collect();
        let mut separate = keys.iter().zip(tx.peek_many::<SeparateXattr>(&keys).await?);
        let mut values = BTreeMap::new();
        for (name, value) in record.xattrs.0 {
            let value = match value {
                XattrValue::Inline(value) => value,
                XattrValue::Separate(_) => match separate.next() {
                    Some((_, Some(SeparateXattr(value)))) => value,
                    found => return Err(no_value(found.map_or(b"", |(key, _)| key))),
                },
            };
            values.insert(name, value);
        }
        Ok(values)
    }

    /// Returns the names of all extended attributes, in byte order; at most
    /// [`XattrName::PER_INODE`].
    pub async fn xattrs(
        &self,
        scope: &Scope,
        target: &Target,
        follow: bool,
    ) -> Result<Vec<XattrName>, Error> {
        scope.require(Access::Read)?;
        let mut tx = self.begin().await?;
        let (_, record) = tx.with_xattrs(target, follow).await?;
        Ok(record.xattrs.0.into_keys().collect())
    }

    pub(super) async fn try_set_xattr(
        &self,
        tx: &mut Transaction,
        request: &SetXattr,
    ) -> Result<Answer, Error> {
        let SetXattr { target, name, value, .. } = request;
        let (inode, mut record) = tx.with_xattrs(target, request.follow).await?;
        if name.is_user() && !matches!(record.kind(), FileKind::File | FileKind::Directory) {
            return Err(Error::UserXattr { target: target.clone(), kind: record.kind() });
        }
        let old = record.xattrs.0.remove(name);
        if request.create && old.is_some() {
            return Err(Error::XattrExists { target: target.clone(), name: name.clone() });
        }
        if request.replace && old.is_none() {
            return Err(missing(target, name));
        }
        let len = name.as_bytes().len() + value.len();
        let key = keys::xattr(inode, name);
        let new = if record.xattrs.inline_bytes() + len <= Xattrs::INLINE_BYTES_MAX {
            if matches!(old, Some(XattrValue::Separate(_))) {
                tx.delete(key);
            }
            XattrValue::Inline(value.clone())
        } else {
            tx.put(key, &SeparateXattr(value.clone()));
            XattrValue::Separate(value.len() as u32)
        };
        record.xattrs.0.insert(name.clone(), new);
        let (count, bytes) = (record.xattrs.0.len(), record.xattrs.bytes());
        if count > XattrName::PER_INODE || bytes > XattrName::BYTES_PER_INODE {
            let (names, all) = (XattrName::PER_INODE, XattrName::BYTES_PER_INODE);
            let what = format!(
                "{target} would have {count} extended attributes with {bytes} bytes; at most \
                 {names} with {all} bytes are allowed"
            );
            return Err(Error::Invalid { what });
        }
        self.put_xattrs(tx, inode, record).await
    }

    pub(super) async fn try_remove_xattr(
        &self,
        tx: &mut Transaction,
        request: &RemoveXattr,
    ) -> Result<Answer, Error> {
        let RemoveXattr { target, name, .. } = request;
        let (inode, mut record) = tx.with_xattrs(target, request.follow).await?;
        let old = record.xattrs.0.remove(name).ok_or_else(|| missing(target, name))?;
        if let XattrValue::Separate(_) = old {
            tx.delete(keys::xattr(inode, name));
        }
        self.put_xattrs(tx, inode, record).await
    }

    async fn put_xattrs(
        &self,
        tx: &mut Transaction,
        inode: InodeId,
        mut record: Inode,
    ) -> Result<Answer, Error> {
        record.ctime = self.now();
        let times = match record.directory() {
            Some(_) => tx.peek(&keys::times(inode)).await?,
            None => None,
        };
        tx.put(keys::inode(inode), &record);
        Ok(Answer::Stat(tx.describe(inode, &record, times, tx.new_change()).await?))
    }
}

impl Transaction {
    /// Resolves the inode of an xattr call. The commit requires the inode to be unchanged, which
    /// serializes all changes of its attributes.
    async fn with_xattrs(
        &mut self,
        target: &Target,
        follow: bool,
    ) -> Result<(InodeId, Inode), Error> {
        let last = if follow { Last::Follow } else { Last::Keep };
        let inode = resolve(self, target, last).await?.inode()?;
        let record = self.get::<Inode>(&keys::inode(inode)).await?;
        Ok((inode, record.ok_or_else(|| gone(target, inode))?))
    }

    /// Adds extended attributes to a new inode: at most [`XattrName::PER_INODE`] keys.
    pub(super) fn add_xattrs(
        &mut self,
        inode: InodeId,
        record: &mut Inode,
        xattrs: &BTreeMap<XattrName, Bytes>,
    ) {
        let (named, separate) = Xattrs::split(xattrs);
        for (name, value) in separate {
            self.put(keys::xattr(inode, name), &SeparateXattr(value.clone()));
        }
        record.xattrs = named;
    }

    /// Deletes the values stored outside the inode record: at most [`XattrName::PER_INODE`] keys.
    pub(super) fn delete_xattrs(&mut self, inode: InodeId, record: &Inode) {
        for (name, _) in record.xattrs.separate() {
            self.delete(keys::xattr(inode, name));
        }
    }
}

fn no_value(key: &[u8]) -> Error {
    Error::Damaged { key: keys::show(key), what: "a name without its value" }
}

fn missing(target: &Target, name: &XattrName) -> Error {
    Error::NoXattr { target: target.clone(), name: name.clone() }
}
