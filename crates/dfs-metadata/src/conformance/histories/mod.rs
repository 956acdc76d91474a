//! Random histories of concurrent namespace calls, each of which must be explained by some
//! sequential order of the calls on a toy model.
#![allow(clippy::unwrap_used, clippy::panic)] // Like every check, these panic where an engine does not do its part.

mod calls;
mod linearizability;
mod model;
pub(super) mod run;
mod store;
#[cfg(test)]
mod tests;

use calls::Operation;
use linearizability::is_linearizable;
use run::Run;
use store::Lapse;

use super::Harness;

/// Runs three or four clients of two coordinators, each with its own handle on the empty store,
/// which call the namespace concurrently; some sequential order of their calls must explain all
/// replies. The calls follow from `seed`; their timing also depends on the engine. Returns how many
/// commits the engine refused: a history without any has proved little.
pub async fn namespace_history(harness: &mut dyn Harness, seed: u64) -> u64 {
    let engines = [harness.engine().await, harness.engine().await];
    let Run { history, conflicts } = run::history(engines, seed, Lapse::None).await;
    assert!(
        is_linearizable(&history),
        "seed {seed}: no order of these calls explains their answers:\n{}",
        shown(&history)
    );
    conflicts
}

fn shown(history: &[Operation]) -> String {
    let mut history: Vec<_> = history.iter().collect();
    history.sort_by_key(|operation| operation.called);
    history.iter().map(|operation| format!("  {operation}")).collect::<Vec<_>>().join("\n")
}
