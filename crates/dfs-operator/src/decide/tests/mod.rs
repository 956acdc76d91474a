//! Decisions about a toy Kubernetes.

mod cases;
mod conventions;
mod diagnose;
mod edits;
mod property;
mod rules;
mod starts;
mod versions;
pub(crate) mod world;
