//! Chunks: `k/`.

use dfs_types::{ChunkSeal, Crc32c, DiskNumber, Generation, InodeId, Part, Redundancy, Stamp};

use crate::codec::{Field, Reader, Record, Writer};

/// A chunk and its replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Length and checksums.
    pub seal: ChunkSeal,
    /// Redundancy of the chunk.
    pub redundancy: Redundancy,
    /// Number of the policy under which it was written; 0 for the cluster's default.
    pub policy: u32,
    /// Replicas, in any order, including those waiting for deletion.
    pub replicas: Vec<Replica>,
    /// Raised with each change of the replicas.
    pub generation: Generation,
    /// Extents that refer to it; 0 for a tombstone, whose replicas are all to be deleted.
    pub references: u32,
    /// The file whose upload wrote it.
    pub inode: InodeId,
}

/// A replica of a chunk, or of one of its fragments, on a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Replica {
    /// The disk.
    pub disk: DiskNumber,
    /// Part of the chunk: [`Part::WHOLE`], or the number of a fragment, data before parity.
    pub part: Part,
    /// Distinguishes it from other replicas of the part on its node.
    pub stamp: Stamp,
    /// State of the replica, as far as known.
    pub mark: ReplicaMark,
    /// Number of the verdict that set the mark; 0 before the first.
    pub verdict: u64,
}

/// Known state of a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ReplicaMark {
    /// No fault is known.
    Sound,
    /// Some of its blocks fail their checksums.
    Bad,
    /// Missing on its node.
    Gone,
    /// To be deleted. Final for its stamp.
    Doomed,
}

impl Replica {
    /// Creates the entry of a replica just written.
    pub fn new(disk: DiskNumber, part: Part, stamp: Stamp) -> Self {
        Self { disk, part, stamp, mark: ReplicaMark::Sound, verdict: 0 }
    }

    /// Returns whether no fault of it is known.
    pub fn is_sound(&self) -> bool {
        self.mark == ReplicaMark::Sound
    }

    /// Returns whether it is waiting for deletion.
    pub fn is_doomed(&self) -> bool {
        self.mark == ReplicaMark::Doomed
    }
}

/// Redundancy of most chunks; takes no byte in a record.
const USUAL: Redundancy = Redundancy::Replicated { copies: 3 };

impl Chunk {
    /// Returns whether nothing refers to it any more.
    pub fn is_tombstone(&self) -> bool {
        self.references == 0
    }

    /// Returns the replicas without a known fault.
    pub fn sound_replicas(&self) -> impl Iterator<Item = &Replica> {
        self.replicas.iter().filter(|replica| replica.is_sound())
    }

    /// Returns whether the record itself leaves nothing to repair: its sound replicas are exactly
    /// those its redundancy asks for, and none is bad or gone. Placement and the state of nodes are
    /// not considered.
    pub fn is_at_rest(&self) -> bool {
        let is_damaged =
            |replica: &Replica| matches!(replica.mark, ReplicaMark::Bad | ReplicaMark::Gone);
        self.is_tombstone()
            || self.redundancy.is_met_by(self.sound_replicas().map(|replica| replica.part))
                && !self.replicas.iter().any(is_damaged)
    }

    /// Returns whether replicas are waiting for deletion, or the record for removal.
    pub fn awaits_deletion(&self) -> bool {
        self.is_tombstone() || self.replicas.iter().any(Replica::is_doomed)
    }
}

/// Marks by their stored number.
const MARKS: [ReplicaMark; 4] =
    [ReplicaMark::Sound, ReplicaMark::Bad, ReplicaMark::Gone, ReplicaMark::Doomed];

const PART: Field = Field::new(0);
const MARK: Field = Field::new(1);
const VERDICT: Field = Field::new(2);

impl Replica {
    const OPTIONAL: &'static [Field] = &[PART, MARK, VERDICT];

