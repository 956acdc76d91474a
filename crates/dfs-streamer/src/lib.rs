//! Transfer of one chunk over one link, from clients and between datanodes.
//!
//! ```text
//!  FrameSource ─ frames ─► send_chunk ═ Link ═► Session ─► Sink
//!                              ▲                  │ each frame at once, before it is written
//!                              └────── acks ──────┤
//!                                                 └─► send_chunk ═ Link ═► Session …
//! ```
//!
//! A sender may have a *window* of bytes in flight that the whole set of nodes has not received
//! yet, which is the back-pressure. A broken stream attaches to its *session* again and continues
//! where the receiver stopped. Every receiver verifies each block against the checksum that the
//! first writer computed, and nothing is acknowledged as durable without a receipt of each node.

mod ack;
mod downstream;
mod error;
pub mod grpc;
mod sender;
mod session;
mod source;

pub use ack::{Ack, Dropped, Outcome};
pub use downstream::Downstream;
pub use error::Error;
pub use sender::{Acks, Attachment, Link, SenderConfig, send_chunk};
pub use session::{Session, SessionConfig, Sink};
pub use source::{ChunkBytes, FrameSource, Hashing, Reopening, chunk_source};
