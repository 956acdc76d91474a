//! One window of a cycle.

use std::collections::{BTreeMap, BTreeSet};

use dfs_metadata::namespace::NodeDisk;
use dfs_types::{DiskNumber, NodeId};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, stream};
use tokio::time::Instant;
use tracing::debug;

use super::calls::Range;
use super::compare::{Context, Target};
use super::unneeded::KnownUnneeded;
use super::{Cycle, Reconcile, calls, log_window, window};
use crate::Error;
use crate::checks::CheckReport;

/// Nodes asked for digests concurrently.
const NODES_AT_ONCE: usize = 16;

/// Disks by their digests.
#[derive(Default)]
struct Digested {
    equal: Vec<Target>,
    different: Vec<Target>,
}

impl Reconcile {
    /// Compares the next window of a cycle. Returns whether it was the last one.
    pub(super) async fn compare_window(&self, cycle: &mut Cycle) -> Result<bool, Error> {
        let Cycle { number, floor, .. } = *cycle;
        let refreshed = self.core.refresh_members().await;
        refreshed.map_err(Error::metadata("reading the records of nodes"))?;
        let (core, handle) = (&*self.core, &*self.handle);
        let cluster = core.registry().cluster(Instant::now());
        let (position, mut report) = ((cycle.from, cycle.after.clone()), cycle.report.clone());
        let on = (core, &self.lease, handle);
        let window = window::read(on, number, position, &cluster, &mut report).await?;
        let known = self.known_unneeded(window.range).await?;
        let (targets, skipped) = self.targets(&window);
        report.skipped += skipped;
        let Digested { equal, different } =
            self.digest(&targets, number, &window, &mut report).await;
        let mut compared = BTreeSet::new();
        for target in equal {
            self.forget_unneeded(&target, window.range, &known).await?;
            compared.insert((target.node, target.disk));
        }
        if !different.is_empty() {
            let disks: BTreeSet<DiskNumber> = different.iter().map(|it| it.number).collect();
            let position = (window.range, cycle.after.clone());
            let before = window::records_of(core, handle, position, &disks).await?;
            let context =
                Context { before: &before, range: window.range, floor, cluster: &cluster };
            for target in different {
                if self.compare(&target, &context, &known, &mut report).await? {
                    compared.insert((target.node, target.disk));
                } else {
                    report.skipped += 1;
                }
            }
        }
        self.forget_unknown_disks(&known).await?;
        cycle.returning.retain(|disk| compared.contains(disk));
        let before = std::mem::replace(&mut cycle.report, report);
        log_window(window.range.from, &before, &cycle.report);
        cycle.after = window.next;
        match window.range.to {
            Some(to) => cycle.from = to,
            None => return Ok(true),
        }
        Ok(false)
    }

    /// Returns the disks to compare by node, and the number of those that cannot be. A disk that its
    /// node did not present counts if records of the window name it.
    fn targets(&self, window: &window::Window) -> (BTreeMap<NodeId, Vec<Target>>, u64) {
        let now = Instant::now();
        let registry = self.core.registry();
        let responsive = registry.responsive(now);
        let (mut targets, mut skipped): (BTreeMap<_, Vec<_>>, _) = (BTreeMap::new(), 0);
        for view in registry.views(now) {
            let is_named = |disk: &NodeDisk| window.disks.contains_key(&disk.number);
            let disks = view.member.disks.iter();
            for disk in disks.filter(|disk| disk.may_be_reported() || is_named(disk)) {
                let reported = view.disks.iter().find(|reported| reported.disk == disk.id);
                let is_listed = reported.is_some_and(|reported| reported.state.is_in_service());
                if is_listed && responsive.contains(&view.node) {
                    let target = Target { node: view.node, disk: disk.id, number: disk.number };
                    targets.entry(view.node).or_default().push(target);
                } else {
                    skipped += 1;
                }
            }
        }
        (targets, skipped)
    }

    /// Compares the digests of disks with those of the records.
    async fn digest(
        &self,
        targets: &BTreeMap<NodeId, Vec<Target>>,
        cycle: u64,
        window: &window::Window,
        report: &mut CheckReport,
    ) -> Digested {
        let range: Range = window.range;
        let ask = async |node: NodeId| {
            let found = calls::inventory(&self.core, &self.lease, node, cycle, range).await;
            (node, found)
        };
        let asked: Vec<BoxFuture<'_, _>> = targets.keys().map(|node| ask(*node).boxed()).collect();
        let mut asked = stream::iter(asked).buffer_unordered(NODES_AT_ONCE);
        let mut digested = Digested::default();
        while let Some((node, found)) = asked.next().await {
            let targets = &targets[&node];
            let found = match found {
                Ok(found) => found,
                Err(failure) => {
                    debug!(%node, %failure, "the disks of a node could not be compared");
                    report.skipped += targets.len() as u64;
                    continue;
                }
            };
            for target in targets {
                let expected = window.disks.get(&target.number).copied().unwrap_or_default();
                match found.get(&target.disk) {
                    None => report.skipped += 1,
                    Some(digest) if *digest == expected => digested.equal.push(*target),
                    Some(_) => digested.different.push(*target),
                }
            }
        }
        digested.different.sort_unstable();
        digested
    }

    /// Forgets unneeded replicas on disks of nodes that are no members any more.
    async fn forget_unknown_disks(&self, known: &KnownUnneeded) -> Result<(), Error> {
        let disks: BTreeSet<DiskNumber> = {
            let views = self.core.registry().views(Instant::now());
            let disks = views.iter().flat_map(|view| &view.member.disks);
            disks.map(|disk| disk.number).collect()
        };
        self.forget(known.not_on(&disks)).await
    }
}
