//! The binary form of stored records and tokens: a format byte, then the fields in order.
//!
//! Mostly small numbers are LEB128, ids have a fixed width, and byte strings carry their length.
//! Reading never trusts a length and never panics.
//!
//! Fields that usually have their default are [optional](Writer::optional): a mask tells which of
//! them follow. A level can thus add a field without another format, and without rewriting stored
//! records.

use dfs_types::{
    Attributes, ChunkId, ChunkSeal, Crc32c, FileKind, FileTime, InodeId, Level, Sha256, Timestamp,
};

use crate::error::Unknown;
use crate::{Error, keys};

/// The newest format of a record, and the only one so far.
pub(crate) const FORMAT: u8 = 1;

/// A value with a stored form.
pub(crate) trait Record: Sized {
    /// Optional fields. A record with any begins with their mask.
    const OPTIONAL: &'static [Field] = &[];

    /// Appends the fields that the level of `out` has.
    fn write(&self, out: &mut Writer);

    /// Reads the fields; `None` when they are damaged.
    fn read(input: &mut Reader<'_>) -> Option<Self>;

    /// Returns the form stored in a cluster of this write level.
    fn encode(&self, level: Level) -> Vec<u8> {
        let mut out = Writer { bytes: vec![FORMAT], level };
        self.write(&mut out);
        out.bytes
    }

    /// Decodes the stored form under `key`. [`Error::NewerRecord`] when it has a format or a field
    /// that no level up to `newest` has.
    fn decode(key: &[u8], bytes: &[u8], newest: Level) -> Result<Self, Error> {
        let damaged = || Error::Damaged { key: keys::show(key), what: "an unreadable record" };
        let newer = |unknown| Error::NewerRecord { key: keys::show(key), unknown };
        let (format, fields) = bytes.split_first().ok_or_else(damaged)?;
        match *format {
            FORMAT => {}
            format if format > FORMAT => return Err(newer(Unknown::Format(format))),
            _ => return Err(damaged()),
        }
        let mut input = Reader { bytes: fields, newest, unknown_field: None };
        let record = Self::read(&mut input);
        if let Some(bit) = input.unknown_field {
            return Err(newer(Unknown::Field(bit)));
        }
        record.filter(|_| input.bytes.is_empty()).ok_or_else(damaged)
    }
}

/// An optional field: its bit in the mask, and the level that added it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field {
    bit: u32,
    since: Level,
}

impl Field {
    /// Returns a field of all levels.
    pub(crate) const fn new(bit: u32) -> Self {
        Self::since(bit, Level::FIRST)
    }

    /// Returns a field added by `level`. Its bit is greater than those of all earlier fields.
    pub(crate) const fn since(bit: u32, level: Level) -> Self {
        assert!(bit < u64::BITS, "a mask has 64 bits");
        Self { bit, since: level }
    }

    #[cfg(test)]
    pub(crate) fn is_at(self, bit: u32) -> bool {
        self.bit == bit
    }

    fn mask(self) -> u64 {
        1 << self.bit
    }
}

/// Set in every mask that is written at [`Level::REHEARSAL`].
const REHEARSAL: Field = Field::since(63, Level::REHEARSAL);

/// Appends fields.
pub(crate) struct Writer {
    bytes: Vec<u8>,
    level: Level,
}

