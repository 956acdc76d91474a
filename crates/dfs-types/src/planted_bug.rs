//! Bugs that a simulation plants on purpose, to prove that it would find them.

use std::sync::atomic::{AtomicU8, Ordering};

/// A bug that can be planted in this process. None is, and none can be, without the feature
/// `planted-bugs`, which no release enables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum PlantedBug {
    /// Small chunks are acknowledged before they are synced.
    AckBeforeFsync = 1,
    /// A replica without a record counts as an orphan even if a commit may still name it.
    GcWithoutProof,
    /// Replicas are swapped although the record has changed since it was read.
    SwapWithoutCompare,
    /// A replica counts as read end to end although it was not.
    DoomWithoutRead,
    /// A replica is adopted without being made durable.
    AdoptWithoutFsync,
    /// A verdict replaces a later one.
    VerdictOutOfOrder,
    /// All replicas of a chunk on a node have the same stamp.
    RepeatedStamp,
    /// A rename is acknowledged without taking effect.
    LostRename,
}

/// The bug planted in this process; 0 for none.
static PLANTED: AtomicU8 = AtomicU8::new(0);

impl PlantedBug {
    /// All bugs.
    pub const ALL: [Self; 8] = [
        Self::AckBeforeFsync,
        Self::GcWithoutProof,
        Self::SwapWithoutCompare,
        Self::DoomWithoutRead,
        Self::AdoptWithoutFsync,
        Self::VerdictOutOfOrder,
        Self::RepeatedStamp,
        Self::LostRename,
    ];

    /// Returns its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::AckBeforeFsync => "ack-before-fsync",
            Self::GcWithoutProof => "gc-without-proof",
            Self::SwapWithoutCompare => "swap-without-compare",
            Self::DoomWithoutRead => "doom-without-read",
            Self::AdoptWithoutFsync => "adopt-without-fsync",
            Self::VerdictOutOfOrder => "verdict-out-of-order",
            Self::RepeatedStamp => "repeated-stamp",
            Self::LostRename => "lost-rename",
        }
    }

    /// Returns whether the bug is planted.
    #[inline]
    pub fn is_planted(self) -> bool {
        cfg!(feature = "planted-bugs") && PLANTED.load(Ordering::Relaxed) == self as u8
    }

    /// Plants the bug in this process, in place of any other.
    #[cfg(feature = "planted-bugs")]
    pub fn plant(self) {
        PLANTED.store(self as u8, Ordering::Relaxed);
    }
}
