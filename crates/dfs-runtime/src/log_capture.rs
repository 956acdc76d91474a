//! Captured log lines, for tests of what a component logs.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tracing_subscriber::EnvFilter;

/// The log of this process, in memory and without a bound: for tests alone.
#[derive(Debug, Clone, Default)]
pub struct LogCapture(Arc<Mutex<Vec<u8>>>);

impl LogCapture {
    /// Starts one capture for the process, or returns it: a log of a single thread would miss
    /// callsites first reached by another. Only the first `filter` counts.
    ///
    /// # Panics
    ///
    /// If something else logs in this process already.
    pub fn start(filter: &str) -> Self {
        static CAPTURE: OnceLock<LogCapture> = OnceLock::new();
        let start = || {
            let capture = Self::default();
            let writer = capture.clone();
            let subscriber = tracing_subscriber::fmt()
                .with_ansi(false)
                .with_env_filter(EnvFilter::new(filter))
                .with_writer(move || writer.clone())
                .finish();
            tracing::subscriber::set_global_default(subscriber).expect("nothing else logs");
            capture
        };
        CAPTURE.get_or_init(start).clone()
    }

    /// Returns the lines that contain `text`.
    pub fn with(&self, text: &str) -> Vec<String> {
        let all = String::from_utf8_lossy(&self.bytes()).into_owned();
        all.lines().filter(|line| line.contains(text)).map(str::to_owned).collect()
    }

    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl io::Write for LogCapture {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
