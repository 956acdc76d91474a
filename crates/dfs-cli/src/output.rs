//! User-visible output: data on stdout, messages on stderr.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use serde::Serialize;

use crate::error::Error;

/// Destination of results and messages.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    /// True to write results as JSON, one document per line.
    pub(crate) is_json: bool,
    /// True to print errors only.
    pub(crate) is_quiet: bool,
}

#[expect(clippy::unused_self, reason = "writing requires an output, whose settings may matter")]
impl Output {
    /// Writes a line of data to stdout.
    pub(crate) fn line(self, text: impl std::fmt::Display) {
        exit_if_closed(writeln!(io::stdout().lock(), "{text}"));
    }

    /// Writes raw bytes to stdout.
    pub(crate) fn bytes(self, bytes: &[u8]) {
        exit_if_closed(io::stdout().lock().write_all(bytes));
    }

    /// Writes a document to stdout.
    pub(crate) fn json(self, document: &impl Serialize) {
        match serde_json::to_string(document) {
            Ok(text) => self.line(text),
            Err(error) => self.warn(format_args!("cannot write the result as JSON: {error}")),
        }
    }

    /// Writes the result of an action to stdout with `--json`; people see a message instead.
    pub(crate) fn done(self, document: &impl Serialize) {
        if self.is_json {
            self.json(document);
        }
    }

    /// Prints a message to stderr, unless quiet or `--json`.
    pub(crate) fn say(self, text: impl std::fmt::Display) {
        if !self.is_quiet && !self.is_json {
            drop(writeln!(io::stderr().lock(), "{text}"));
        }
    }

    /// Prints a warning to stderr.
    pub(crate) fn warn(self, text: impl std::fmt::Display) {
        drop(writeln!(io::stderr().lock(), "dfs: {text}"));
    }

    /// Prints a failure to stderr, with `--json` as a document.
    pub(crate) fn error(self, error: &Error) {
        if self.is_json {
            drop(writeln!(io::stderr().lock(), "{}", error.to_json()));
        } else {
            self.warn(error);
        }
    }

    /// Returns true if progress may be drawn.
    pub(crate) fn wants_progress(self) -> bool {
        !self.is_quiet && !self.is_json && io::stderr().is_terminal()
    }
}

/// Exits quietly when the reader has closed the pipe, as in `dfs ls | head`.
fn exit_if_closed(result: io::Result<()>) {
    match result {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => {
            drop(writeln!(io::stderr().lock(), "dfs: cannot write to stdout: {error}"));
            std::process::exit(1);
        }
    }
}

/// Returns a size, exact or human-readable.
pub(crate) fn size_text(bytes: u64, is_human_readable: bool) -> String {
    if is_human_readable { dfs_types::ByteSize(bytes).to_string() } else { bytes.to_string() }
}

/// Returns a mode in the format of `ls -l`.
pub(crate) fn mode_text(kind: char, mode: u32) -> String {
    let mut text = String::with_capacity(10);
    text.push(kind);
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (bits & 1 != 0, mode & special != 0) {
            (true, true) => letter,
            (false, true) => letter.to_ascii_uppercase(),
            (true, false) => 'x',
            (false, false) => '-',
        });
    }
    text
}

/// Returns a length of time, rounded down to seconds, minutes or hours.
pub(crate) fn span_text(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..=119 => format!("{seconds} s"),
        seconds @ 120..=7_199 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3_600),
    }
}

/// Returns a UTC time in the form `2026-03-21 14:05:09`, computed by the days-to-date algorithm of
/// Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
pub(crate) fn time_text(seconds: i64) -> String {
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_formatted_like_ls() {
        assert_eq!(mode_text('-', 0o644), "-rw-r--r--");
        assert_eq!(mode_text('d', 0o1777), "drwxrwxrwt");
        assert_eq!(mode_text('-', 0o4711), "-rws--x--x");
        assert_eq!(mode_text('-', 0o2640), "-rw-r-S---");
    }

    #[test]
    fn times_are_correct_before_and_after_1970() {
        assert_eq!(time_text(0), "1970-01-01 00:00:00");
        assert_eq!(time_text(951_827_696), "2000-02-29 12:34:56");
        assert_eq!(time_text(-1), "1969-12-31 23:59:59");
    }
}
