//! Users, and how long they wait.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use dfs_client::{Client, Error, GetOptions, PutOptions, PutSource};
use dfs_types::DfsPath;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::io::AsyncReadExt as _;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// Number of users who wait for their calls.
const USERS: usize = 4;
/// Interval between the turns of a user; a turn puts a file and gets it.
const PACE: Duration = Duration::from_millis(40);
/// Number of files put concurrently by [`put_files`].
const PUTS_AT_ONCE: usize = 16;
/// Size of a small file.
pub(super) const SMALL: usize = 4 << 10;
/// Size of a large file, one chunk.
pub(super) const LARGE: usize = 64 << 20;

fn path(text: &str) -> DfsPath {
    DfsPath::new(text.to_owned()).expect("a valid path")
}

/// Returns the content of a file: the same for the same seed, and like no other.
fn content(seed: u64, length: usize) -> Bytes {
    let words = (seed << 32..).map(u64::to_le_bytes).take(length.div_ceil(8));
    let mut bytes: Vec<u8> = words.flatten().collect();
    bytes.truncate(length);
    bytes.into()
}

/// Puts numbered files of one length.
pub(super) async fn put_files(
    client: &Client,
    numbers: std::ops::Range<usize>,
    length: usize,
) -> Result<(), Error> {
    let at_once = if length > SMALL { 2 } else { PUTS_AT_ONCE };
    let put = async |number: usize| {
        let bytes = content(number as u64, length);
        let path = path(&format!("/{length}-{number}"));
        client.put(&path, PutSource::bytes(bytes), PutOptions::default()).await
    };
    stream::iter(numbers).map(put).buffer_unordered(at_once).try_for_each(async |_| Ok(())).await
}

/// Reads numbered files of one length. Returns those that differ from what was put.
pub(super) async fn check_files(
    client: &Client,
    numbers: std::ops::Range<usize>,
    length: usize,
) -> Result<Vec<String>, String> {
    let at_once = if length > SMALL { 2 } else { PUTS_AT_ONCE };
    let check = async |number: usize| {
        let name = format!("/{length}-{number}");
        let read = get(client, &path(&name), length).await?;
        Ok((read != content(number as u64, length)).then_some(name))
    };
    let checked = stream::iter(numbers).map(check).buffer_unordered(at_once);
    checked.try_filter_map(async |different| Ok(different)).try_collect().await
}

async fn get(client: &Client, path: &DfsPath, length: usize) -> Result<Bytes, String> {
    let reader = client.get(path, GetOptions::default()).await;
    let mut reader = reader.map_err(|error| format!("opening {path}: {error}"))?;
    let mut bytes = Vec::with_capacity(length);
    reader.read_to_end(&mut bytes).await.map_err(|error| format!("reading {path}: {error}"))?;
    Ok(bytes.into())
}

/// Users who put and get small files at a steady pace until stopped.
pub(super) struct Users {
    stop: Arc<AtomicBool>,
    waits: Arc<Mutex<Vec<Duration>>>,
    tasks: Vec<JoinHandle<Result<(), String>>>,
}

impl Users {
    pub(super) fn start(runtime: &Handle, client: &Client) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let waits = Arc::new(Mutex::new(Vec::new()));
        let user = |number: usize| {
            let (client, stop, waits) = (client.clone(), Arc::clone(&stop), Arc::clone(&waits));
            runtime.spawn(async move {
                let mut pace = interval(PACE);
                pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
                for turn in 0_u64.. {
                    pace.tick().await;
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let name = format!("/user-{number}-{}", turn % 100);
                    let bytes = content(turn, SMALL);
                    let path = path(&name);
                    let started = Instant::now();
                    let put =
                        client.put(&path, PutSource::bytes(bytes.clone()), PutOptions::default());
                    put.await.map_err(|error| format!("putting {name}: {error}"))?;
                    let read = get(&client, &path, SMALL).await?;
                    let wait = started.elapsed();
                    if read != bytes {
                        return Err(format!("{name} came back different"));
                    }
                    waits.lock().unwrap_or_else(PoisonError::into_inner).push(wait);
                }
                Ok(())
            })
        };
        let tasks = (0..USERS).map(user).collect();
        Self { stop, waits, tasks }
    }

    /// Returns the times that turns took since the last call.
    pub(super) fn take_waits(&self) -> Vec<Duration> {
        std::mem::take(&mut self.waits.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Stops the users. Fails if one of their calls did.
    pub(super) async fn stop(self) -> Result<(), String> {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.map_err(|error| error.to_string())??;
        }
        Ok(())
    }
}

/// Returns the time within which 99 of 100 turns ended.
pub(super) fn p99(mut waits: Vec<Duration>) -> Option<Duration> {
    waits.sort_unstable();
    waits.get(waits.len().checked_sub(1)? * 99 / 100).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p99_is_exceeded_by_one_turn_in_a_hundred() {
        let waits = |count| (1..=count).rev().map(Duration::from_millis).collect();
        assert_eq!(p99(waits(200)), Some(Duration::from_millis(198)));
        assert_eq!(p99(waits(1)), Some(Duration::from_millis(1)));
        assert_eq!(p99(Vec::new()), None);
    }

    #[test]
    fn contents_differ_and_repeat() {
        assert_eq!(content(1, 100), content(1, 100));
        assert_ne!(content(1, 100), content(2, 100));
        assert_eq!(content(3, 13).len(), 13);
    }
}
