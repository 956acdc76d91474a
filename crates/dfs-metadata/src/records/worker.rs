//! Settings of background workers: `s/worker/`.

use std::time::Duration;

use dfs_types::Timestamp;

use crate::codec::{Reader, Record, Writer};

/// An administrator's settings for one worker; none by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WorkerControl {
    /// The pause announced last, if any.
    pub pause: Option<WorkerPause>,
    /// Units per second in place of the worker's budget; 0 for unlimited.
    pub rate: Option<u64>,
    /// Number of the newest request to do everything at once; 0 for none.
    pub request: u64,
}

/// A pause, which expires by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerPause {
    /// When it ends.
    pub until: Timestamp,
    /// Length when it began.
    pub length: Duration,
}

impl WorkerControl {
    /// Longest pause, unless it is renewed.
    pub const PAUSE_MAX: Duration = Duration::from_hours(24 * 7);

    /// Returns the rest of the pause; `None` when there is none.
    ///
    /// A pause with more left than its whole length was set by a clock ahead of `now`. It counts as
    /// over, so that a wrong clock can only shorten a pause.
    pub fn pause_left(&self, now: Timestamp) -> Option<Duration> {
        let WorkerPause { until, length } = self.pause?;
        let left = until.since(now);
        (!left.is_zero() && left <= length.min(Self::PAUSE_MAX)).then_some(left)
    }
}

impl Record for WorkerControl {
    fn write(&self, out: &mut Writer) {
        out.option(self.pause.as_ref(), |out, pause| {
            out.time(pause.until);
            out.number(pause.length.as_millis() as u64);
        });
        out.option(self.rate.as_ref(), |out, rate| out.number(*rate));
        out.number(self.request);
    }

    fn read(input: &mut Reader<'_>) -> Option<Self> {
        let pause = input.option(|input| {
            let until = input.time()?;
            Some(WorkerPause { until, length: Duration::from_millis(input.number()?) })
        })?;
        let rate = input.option(Reader::number)?;
        Some(Self { pause, rate, request: input.number()? })
    }
}
