//! Decisions about a toy Kubernetes.

mod cases;
mod property;
pub(crate) mod world;
