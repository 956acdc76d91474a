//! Stored records: the values under the keys of [`crate::keys`].

pub(crate) mod answer;
pub(crate) mod chunk;
pub(crate) mod entry;
pub(crate) mod extent;
pub(crate) mod format;
pub(crate) mod inode;
pub(crate) mod node;
pub(crate) mod policy;
pub(crate) mod setting;
pub(crate) mod stat;
pub(crate) mod unlinked;
pub(crate) mod unneeded;
pub(crate) mod upload;
pub(crate) mod work;
pub(crate) mod worker;
pub(crate) mod xattrs;

#[cfg(test)]
mod tests;