impl Writer {
    pub(crate) fn u8(&mut self, value: u8) {
        self.bytes.push(value);
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
        self.bytes.extend_from_slice(bytes);
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
            FileKind::Fifo => 3,
            FileKind::Socket => 4,
            FileKind::CharacterDevice => 5,
            FileKind::BlockDevice => 6,
        });
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.number(u64::from(value));
    }

    /// Appends a number that is mostly near 0, on either side.
    pub(crate) fn signed(&mut self, value: i64) {
        self.number(((value << 1) ^ (value >> 63)) as u64);
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

    /// Appends the mask of the optional fields that are set, then those fields. A field with its
    /// default takes no byte.
    pub(crate) fn optional(&mut self, collect: impl FnOnce(&mut OptionalFields)) {
        let fields = Self { bytes: Vec::new(), level: self.level };
        let mut optional = OptionalFields { mask: 0, fields };
        collect(&mut optional);
        optional.flag(REHEARSAL, true);
        self.number(optional.mask);
        self.fixed(&optional.fields.bytes);
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

/// Collects the optional fields of a record, in the order of their bits.
pub(crate) struct OptionalFields {
    mask: u64,
    fields: Writer,
}

impl OptionalFields {
    /// Adds a field unless it has its default. Omitted at levels that lack the field: what needs it
    /// is refused below the level that added it.
    pub(crate) fn put(&mut self, field: Field, is_set: bool, write: impl FnOnce(&mut Writer)) {
        debug_assert!(self.mask < field.mask(), "fields are in the order of their bits");
        if is_set && self.fields.level >= field.since {
            self.mask |= field.mask();
            write(&mut self.fields);
        }
    }

    /// Adds a field if it has a value.
    pub(crate) fn put_some<T>(
        &mut self,
        field: Field,
        value: Option<T>,
        write: impl FnOnce(&mut Writer, T),
    ) {
        match value {
            Some(value) => self.put(field, true, |out| write(out, value)),
            None => self.put(field, false, |_| {}),
        }
    }

    /// Adds a field without a value: only its bit.
    pub(crate) fn flag(&mut self, field: Field, is_set: bool) {
        self.put(field, is_set, |_| {});
    }
}

/// Takes fields from the front.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    newest: Level,
    /// Bit of an optional field unknown at all levels up to `newest`.
    unknown_field: Option<u32>,
}

/// The optional fields present in a record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Present(u64);

impl Present {
    /// Reads a field, in the order of the bits; the inner `None` means its default.
    #[expect(
        clippy::option_option,
        reason = "the outer one is for damage, the inner one for the default"
    )]
    pub(crate) fn read<'a, T>(
        self,
        input: &mut Reader<'a>,
        field: Field,
        read: impl FnOnce(&mut Reader<'a>) -> Option<T>,
    ) -> Option<Option<T>> {
        if self.flag(field) { read(input).map(Some) } else { Some(None) }
    }

    /// Reads a field, or returns its default.
    pub(crate) fn read_or<'a, T>(
        self,
        input: &mut Reader<'a>,
        field: Field,
        default: T,
        read: impl FnOnce(&mut Reader<'a>) -> Option<T>,
    ) -> Option<T> {
        if self.flag(field) { read(input) } else { Some(default) }
    }

    /// Returns whether one of these fields is present.
    pub(crate) fn any(self, fields: &[Field]) -> bool {
        fields.iter().any(|field| self.flag(*field))
    }

    /// Returns whether the bit of a field is set.
    pub(crate) fn flag(self, field: Field) -> bool {
        self.0 & field.mask() != 0
    }
}

impl<'a> Reader<'a> {
    /// Reads the mask of optional fields, given the known ones. Fails on any other, which makes the
    /// record one of a newer release and not a damaged one.
    pub(crate) fn optional(&mut self, known: &[Field]) -> Option<Present> {
        let mask = self.number()?;
        let known = known.iter().chain([&REHEARSAL]);
        let readable = known.filter(|field| field.since <= self.newest);
        let unknown = mask & !readable.fold(0, |mask, field| mask | field.mask());
        if unknown != 0 {
            self.unknown_field = Some(unknown.trailing_zeros());
            return None;
        }
        Some(Present(mask))
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.bytes.split_first_chunk()?;
        self.bytes = rest;
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
        self.take(len)
    }

    /// Takes that many bytes.
    pub(crate) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.bytes.split_at_checked(len)?;
        self.bytes = rest;
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
            3 => Some(FileKind::Fifo),
            4 => Some(FileKind::Socket),
            5 => Some(FileKind::CharacterDevice),
            6 => Some(FileKind::BlockDevice),
            _ => None,
        }
    }

    pub(crate) fn signed(&mut self) -> Option<i64> {
        self.number().map(|value| (value >> 1) as i64 ^ -((value & 1) as i64))
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
        // Each item takes at least a byte, so that a wrong count cannot allocate much.
        let count =
            usize::try_from(self.number()?).ok().filter(|count| *count <= self.bytes.len())?;
        let mut read = read;
        (0..count).map(|_| read(self)).collect()
    }

    #[expect(
        clippy::option_option,
        reason = "the outer one is for damage, the inner one for the default"
    )]
    pub(crate) fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Option<T>,
    ) -> Option<Option<T>> {
        if self.bool()? { read(self).map(Some) } else { Some(None) }
    }
}
