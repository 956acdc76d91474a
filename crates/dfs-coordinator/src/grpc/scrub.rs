//! The status of the scrub, which runs on datanodes.

use std::time::Duration;

use dfs_proto::v1;
use dfs_types::{ByteSize, DiskScrub, Timestamp, counted};
use tokio::time::Instant;

use crate::core::Core;

/// Completes the status of the scrub by what the datanodes reported last.
pub(super) fn status(core: &Core, settings: v1::WorkerStatus) -> v1::WorkerStatus {
    let views = core.registry().views(Instant::now());
    let scrubs: Vec<_> =
        views.iter().flat_map(|view| &view.disks).filter_map(|disk| disk.scrub).collect();
    let sum = |of: fn(&DiskScrub) -> u64| scrubs.iter().map(of).fold(0, u64::saturating_add);
    let activity = match settings.pause_left_ms {
        _ if scrubs.is_empty() => v1::WorkerActivity::Stopped,
        Some(_) => v1::WorkerActivity::Paused,
        None => v1::WorkerActivity::Running,
    };
    v1::WorkerStatus {
        state: text(&scrubs, core.clock.now()),
        done: sum(|scrub| scrub.replicas),
        failed: sum(|scrub| scrub.errors),
        queued: sum(|scrub| scrub.left_replicas),
        activity: activity.into(),
        ..settings
    }
}

fn text(scrubs: &[DiskScrub], now: Timestamp) -> String {
    if scrubs.is_empty() {
        return String::new();
    }
    let left = scrubs.iter().map(|scrub| scrub.left_bytes).fold(0, u64::saturating_add);
    let disks = counted(scrubs.len() as u64, "disk");
    let unread = scrubs.iter().filter(|scrub| scrub.last.is_none()).count() as u64;
    let whole = match scrubs.iter().filter_map(|scrub| scrub.last).min_by_key(|last| last.end) {
        Some(oldest) if unread == 0 => {
            format!("all read whole within {}", age(now.since(oldest.end)))
        }
        _ => format!("{unread} never read whole"),
    };
    format!("{} left on {disks}, {whole}", ByteSize(left))
}

/// Returns a duration in its largest unit, rounded up.
fn age(age: Duration) -> String {
    match age.as_secs() {
        seconds @ ..120 => format!("{seconds} s"),
        seconds @ ..7_200 => format!("{} min", seconds.div_ceil(60)),
        seconds @ ..172_800 => format!("{} h", seconds.div_ceil(3_600)),
        seconds => format!("{} d", seconds.div_ceil(86_400)),
    }
}

#[cfg(test)]
mod tests {
    use dfs_types::WholePass;

    use super::*;

    #[test]
    fn oldest_whole_pass_is_shown_once_every_disk_has_one() {
        let now = Timestamp::from_millis(3 * 86_400_000);
        let whole = |end| {
            let end = Timestamp::from_millis(end);
            DiskScrub {
                last: Some(WholePass { end, bytes: 1, errors: 0 }),
                left_bytes: 1 << 30,
                ..DiskScrub::default()
            }
        };
        let never = DiskScrub::default();
        assert_eq!(text(&[], now), "");
        assert_eq!(text(&[whole(0), never], now), "1GiB left on 2 disks, 1 never read whole");
        let both = text(&[whole(0), whole(86_400_000)], now);
        assert_eq!(both, "2GiB left on 2 disks, all read whole within 3 d");
    }
}
