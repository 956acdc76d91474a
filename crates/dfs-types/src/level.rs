//! Write levels.

use std::fmt;

/// A write level: one format for each kind of record, token and disk.
///
/// A release reads all levels up to its own and writes the level of its cluster, which is raised
/// only once every member runs a release that reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Level(pub u32);

impl Level {
    /// The level that every release reads.
    pub const FIRST: Self = Self(1);
    /// The newest level that this release reads.
    pub const NEWEST: Self = Self::FIRST;
    /// The level after the newest, with which one build acts as two releases in a test: the members
    /// of the newer release are started with it. It has the formats of [`Self::NEWEST`] and one
    /// more optional field in every record that has any, so that nothing written at it passes for a
    /// record of an earlier level. No release reads it.
    pub const REHEARSAL: Self = Self(Self::NEWEST.0 + 1);
}

impl Default for Level {
    /// Returns the newest level.
    fn default() -> Self {
        Self::NEWEST
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
