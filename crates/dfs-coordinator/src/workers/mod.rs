//! Background work of the cluster, done by the holder of the worker lease.

mod build;
mod deletion;
mod doom;
mod drain;
mod lease;
mod moves;
pub(crate) mod orders;
mod policy;
mod reaper;
mod rebalance;
mod reconcile;
mod repair;
mod spread;
mod trim;
mod upgrade;

use std::convert::Infallible;
use std::sync::Arc;

use dfs_workers::{Worker, run, supervise};
use futures_util::FutureExt as _;

pub(crate) use deletion::Delete;
pub(crate) use drain::Drain;
pub(crate) use lease::{WORKER_LEASE, WorkerLease, control};
pub(crate) use moves::emptying_targets;
pub(crate) use policy::ApplyPolicies;
pub(crate) use reaper::Reaper;
pub(crate) use rebalance::Rebalance;
pub(crate) use reconcile::Reconcile;
pub(crate) use repair::Repair;
pub(crate) use repair::queue::{RepairNeed, RepairQueue};
pub(crate) use trim::Trim;
pub(crate) use upgrade::Upgrade;

use crate::core::Core;

/// What workers do while deletion is not acknowledged.
pub(crate) const DELETION_HELD: &str =
    "nothing is deleted until `dfs gc acknowledge`; `dfs gc status` shows why";

/// Runs the workers while this coordinator holds their lease; until dropped.
pub(crate) async fn run_all(core: &Arc<Core>) -> Infallible {
    let handles = &core.background.workers;
    let lease = WorkerLease::new(core.clone());
    supervise(&lease, handles, |grant| {
        let of = |spec| handles.of(spec);
        let [repair, drain, policy, trim, rebalance, reaper, delete, reconcile, upgrade] =
            [(); 9].map(|()| core.clone());
        vec![
            run(of(&Repair::SPEC), move |handle| Repair::new(repair.clone(), grant, handle))
                .boxed(),
            run(of(&Drain::SPEC), move |handle| Drain::new(drain.clone(), grant, handle)).boxed(),
            run(of(&ApplyPolicies::SPEC), move |handle| {
                ApplyPolicies::new(policy.clone(), grant, handle)
            })
            .boxed(),
            run(of(&Trim::SPEC), move |handle| Trim::new(trim.clone(), grant, handle)).boxed(),
            run(of(&Rebalance::SPEC), move |handle| {
                Rebalance::new(rebalance.clone(), grant, handle)
            })
            .boxed(),
            run(of(&Reaper::SPEC), move |handle| Reaper::new(reaper.clone(), grant, handle))
                .boxed(),
            run(of(&Delete::SPEC), move |handle| Delete::new(delete.clone(), grant, handle))
                .boxed(),
            run(of(&Reconcile::SPEC), move |handle| {
                Reconcile::new(reconcile.clone(), grant, handle)
            })
            .boxed(),
            run(of(&Upgrade::SPEC), move |handle| Upgrade::new(upgrade.clone(), grant, handle))
                .boxed(),
        ]
    })
    .await
}
