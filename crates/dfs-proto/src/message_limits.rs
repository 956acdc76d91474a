//! Maximum sizes of messages on the wire.

use dfs_types::Frame;

/// Maximum length of a message in bytes, on either side. The largest is a page of 1,000 directory
/// entries with the longest names and symlink targets.
pub const MESSAGE_LEN_MAX: usize = 8 << 20;

/// Maximum length of a message with a chunk frame in bytes: its data, and room for the other
/// fields.
pub const FRAME_MESSAGE_LEN_MAX: usize = Frame::DATA_MAX + (64 << 10);
