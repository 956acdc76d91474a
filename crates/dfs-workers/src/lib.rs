//! Background work: one list of the workers there are, and one way to run, watch, pause and pace
//! them, in coordinators and datanodes alike.
//!
//! ```text
//!  Lease ──grant──► supervise ──► run(Worker) ──► step, step, step …
//!                       │             ▲
//!                   controls          │ pause, rate, progress
//!                       └────────► Handle ◄──── whoever watches or administers
//! ```
//!
//! A [`Worker`] does bounded steps. Its [`Spec`] says where it runs and what its budget is. A
//! [`Handle`] outlives the worker: it holds the progress, the pause and the [`Throttle`]. Workers of
//! the cluster run under [`supervise`] while their process holds the lease, and stop when it is lost.
//! Stopping is dropping: a step may end at any await point, so its effects are fenced or idempotent.
//!
//! The crate stores nothing and calls nobody. Controls are read and kept by whoever implements
//! [`Lease`].

mod control;
mod handle;
mod run;
mod spec;
mod supervise;
mod throttle;
mod worker;

pub use control::Control;
pub use handle::{Activity, Handle, Handles};
pub use run::run;
pub use spec::{Budget, DELETE, Place, REAPER, REPAIR, Spec, UPGRADE, Unit, all};
pub use supervise::{Lease, Running, supervise};
pub use throttle::Throttle;
pub use worker::{Next, Worker};
