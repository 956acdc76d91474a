//! Maximum sizes of messages on the wire.

use dfs_types::Frame;

/// Bytes per message at most, on either side. The largest is a page of 1,000 directory entries with
/// the longest names and symlink targets.
pub const MESSAGE_LEN_MAX: usize = 8 << 20;

/// Bytes per message with a chunk frame at most: its data, and room for the other fields.
pub const FRAME_MESSAGE_LEN_MAX: usize = Frame::DATA_MAX + (64 << 10);
