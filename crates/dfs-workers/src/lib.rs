//! Background work: one list of workers, and one way to run, observe, pause and throttle them, in
//! coordinators and datanodes alike.
//!
//! ```text
//!  Lease ──grant──► supervise ──► run(Worker) ──► step, step, step …
//!                       │             ▲
//!                   settings          │ pause, rate, progress
//!                       └────────► Handle ◄──── observers, administrators
//! ```
//!
//! A [`Worker`] takes bounded steps. Its [`Spec`] says where it runs and what its budget is. A
//! [`Handle`] outlives the worker and holds its progress, pause and [`Throttle`]. Workers of the
//! cluster run under [`supervise`] while their process holds the lease, and stop when it is lost. A
//! worker is stopped by dropping it: a step may end at any await point, so its effects are fenced
//! or idempotent.
//!
//! The crate stores nothing and makes no calls. Implementations of [`Lease`] store and read the
//! settings.

mod control;
mod handle;
mod run;
mod supervise;
mod throttle;
mod worker;
mod worker_budgets;

pub use control::Control;
pub use handle::{Activity, Handle, Handles};
pub use run::run;
pub use supervise::{Lease, Running, supervise};
pub use throttle::Throttle;
pub use worker::{Next, Worker};
pub use worker_budgets::{
    Budget, DELETE, DRAIN, POLICY, Place, REAPER, REBALANCE, RECONCILE, REPAIR, SCRUB, Spec, TRIM,
    UPGRADE, Unit, all,
};
