//! Output of `put` and `get` during and after copying.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use dfs_client::{ByteSize, ErrorCode, OnError, TreeObserver, TreeReport};
use dfs_types::counted;
use serde_json::json;

use crate::context::{Context, Failures};
use crate::error::{Error, Result};
use crate::output::Output;
use crate::printable::printable_path;
use crate::progress::Progress;

/// Shows progress, and each failure as it happens; the other entries are still copied.
pub(crate) struct TreeDisplay {
    out: Output,
    started: Instant,
    progress: Progress,
    failures: Mutex<Failures>,
}

impl TreeDisplay {
    /// Starts the display and its clock.
    pub(crate) fn start(cx: &Context, what: &'static str) -> Arc<Self> {
        Arc::new(Self {
            out: cx.out,
            started: Instant::now(),
            progress: Progress::start(cx.out, what),
            failures: Mutex::new(cx.failures()),
        })
    }

    /// Returns the progress line.
    pub(crate) fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Records the result of something copied outside a tree.
    pub(crate) fn note(&self, result: Result<()>) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).note(result);
    }

    /// Prints the summary, and returns the first failure.
    pub(crate) fn finish(&self, verb: &str, report: &TreeReport) -> Result<()> {
        self.progress.finish();
        let elapsed = self.started.elapsed();
        let seconds = elapsed.as_secs_f64();
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if self.out.is_json {
            let document = json!({
                "files": report.files,
                "directories": report.directories,
                "symlinks": report.symlinks,
                "bytes": report.bytes,
                "hard_links_made_files": report.hard_links,
                "extended_attributes_left": report.extended_attributes,
                "special_files_skipped": report.skipped,
                "failed": failures.count(),
                "elapsed_ms": elapsed.as_millis() as u64,
            });
            self.out.json(&document);
        } else {
            let rate = ByteSize((report.bytes as f64 / seconds.max(1e-6)) as u64);
            self.out.say(format_args!(
                "{verb} {}, {}, {}, {} in {seconds:.1} s ({rate}/s)",
                counted(report.files, "file"),
                counted(report.directories, "directory"),
                counted(report.symlinks, "symlink"),
                ByteSize(report.bytes),
            ));
            for (count, one, several) in [
                (
                    report.hard_links,
                    "hard-linked name became a separate file",
                    "hard-linked names became separate files",
                ),
                (
                    report.extended_attributes,
                    "entry lost some of its extended attributes",
                    "entries lost some of their extended attributes",
                ),
                (
                    report.skipped,
                    "device, socket or pipe was skipped",
                    "devices, sockets or pipes were skipped",
                ),
                (failures.count(), "entry failed", "entries failed"),
            ] {
                match count {
                    0 => {}
                    1 => self.out.say(format_args!("1 {one}")),
                    _ => self.out.say(format_args!("{count} {several}")),
                }
            }
        }
        failures.take()
    }
}

impl TreeObserver for TreeDisplay {
    fn found(&self, bytes: u64) {
        self.progress.expect(bytes);
    }

    fn moved(&self, bytes: u64) {
        self.progress.moved(bytes);
    }

    fn skipped(&self, path: &Path, what: &'static str) {
        self.out.say(format_args!("skipped {}: a {what}", printable_path(path)));
    }

    fn failed(&self, error: &dfs_client::Error) -> OnError {
        let error = Error::from(error.clone());
        let is_of_tree = error.to_string().starts_with("cannot get ");
        self.note(Err(match error.code() {
            ErrorCode::IsADirectory if is_of_tree => error.hint("-r copies it recursively"),
            _ => error,
        }));
        OnError::Continue
    }
}
