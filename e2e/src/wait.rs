//! Polling with a time limit.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep};

/// Polling interval.
const INTERVAL: Duration = Duration::from_millis(250);

/// Polls until there is a result, and fails at the time limit. Errors while polling do not end it,
/// but are reported with the failure.
pub async fn until<T, F>(what: &str, limit: Duration, mut look: F) -> Result<T>
where
    F: AsyncFnMut() -> Result<Option<T>>,
{
    let end = Instant::now() + limit;
    loop {
        // A hanging poll must not outlast the limit either.
        let left = end.saturating_duration_since(Instant::now()).max(INTERVAL);
        let seen = match tokio::time::timeout(left, look()).await {
            Ok(Ok(Some(seen))) => return Ok(seen),
            Ok(Ok(None)) => String::new(),
            Ok(Err(error)) => format!(": {error:#}"),
            Err(_) => ": the last poll took too long".to_owned(),
        };
        if Instant::now() >= end {
            bail!("{what}: not within {limit:?}{seen}");
        }
        sleep(INTERVAL).await;
    }
}
