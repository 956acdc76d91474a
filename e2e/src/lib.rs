//! Tests of dfs on a real Kubernetes.
//!
//! ```text
//!  tests/e01_….rs ── Case ──┬─ Operator    helm, as users install it
//!                           ├─ Cluster     a DfsCluster: applied, waited for, asked
//!                           ├─ ClientPod   the command line in a pod
//!                           ├─ Workload    writes and reads with checksums all the while
//!                           └─ Nodes       power off, network unplugged
//! ```
//!
//! Each case has its own namespace, which enforces the profile "restricted", and leaves nothing
//! behind. A failed case leaves objects, events and logs in a directory. Nothing is done in a
//! Kubernetes cluster that was not named explicitly: see [`Environment`].

mod artifacts;
mod audit;
mod case;
mod client_pod;
mod cluster;
mod environment;
mod manifests;
mod nodes;
mod objects;
mod operator;
mod port_forward;
mod program;
mod rollout;
mod wait;
mod workload;

pub use audit::{Audit, Request};
pub use case::{Case, case};
pub use client_pod::ClientPod;
pub use cluster::{Cluster, minimal};
pub use environment::{Environment, VERSION};
pub use nodes::Nodes;
pub use objects::Object;
pub use operator::Operator;
pub use port_forward::PortForward;
pub use program::{Ended, Program};
pub use rollout::{Rollout, Seen};
pub use wait::until;
pub use workload::{Report, Workload};
