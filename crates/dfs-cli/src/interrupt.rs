//! Signals that interrupt a command.

use std::fs;
use std::io;
use std::task::Poll;
use std::time::Duration;

use dfs_client::Client;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;

use crate::error::{Error, Result};

/// Time limit for an interrupted command to abort its uploads and remove its temporary files.
const CLEAN_UP_WITHIN: Duration = Duration::from_secs(5);

/// The signals that interrupt a command.
struct Interrupts(Vec<(SignalKind, Signal)>);

impl Interrupts {
    /// Listens for INT, TERM and HUP, except those that the parent made the process ignore, like
    /// `nohup`.
    fn listen() -> io::Result<Self> {
        let ignored = ignored_signals();
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let wanted = kinds.into_iter().filter(|kind| ignored >> (kind.as_raw_value() - 1) & 1 == 0);
        Ok(Self(wanted.map(|kind| Ok((kind, signal(kind)?))).collect::<io::Result<_>>()?))
    }

    /// Waits for the next signal. Cancel-safe.
    async fn next(&mut self) -> SignalKind {
        std::future::poll_fn(|cx| {
            let arrived = self
                .0
                .iter_mut()
                .find_map(|(kind, signal)| signal.poll_recv(cx).is_ready().then_some(*kind));
            arrived.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

/// Returns the mask of ignored signals, as shown by the kernel.
fn ignored_signals() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default()
}

/// Runs a command until it ends or a signal arrives. An interrupted command aborts its uploads and
/// removes its temporary files, for a bounded time; a second signal exits at once.
pub(crate) async fn interruptible(
    client: &Client,
    command: impl Future<Output = Result<()>>,
) -> Result<()> {
    let mut interrupts = Interrupts::listen().map_err(|error| {
        Error::new(
            dfs_client::ErrorCode::Internal,
            format_args!("cannot listen for signals: {error}"),
        )
    })?;
    let mut command = Box::pin(command);
    let kind = tokio::select! {
        biased;
        result = &mut command => return result,
        kind = interrupts.next() => kind,
    };
    drop(command);
    tokio::select! {
        _ = timeout(CLEAN_UP_WITHIN, client.settled()) => {}
        _ = interrupts.next() => {}
    }
    Err(Error::interrupted(kind.as_raw_value()))
}
