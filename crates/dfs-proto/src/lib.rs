//! The wire contract: generated types, and their conversions to and from domain types.
//!
//! Input is parsed once, on receipt, by the functions of [`wire`], which name the invalid field.
//! Output is converted with `From`. Errors travel as [`Failure`] in the details of a gRPC status.
//! Chunk bytes are handled by [`bulk`].

pub mod bulk;
mod convert;
mod failure;
mod message_limits;
mod method;
mod order;
pub mod wire;

pub use failure::{Detail, Failure};
pub use message_limits::{FRAME_MESSAGE_LEN_MAX, MESSAGE_LEN_MAX};
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
