//! Progress with rate and ETA, on a terminal only.

use std::sync::Arc;

use dfs_client::ProgressObserver;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output::Output;

/// A progress line.
#[derive(Debug, Clone)]
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// Starts at 0 of 0 bytes; [`Self::expect`] adds to the total.
    pub(crate) fn start(out: Output, what: &'static str) -> Self {
        let target = if out.wants_progress() {
            ProgressDrawTarget::stderr_with_hz(5)
        } else {
            ProgressDrawTarget::hidden()
        };
        let template = "{prefix} {binary_bytes} of {binary_total_bytes} [{bar:30}] {binary_bytes_per_sec} ETA {eta}";
        let style = ProgressStyle::with_template(template)
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("=> ");
        let bar =
            ProgressBar::with_draw_target(Some(0), target).with_style(style).with_prefix(what);
        Self(bar)
    }

    /// Adds bytes to the total.
    pub(crate) fn expect(&self, bytes: u64) {
        self.0.inc_length(bytes);
    }

    /// Adds bytes moved.
    pub(crate) fn moved(&self, bytes: u64) {
        self.0.inc(bytes);
    }

    /// Returns the callback for the SDK.
    pub(crate) fn observer(&self) -> ProgressObserver {
        let bar = self.0.clone();
        Arc::new(move |bytes| bar.inc(bytes))
    }

    /// Removes the line.
    pub(crate) fn finish(&self) {
        self.0.finish_and_clear();
    }
}
