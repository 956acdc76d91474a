//! The binary form of stored records and tokens: a version byte, then fields one after the other.
//!
//! Numbers that are mostly small are LEB128, ids are of fixed width, byte strings carry their
//! length. Reading never trusts a length it was given and never panics.

use dfs_types::{
    Attributes, ChunkId, ChunkSeal, Crc32c, FileKind, FileTime, InodeId, Sha256, Timestamp,
};

use crate::Error;
use crate::keys;

/// Something with a stored form.
pub(crate) trait Record: Sized {
    /// Its newest format, in which it is written.
    const FORMAT: u8 = 1;

    /// Appends the fields.
    fn write(&self, out: &mut Writer);

    /// Reads the fields; `None` when they are no such thing.
    fn read(input: &mut Reader<'_>) -> Option<Self>;

    /// Reads the fields of an older format; `None` for one that there never was.
    fn read_older(_format: u8, _input: &mut Reader<'_>) -> Option<Self> {
        None
    }

    /// The stored form.
    fn encode(&self) -> Vec<u8> {
        let mut out = Writer(vec![Self::FORMAT]);
        self.write(&mut out);
        out.0
    }

    /// Reads the stored form, which `key` has.
    fn decode(key: &[u8], bytes: &[u8]) -> Result<Self, Error> {
        let damaged =
            || Error::Damaged { key: keys::show(key), what: "a record that cannot be read" };
        let (format, fields) = bytes.split_first().ok_or_else(damaged)?;
        if *format > Self::FORMAT {
            let key = keys::show(key);
            return Err(Error::NewerRecord { key, found: *format, supported: Self::FORMAT });
        }
        let mut input = Reader(fields);
        let record = if *format == Self::FORMAT {
            Self::read(&mut input)
        } else {
            Self::read_older(*format, &mut input)
        };
        record.filter(|_| input.0.is_empty()).ok_or_else(damaged)
    }
}

/// Appends fields.
#[derive(Default)]
pub(crate) struct Writer(pub(crate) Vec<u8>);

impl Writer {
    pub(crate) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(crate) fn bool(&mut self, value: bool) {
        self.u8(u8::from(value));
    }

    pub(crate) fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.u8(value as u8);
    }

    pub(crate) fn fixed(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.fixed(bytes);
    }

    pub(crate) fn inode(&mut self, inode: InodeId) {
        self.number(inode.0);
    }

    pub(crate) fn time(&mut self, time: Timestamp) {
        self.number(time.millis());
    }

    pub(crate) fn file_time(&mut self, time: FileTime) {
        self.fixed(&time.seconds().to_be_bytes());
        self.number(u64::from(time.nanos()));
    }

    pub(crate) fn kind(&mut self, kind: FileKind) {
        self.u8(match kind {
            FileKind::File => 0,
            FileKind::Directory => 1,
            FileKind::Symlink => 2,
        });
    }

    pub(crate) fn attributes(&mut self, attributes: &Attributes) {
        self.number(u64::from(attributes.mode));
        self.number(u64::from(attributes.uid));
        self.number(u64::from(attributes.gid));
        self.file_time(attributes.mtime);
    }

    pub(crate) fn chunk_seal(&mut self, seal: &ChunkSeal) {
        self.number(seal.length);
        self.fixed(&seal.crc32c.0.to_be_bytes());
        self.fixed(&seal.sha256.0);
    }

    pub(crate) fn list<T>(&mut self, items: &[T], mut write: impl FnMut(&mut Self, &T)) {
        self.number(items.len() as u64);
        for item in items {
            write(self, item);
        }
    }

    pub(crate) fn option<T>(&mut self, value: Option<&T>, write: impl FnOnce(&mut Self, &T)) {
        self.bool(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
    }
}

/// Takes fields from the front.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*bytes)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    pub(crate) fn bool(&mut self) -> Option<bool> {
        match self.u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    pub(crate) fn number(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                return None;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.number()?.try_into().ok()
    }

    pub(crate) fn wide(&mut self) -> Option<u128> {
        self.array().map(u128::from_be_bytes)
    }

    pub(crate) fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.number()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }

    pub(crate) fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?.to_vec()).ok()
    }

    pub(crate) fn inode(&mut self) -> Option<InodeId> {
        self.number().map(InodeId)
    }

    pub(crate) fn chunk(&mut self) -> Option<ChunkId> {
        self.wide().map(ChunkId)
    }

    pub(crate) fn time(&mut self) -> Option<Timestamp> {
        self.number().map(Timestamp::from_millis)
    }

    pub(crate) fn file_time(&mut self) -> Option<FileTime> {
        let seconds = i64::from_be_bytes(self.array()?);
        FileTime::new(seconds, self.u32()?)
    }

    pub(crate) fn kind(&mut self) -> Option<FileKind> {
        match self.u8()? {
            0 => Some(FileKind::File),
            1 => Some(FileKind::Directory),
            2 => Some(FileKind::Symlink),
            _ => None,
        }
    }

    pub(crate) fn attributes(&mut self) -> Option<Attributes> {
        Some(Attributes {
            mode: self.u32()?,
            uid: self.u32()?,
            gid: self.u32()?,
            mtime: self.file_time()?,
        })
    }

    pub(crate) fn chunk_seal(&mut self) -> Option<ChunkSeal> {
        Some(ChunkSeal {
            length: self.number()?,
            crc32c: Crc32c(u32::from_be_bytes(self.array()?)),
            sha256: Sha256(self.array()?),
        })
    }

    pub(crate) fn list<T>(&mut self, read: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        // Each item takes a byte at least, so that a wrong count cannot allocate much.
        let count = usize::try_from(self.number()?).ok().filter(|count| *count <= self.0.len())?;
        let mut read = read;
        (0..count).map(|_| read(self)).collect()
    }

    #[expect(clippy::option_option, reason = "one says whether it can be read, one is the value")]
    pub(crate) fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Option<T>,
    ) -> Option<Option<T>> {
        if self.bool()? { read(self).map(Some) } else { Some(None) }
    }
}
