//! Extended attributes of an inode, as its record names them.

use std::collections::BTreeMap;

use bytes::Bytes;
use dfs_types::XattrName;

use crate::codec::{Reader, Writer};

/// The extended attributes of an inode, by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Xattrs(pub(crate) BTreeMap<XattrName, XattrValue>);

/// The value of an extended attribute, or where it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum XattrValue {
    /// In the record of the inode.
    Inline(Bytes),
    /// In a record of its own, with this many bytes.
    Separate(u32),
}

impl Xattrs {
    pub(crate) fn write(&self, out: &mut Writer) {
        out.number(self.0.len() as u64);
        for (name, value) in &self.0 {
            out.bytes(name.as_bytes());
            // The lowest bit says where the value lies.
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