    fn write(&self, out: &mut Writer) {
        let Self { disk, part, stamp, mark, verdict } = *self;
        out.optional(|fields| {
            fields.put(PART, part != Part::WHOLE, |out| out.u8(part.0));
            fields.put(MARK, mark != ReplicaMark::Sound, |out| out.u8(mark as u8));
            fields.put(VERDICT, verdict != 0, |out| out.number(verdict));
        });
        out.number(u64::from(disk.0));
        out.number(stamp.0);
    }

    fn read(input: &mut Reader<'_>) -> Option<Self> {
        let optional = input.optional(Self::OPTIONAL)?;
        let read_mark = |input: &mut Reader<'_>| MARKS.get(usize::from(input.u8()?)).copied();
        Some(Self {
            part: optional.read(input, PART, Reader::u8)?.map_or(Part::WHOLE, Part),
            mark: optional.read(input, MARK, read_mark)?.unwrap_or(ReplicaMark::Sound),
            verdict: optional.read(input, VERDICT, Reader::number)?.unwrap_or_default(),
            disk: DiskNumber(input.u32()?),
            stamp: Stamp(input.number()?),
        })
    }
}

fn write_redundancy(redundancy: &Redundancy, out: &mut Writer) {
    match redundancy {
        Redundancy::Replicated { copies } => {
            out.u8(0);
            out.u8(*copies);
        }
        Redundancy::Erasure { codec, k, m, blocks, crcs } => {
            out.u8(1);
            out.u8(*codec);
            out.u8(*k);
            out.u8(*m);
            out.number(u64::from(*blocks));
            out.list(crcs, |out, crc| out.fixed(&crc.0.to_be_bytes()));
        }
    }
}

fn read_redundancy(input: &mut Reader<'_>) -> Option<Redundancy> {
    match input.u8()? {
        0 => Some(Redundancy::Replicated { copies: input.u8()? }),
        1 => {
            let (codec, k, m) = (input.u8()?, input.u8()?, input.u8()?);
            let blocks = input.u32()?;
            let crc = |input: &mut Reader<'_>| {
                input.array().map(|bytes| Crc32c(u32::from_be_bytes(bytes)))
            };
            let crcs = input.list(crc)?;
            let is_whole = crcs.len() == usize::from(k) + usize::from(m);
            is_whole.then_some(Redundancy::Erasure { codec, k, m, blocks, crcs })
        }
        _ => None,
    }
}

const REDUNDANCY: Field = Field::new(0);
const POLICY: Field = Field::new(1);
const GENERATION: Field = Field::new(2);
const REFERENCES: Field = Field::new(3);

impl Record for Chunk {
    const OPTIONAL: &'static [Field] = &[REDUNDANCY, POLICY, GENERATION, REFERENCES];

    fn write(&self, out: &mut Writer) {
        let Self { seal, redundancy, policy, replicas, generation, references, inode } = self;
        out.optional(|fields| {
            let is_unusual = *redundancy != USUAL;
            fields.put(REDUNDANCY, is_unusual, |out| write_redundancy(redundancy, out));
            fields.put(POLICY, *policy != 0, |out| out.number(u64::from(*policy)));
            let is_changed = *generation != Generation::FIRST;
            fields.put(GENERATION, is_changed, |out| out.number(generation.0));
            fields.put(REFERENCES, *references != 1, |out| out.number(u64::from(*references)));
        });
        out.chunk_seal(seal);
        out.list(replicas, |out, replica| replica.write(out));
        out.inode(*inode);
    }

    fn read(input: &mut Reader<'_>) -> Option<Self> {
        let optional = input.optional(Self::OPTIONAL)?;
        let redundancy = optional.read(input, REDUNDANCY, read_redundancy)?;
        let policy = optional.read(input, POLICY, Reader::u32)?;
        let generation = optional.read(input, GENERATION, Reader::number)?;
        let references = optional.read(input, REFERENCES, Reader::u32)?;
        Some(Self {
            redundancy: redundancy.unwrap_or(USUAL),
            policy: policy.unwrap_or(0),
            generation: generation.map_or(Generation::FIRST, Generation),
            references: references.unwrap_or(1),
            seal: input.chunk_seal()?,
            replicas: input.list(Replica::read)?,
            inode: input.inode()?,
        })
    }
}
