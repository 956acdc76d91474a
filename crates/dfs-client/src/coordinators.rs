//! The choice of the coordinator to call.
//!
//! The client stays with one while it replies, so that its connection stays warm and nothing flaps.
//! One that failed is avoided for a while, longer after each failure, so that calls do not pay for
//! it repeatedly. A name represents each of its addresses, and is resolved again after a failure
//! and periodically.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dfs_transport::Channels;
use dfs_types::Random;
use tokio::time::Instant;

/// Time that a coordinator is avoided after its first failure; doubles with each subsequent one.
const AVOID_MIN: Duration = Duration::from_secs(1);
/// Maximum time that a coordinator is avoided.
const AVOID_MAX: Duration = Duration::from_secs(30);
/// Interval of name lookups without failures.
const LOOK_UP_EVERY: Duration = Duration::from_secs(30);
/// Minimum time between two lookups.
const LOOK_UP_MIN: Duration = Duration::from_secs(1);
/// Maximum number of addresses of all names together.
const KNOWN_MAX: usize = 256;

/// The coordinators of a client.
pub(crate) struct Coordinators {
    shared: Arc<Shared>,
}

struct Shared {
    names: Vec<String>,
    channels: Channels,
    random: Arc<dyn Random>,
    known: Mutex<Known>,
    /// Held by the one lookup in progress.
    looking: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Default)]
struct Known {
    /// The current coordinator comes first, the next one after it.
    all: VecDeque<Coordinator>,
    /// True if all names are addresses, which need no lookup.
    is_fixed: bool,
    looked_up: Option<Instant>,
    has_failed: bool,
}

/// One address and its recent history.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Coordinator {
    address: String,
    /// Index of its name.
    name: usize,
    /// Failures since its last reply.
    failures: u32,
    avoided_until: Option<Instant>,
}

impl Coordinator {
    fn is_avoided(&self, now: Instant) -> bool {
        self.avoided_until.is_some_and(|until| now < until)
    }
}

/// The coordinator to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chosen {
    pub(crate) address: String,
    /// Number of coordinators known.
    pub(crate) of: usize,
}

impl Coordinators {
    /// Returns the coordinators behind `names`, each `host:port`. Names are resolved on first use.
    pub(crate) fn new(names: Vec<String>, channels: Channels, random: Arc<dyn Random>) -> Self {
        let is_fixed = names.iter().all(|name| name.parse::<SocketAddr>().is_ok());
        let known = Mutex::new(Known { is_fixed, ..Known::default() });
        let looking = Arc::default();
        Self { shared: Arc::new(Shared { names, channels, random, known, looking }) }
    }

    pub(crate) fn names(&self) -> &[String] {
        &self.shared.names
    }

    /// Returns the coordinator to ask now; an error when no name can be resolved. Waits for a
    /// lookup only when no address is known.
    pub(crate) async fn choose(&self) -> io::Result<Chosen> {
        let now = Instant::now();
        let (chosen, is_due) = {
            let mut known = self.shared.known();
            (known.choose(now), known.is_due(now))
        };
        let Some(chosen) = chosen else {
            let _only = self.shared.looking.lock().await;
            self.shared.look_up().await?;
            let chosen = self.shared.known().choose(Instant::now());
            return chosen.ok_or_else(|| io::ErrorKind::NotFound.into());
        };
        if is_due && let Ok(only) = self.shared.looking.clone().try_lock_owned() {
            let shared = self.shared.clone();
            tokio::spawn(async move {
                let _only = only;
                if let Err(error) = shared.look_up().await {
                    tracing::debug!(%error, "cannot look up coordinators");
                }
            });
        }
        Ok(chosen)
    }

    /// Records a reply of a coordinator.
    pub(crate) fn answered(&self, address: &str) {
        self.shared.known().answered(address);
    }

    /// Records a failure of a coordinator: another one is asked for a while. Returns true if there
    /// is one that has not failed recently.
    pub(crate) fn failed(&self, address: &str) -> bool {
        self.shared.known().failed(address, Instant::now())
    }
}

impl Shared {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resolves all names unless that was just done; the caller holds the lookup lock. The known
    /// addresses of a name that cannot be resolved stay.
    async fn look_up(&self) -> io::Result<()> {
        if !self.known().is_due(Instant::now()) {
            return Ok(());
        }
        let looking = self.names.iter().map(|name| self.channels.resolve(name));
        let looked_up = futures_util::future::join_all(looking).await;
        let mut failure = None;
        let mut found = Vec::new();
        for (name, addresses) in looked_up.into_iter().enumerate() {
            match addresses {
                Ok(addresses) => found.push((name, addresses)),
                Err(error) => {
                    let message = format!("{} lookup failed: {error}", self.names[name]);
                    failure = Some(io::Error::new(error.kind(), message));
                }
            }
        }
        let mut known = self.known();
        known.take(found, self.random.as_ref());
        known.looked_up = Some(Instant::now());
        known.has_failed = false;
        match failure {
            Some(error) if known.all.is_empty() => Err(error),
            _ => Ok(()),
        }
    }
}

impl Known {
    fn is_due(&self, now: Instant) -> bool {
        let Some(looked_up) = self.looked_up else { return true };
        let least = if self.has_failed { LOOK_UP_MIN } else { LOOK_UP_EVERY };
        self.all.is_empty() || (!self.is_fixed && now >= looked_up + least)
    }

