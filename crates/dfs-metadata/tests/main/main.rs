//! The namespace as callers see it, who call at the same time.
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests panic as tests do.

mod histories;
