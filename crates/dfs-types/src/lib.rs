//! The vocabulary of dfs as types: ids, sizes, paths, checksums, seals, time, and the closed list
//! of error codes.
//!
//! Values are parsed once, on input, and trusted afterwards. The crate depends on no runtime, wire
//! format or Kubernetes, so that every other crate can depend on it.

mod build_cost;
mod causes;
mod checksum;
mod counted;
mod digest;
mod disk;
mod error_code;
mod file;
mod frame;
mod ids;
mod keys;
mod level;
mod node;
mod path;
mod planted_bug;
mod random;
mod redundancy;
mod replica;
mod scope;
mod scrub;
mod seal;
mod shares;
mod size;
mod slot;
mod target;
mod time;
mod write_quorum;
mod xattr;

pub use build_cost::{
    BUILD_WEIGHT_MAX, SMALL_BUILD_MAX, SMALL_BUILDS_MAX, build_weight, move_cost,
};
pub use causes::with_causes;
pub use checksum::{BLOCK_SIZE, Crc32c, Sha256, Sha256Hasher, block_count};
pub use counted::counted;
pub use digest::ReplicaDigest;
pub use disk::DiskState;
pub use error_code::ErrorCode;
pub use file::{Attributes, FileKind};
pub use frame::{ChunkSeal, Frame, FrameError};
pub use ids::{
    ChunkId, ClientId, ClusterId, CoordinatorId, DiskId, DiskNumber, FileSystemId, Generation,
    Incarnation, InodeId, LeaseEpoch, NodeId, ParseIdError, RegistrationNumber, RequestId,
    Revision, SessionId, Stamp,
};
pub use keys::{ClusterKeys, NodeSecret, OrderTerms, StreamOpening};
pub use level::Level;
pub use node::NodeState;
pub use path::{DfsPath, Name, PathError};
pub use planted_bug::PlantedBug;
pub use random::{OsRandom, Random, SeededRandom};
pub use redundancy::Redundancy;
pub use replica::{Part, ReplicaCondition, ReplicaHealth, ReplicaRef, ReplicaVerdict};
pub use scope::{Access, Denied, Scope};
pub use scrub::{DiskScrub, WholePass};
pub use seal::{ReadProof, Receipt, Seal, SealKey};
pub use shares::fair_shares;
pub use size::{ByteSize, CHUNK_SIZE_DEFAULT, CHUNK_SIZE_MAX, CHUNK_SIZE_MIN, ParseSizeError};
pub use slot::Slot;
pub use target::{Change, Precondition, Target};
pub use time::{Clock, FileTime, SystemClock, Timestamp};
pub use write_quorum::Replication;
pub use xattr::{XattrError, XattrName};
