//! Waiting for what shall become so.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep};

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(250);

/// Looks again and again until there is something to see, and fails when there is not in time.
/// What goes wrong while looking is no failure, but told with it.
pub async fn until<T, F>(what: &str, limit: Duration, mut look: F) -> Result<T>
where
    F: AsyncFnMut() -> Result<Option<T>>,
{
    let end = Instant::now() + limit;
    loop {
        // Something that hangs must not outlast the limit either.
        let left = end.saturating_duration_since(Instant::now()).max(INTERVAL);
        let seen = match tokio::time::timeout(left, look()).await {
            Ok(Ok(Some(seen))) => return Ok(seen),
            Ok(Ok(None)) => String::new(),
            Ok(Err(error)) => format!(": {error:#}"),
            Err(_) => ": it took too long to look".to_owned(),
        };
        if Instant::now() >= end {
            bail!("{what} did not come in {limit:?}{seen}");
        }
        sleep(INTERVAL).await;
    }
}