    /// Returns the first coordinator that is not avoided and makes it the current one; otherwise
    /// the one whose penalty ends first.
    fn choose(&mut self, now: Instant) -> Option<Chosen> {
        let healthy = self.all.iter().position(|one| !one.is_avoided(now));
        let at = healthy.or_else(|| {
            let soonest = self.all.iter().enumerate().min_by_key(|(_, one)| one.avoided_until);
            soonest.map(|(at, _)| at)
        })?;
        self.all.rotate_left(at);
        let address = self.all.front()?.address.clone();
        Some(Chosen { address, of: self.all.len() })
    }

    fn answered(&mut self, address: &str) {
        if let Some(one) = self.all.iter_mut().find(|one| one.address == address) {
            one.failures = 0;
            one.avoided_until = None;
        }
    }

    fn failed(&mut self, address: &str, now: Instant) -> bool {
        self.has_failed = true;
        if let Some(one) = self.all.iter_mut().find(|one| one.address == address) {
            // Many calls may fail at once for the same reason.
            if !one.is_avoided(now) {
                let doublings = one.failures.min(AVOID_MAX.as_secs().ilog2() + 1);
                one.failures += 1;
                one.avoided_until = Some(now + (AVOID_MIN * (1 << doublings)).min(AVOID_MAX));
            }
        }
        self.all.iter().any(|one| !one.is_avoided(now))
    }

    /// Adopts the current addresses of all names. The history of an address is kept.
    fn take(&mut self, found: Vec<(usize, Vec<String>)>, random: &dyn Random) {
        let is_first = self.all.is_empty();
        for (name, addresses) in found {
            self.all.retain(|one| one.name != name || addresses.contains(&one.address));
            for address in addresses {
                if self.all.len() >= KNOWN_MAX || self.all.iter().any(|one| one.address == address)
                {
                    continue;
                }
                let new = Coordinator { address, name, failures: 0, avoided_until: None };
                // A random position, the first included, spreads clients over all coordinators, and
                // gives a new one its share of the clients.
                let at = match self.all.len() {
                    0 => 0,
                    length => random.below(length as u64 + 1) as usize,
                };
                self.all.insert(at, new);
            }
        }
        if is_first && let Some(first) = self.all.front() {
            tracing::debug!(
                coordinator = first.address,
                of = self.all.len(),
                "first coordinator chosen"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use dfs_types::SeededRandom;

    use super::*;

    fn known(addresses: &[&str], random: &SeededRandom) -> Known {
        let mut known = Known::default();
        known.take(vec![(0, addresses.iter().map(ToString::to_string).collect())], random);
        known
    }

    fn chosen(known: &mut Known, now: Instant) -> String {
        known.choose(now).unwrap().address
    }

    #[test]
    fn clients_start_anywhere_and_new_coordinators_get_their_share() {
        let random = SeededRandom::new(1);
        let now = Instant::now();
        let (mut first, mut moved) = (BTreeSet::new(), 0);
        for _ in 0..400 {
            let mut known = known(&["a:1", "b:1", "c:1"], &random);
            first.insert(chosen(&mut known, now));
            let all = ["a:1", "b:1", "c:1", "d:1"].map(ToOwned::to_owned).to_vec();
            known.take(vec![(0, all)], &random);
            moved += usize::from(chosen(&mut known, now) == "d:1");
        }
        assert_eq!(first.len(), 3);
        assert!((50..=150).contains(&moved), "{moved} of 400 moved to one of four");
    }

    #[test]
    fn failing_coordinator_is_avoided_longer_each_time_and_the_other_is_kept() {
        let mut now = Instant::now();
        let mut known = known(&["a:1", "b:1"], &SeededRandom::new(1));
        let first = chosen(&mut known, now);
        assert!(known.failed(&first, now));
        let second = chosen(&mut known, now);
        assert_ne!(first, second);
        now += AVOID_MAX;
        assert_eq!(chosen(&mut known, now), second, "no flapping");
        for seconds in [2, 4, 8, 16, 30, 30] {
            known.failed(&first, now);
            let one = known.all.iter().find(|one| one.address == first).unwrap();
            assert_eq!(one.avoided_until, Some(now + Duration::from_secs(seconds)));
            known.failed(&first, now);
            now += Duration::from_secs(seconds);
        }
        known.answered(&first);
        known.failed(&first, now);
        let later = now + Duration::from_millis(1);
        assert!(!known.failed(&second, later), "none is left");
        assert_eq!(chosen(&mut known, later), first, "its penalty ends first");
    }

    #[test]
    fn address_removed_from_its_name_is_forgotten() {
        let random = SeededRandom::new(1);
        let now = Instant::now();
        let mut known = known(&["a:1", "b:1"], &random);
        known.take(vec![(1, vec!["c:1".to_owned()])], &random);
        known.failed("b:1", now);
        known.take(vec![(0, vec!["b:1".to_owned()])], &random);
        let left: BTreeSet<_> = known.all.iter().map(|one| one.address.as_str()).collect();
        assert_eq!(left, BTreeSet::from(["b:1", "c:1"]));
        assert_eq!(chosen(&mut known, now), "c:1", "the failure of b is remembered");
    }
}
