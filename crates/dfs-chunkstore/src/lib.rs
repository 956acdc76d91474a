//! The chunk store of a datanode: the contract ([`ChunkStore`]), a store on disks ([`DiskStore`]),
//! one in memory ([`MemoryStore`]) and the suite that every store must pass ([`conformance`]).
//!
//! Disks are accessed through [`Fs`], blocking work runs on a [`Pool`]; with [`sim::SimFs`] and
//! [`Pool::inline`] everything is determined by a seed, including crashes. The crate does not
//! depend on the network.

pub mod conformance;
mod disk;
mod error;
mod fs;
mod identity;
mod memory;
mod scrub;
pub mod sim;
mod store;
mod thread_pool;

pub use disk::{Config, DiskConfig, DiskStore};
pub use error::{OpenError, StoreError};
pub use fs::{File, Fs, FsCall, FsHook, FsLock, HookedFs, Opening, OsFs, Space};
pub use identity::{Identity, IdentityStore, Registration};
pub use memory::MemoryStore;
pub use scrub::{FullSpeed, ReadPace, ScrubProgress, ScrubStore};
pub use store::{
    Blocks, ChunkHeader, ChunkSeal, ChunkStore, ChunkWriter, DamagedHead, DiskUsage, SealedChunk,
};
pub use thread_pool::{JobPanicked, JobPlace, Pool, Running, Stalls};
