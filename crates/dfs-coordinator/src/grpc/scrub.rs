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
        return "no datanode has begun to read its disks".to_owned();
    }
    let sum = |of: fn(&DiskScrub) -> u64| scrubs.iter().map(of).fold(0, u64::saturating_add);
    let (read, left) = (sum(|scrub| scrub.replicas), sum(|scrub| scrub.left_replicas));
    let disks = counted(scrubs.len() as u64, "disk");
    let all = counted(read.saturating_add(left), "replica");
    let bytes = ByteSize(sum(|scrub| scrub.left_bytes));
    let unread = scrubs.iter().filter(|scrub| scrub.last.is_none()).count() as u64;
    let whole = match scrubs.iter().filter_map(|scrub| scrub.last).min_by_key(|last| last.end) {
        Some(oldest) if unread == 0 => {
            let ago = age(now.since(oldest.end));
            let within = if scrubs.len() > 1 { "on each disk at most " } else { "" };
            format!("last whole pass ended {within}{ago} ago")
        }
        _ => format!("no whole pass yet on {}", counted(unread, "disk")),
    };
    let off = match scrubs.iter().filter(|scrub| scrub.every.is_none()).count() {
        0 => String::new(),
        off if off == scrubs.len() => {
            "off (scrub_every_ms is 0): reads only on request, by `dfs fsck --read`; ".to_owned()
        }
        off => format!("off on {} (scrub_every_ms is 0); ", counted(off as u64, "disk")),
    };
    format!("{off}read {read} of {all} on {disks} in this pass, {bytes} left; {whole}")
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
    fn progress_and_oldest_whole_pass_are_shown() {
        let now = Timestamp::from_millis(3 * 86_400_000);
        let whole = |end| {
            let end = Timestamp::from_millis(end);
            DiskScrub {
                last: Some(WholePass { end, bytes: 1, errors: 0 }),
                replicas: 40,
                left_replicas: 80,
                left_bytes: 1 << 30,
                every: Some(Duration::from_hours(336)),
                ..DiskScrub::default()
            }
        };
        let never = DiskScrub { every: Some(Duration::from_hours(336)), ..DiskScrub::default() };
        assert_eq!(text(&[], now), "no datanode has begun to read its disks");
        let progress = |disks: &str| format!("read {disks} in this pass");
        let one = progress("40 of 120 replicas on 1 disk");
        assert_eq!(
            text(&[whole(0)], now),
            format!("{one}, 1GiB left; last whole pass ended 3 d ago")
        );
        let two = progress("40 of 120 replicas on 2 disks");
        let unread = format!("{two}, 1GiB left; no whole pass yet on 1 disk");
        assert_eq!(text(&[whole(0), never], now), unread);
        let both = progress("80 of 240 replicas on 2 disks");
        assert_eq!(
            text(&[whole(0), whole(86_400_000)], now),
            format!("{both}, 2GiB left; last whole pass ended on each disk at most 3 d ago")
        );
    }

    #[test]
    fn scrub_that_is_off_is_said_to_be_off() {
        let now = Timestamp::from_millis(0);
        let off = DiskScrub::default();
        let on = DiskScrub { every: Some(Duration::from_hours(1)), ..off };
        assert!(text(&[off, off], now).starts_with("off (scrub_every_ms is 0): reads only"));
        assert!(text(&[off, on], now).starts_with("off on 1 disk (scrub_every_ms is 0); read 0"));
        assert!(text(&[on], now).starts_with("read 0 of 0 replicas on 1 disk"));
    }
}
