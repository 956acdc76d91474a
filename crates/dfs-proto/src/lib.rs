//! The wire contract: generated types, and their conversions to and from domain types.
//!
//! What comes off the wire is parsed once, on receipt, with the functions of [`wire`], each of
//! which names the field that is wrong. What goes out is made with `From`. Errors travel as
//! [`Failure`], in the details of a gRPC status. Chunk bytes take the way of [`bulk`].

pub mod bulk;
mod convert;
mod failure;
mod method;
mod order;
pub mod wire;

pub use failure::{Detail, Failure};
pub use method::Method;
pub use order::{Issued, OrderParties, Ordered, Unsealed, open_order, seal_order};
pub use wire::FieldError;

/// Generated from `proto/dfs/v1`.
#[allow(clippy::all, clippy::pedantic, missing_docs, unreachable_pub)]
pub mod v1 {
    include!("generated/dfs.v1.rs");
}

/// The compiled contract, for gRPC reflection.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!("generated/dfs.v1.bin");

/// Bytes that one message may have, on either side. A page of 1,000 directory entries with the
/// longest names and symlink targets is the largest there is.
pub const MESSAGE_LEN_MAX: usize = 8 << 20;

/// Bytes that one message with a chunk frame may have: its data, and room for what comes with it.
pub const FRAME_MESSAGE_LEN_MAX: usize = dfs_types::Frame::DATA_MAX + (64 << 10);
