//! Extended attributes in an inode record, and the larger ones: `y/`.

use std::collections::BTreeMap;

use bytes::Bytes;
use dfs_types::XattrName;

use crate::codec::{Reader, Record, Writer};

/// The extended attributes of an inode, by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Xattrs(pub(crate) BTreeMap<XattrName, XattrValue>);

/// The value of an extended attribute, or where it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum XattrValue {
    /// In the inode record.
    Inline(Bytes),
    /// In a separate record, with this length in bytes.
    Separate(u32),
}

impl XattrValue {
    /// Returns the length of the value in bytes.
    fn len(&self) -> usize {
        match self {
            Self::Inline(value) => value.len(),
            Self::Separate(len) => *len as usize,
        }
    }
}

impl Xattrs {
    /// Splits the attributes of a new inode into those stored in its record, in byte order of their
    /// names while they fit, and those with separate records.
    pub(crate) fn split(given: &BTreeMap<XattrName, Bytes>) -> (Self, Vec<(&XattrName, &Bytes)>) {
        let (mut xattrs, mut separate, mut inline_bytes) = (Self::default(), Vec::new(), 0);
        for (name, value) in given {
            let len = name.as_bytes().len() + value.len();
            let place = if inline_bytes + len <= Self::INLINE_BYTES_MAX {
                inline_bytes += len;
                XattrValue::Inline(value.clone())
            } else {
                separate.push((name, value));
                XattrValue::Separate(value.len() as u32)
            };
            xattrs.0.insert(name.clone(), place);
        }
        (xattrs, separate)
    }

    /// Maximum number of bytes of names and values in the inode record, so that listings stay
    /// cheap.
    pub(crate) const INLINE_BYTES_MAX: usize = 1 << 10;

    /// Returns the names of those with a separate record, with the lengths of their values.
    pub(crate) fn separate(&self) -> impl Iterator<Item = (&XattrName, u32)> {
        self.0.iter().filter_map(|(name, value)| match value {
            XattrValue::Inline(_) => None,
            XattrValue::Separate(len) => Some((name, *len)),
        })
    }

    /// Returns the bytes of all names and values.
    pub(crate) fn bytes(&self) -> usize {
        self.0.iter().map(|(name, value)| name.as_bytes().len() + value.len()).sum()
    }

    /// Returns the bytes of names and values in the inode record.
    pub(crate) fn inline_bytes(&self) -> usize {
        let inline = self.0.iter().filter(|(_, value)| matches!(value, XattrValue::Inline(_)));
        inline.map(|(name, value)| name.as_bytes().len() + value.len()).sum()
    }

    pub(crate) fn write(&self, out: &mut Writer) {
        out.number(self.0.len() as u64);
        for (name, value) in &self.0 {
            out.bytes(name.as_bytes());
            // The lowest bit says where the value is stored.
            match value {
                XattrValue::Inline(value) => {
                    out.number((value.len() as u64) << 1);
                    out.fixed(value);
                }
                XattrValue::Separate(len) => out.number(u64::from(*len) << 1 | 1),
            }
        }
    }

    pub(crate) fn read(input: &mut Reader<'_>) -> Option<Self> {
        let list = input.list(|input| {
            let name = XattrName::new(input.bytes()?.to_vec()).ok()?;
            let number = input.number()?;
            let len = u32::try_from(number >> 1).ok()?;
            let value = if number & 1 == 0 {
                XattrValue::Inline(Bytes::copy_from_slice(input.take(len as usize)?))
            } else {
                XattrValue::Separate(len)
            };
            Some((name, value))
        })?;
        let count = list.len();
        let map: BTreeMap<_, _> = list.into_iter().collect();
        (map.len() == count).then_some(Self(map))
    }
}

/// `y/`: an extended attribute too large for the inode record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SeparateXattr(pub(crate) Bytes);

impl Record for SeparateXattr {
    fn write(&self, out: &mut Writer) {
        out.bytes(&self.0);
    }

    fn read(input: &mut Reader<'_>) -> Option<Self> {
        Some(Self(Bytes::copy_from_slice(input.bytes()?)))
    }
}
