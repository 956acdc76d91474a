//! Which coordinator is asked.
//!
//! The client stays with one for as long as that answers, so that its connection is warm and
//! nothing flaps. One that failed is left alone for a while, longer each time, so that not every
//! call pays for it again. A name is a coordinator for each of its addresses, and is looked up
//! again after a failure, and now and then.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dfs_transport::Channels;
use dfs_types::Random;
use tokio::time::Instant;

/// How long a coordinator is avoided after its first failure; twice as long after each further.
const AVOID_MIN: Duration = Duration::from_secs(1);
/// The longest time.
const AVOID_MAX: Duration = Duration::from_secs(30);
/// How often names are looked up while all goes well.
const LOOK_UP_EVERY: Duration = Duration::from_secs(30);
/// The least time between two look-ups.
const LOOK_UP_MIN: Duration = Duration::from_secs(1);
/// Addresses of all names together.
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
    /// Held by the look-up under way, of which there is one at a time.
    looking: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Default)]
struct Known {
    /// The one in use comes first, the next one after it.
    all: VecDeque<Coordinator>,
    /// No name stands for anything but itself.
    is_fixed: bool,
    looked_up: Option<Instant>,
    has_failed: bool,
}

/// One address, and how it has been lately.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Coordinator {
    address: String,
    /// Index of the name it stands behind.
    name: usize,
    /// Failures since it answered last.
    failures: u32,
    avoided_until: Option<Instant>,
}

impl Coordinator {
    fn is_avoided(&self, now: Instant) -> bool {
        self.avoided_until.is_some_and(|until| now < until)
    }
}

/// A coordinator to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chosen {
    pub(crate) address: String,
    /// How many there are to choose from.
    pub(crate) of: usize,
}

impl Coordinators {
    /// Those behind `names`, each `host:port`. None is looked up yet.
    pub(crate) fn new(names: Vec<String>, channels: Channels, random: Arc<dyn Random>) -> Self {
        // An address stays what it is.
        let is_fixed = names.iter().all(|name| name.parse::<SocketAddr>().is_ok());
        let known = Mutex::new(Known { is_fixed, ..Known::default() });
        let looking = Arc::default();
        Self { shared: Arc::new(Shared { names, channels, random, known, looking }) }
    }

    pub(crate) fn names(&self) -> &[String] {
        &self.shared.names
    }

    /// The coordinator to ask now; an error when no name can be looked up. Waits for a look-up
    /// only when nothing is known at all.
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
                    tracing::debug!(%error, "coordinators cannot be looked up");
                }
            });
        }
        Ok(chosen)
    }

    /// The coordinator gave an answer.
    pub(crate) fn answered(&self, address: &str) {
        self.shared.known().answered(address);
    }

    /// The coordinator failed: another one is asked for a while. Says whether there is one that
    /// has not failed lately.
    pub(crate) fn failed(&self, address: &str) -> bool {
        self.shared.known().failed(address, Instant::now())
    }
}

impl Shared {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks all names up, unless that was just done; for who holds the lock of it. What is known of a name that cannot be
    /// looked up stays.
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
                    let message = format!("{} cannot be looked up: {error}", self.names[name]);
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

    /// The first that is not avoided, which then is the first; else the one whose time is over
    /// soonest.
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
            // Many calls may fail at once, for the same reason.
            if !one.is_avoided(now) {
                let doublings = one.failures.min(AVOID_MAX.as_secs().ilog2() + 1);
                one.failures += 1;
                one.avoided_until = Some(now + (AVOID_MIN * (1 << doublings)).min(AVOID_MAX));
            }
        }
        self.all.iter().any(|one| !one.is_avoided(now))
    }

    /// Takes over what names stand for now. What is known of an address stays with it.
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
                // At any place with the same chance, the first included: so clients spread over
                // all, and a coordinator that is added gets its share of those that are there.
                let at = match self.all.len() {
                    0 => 0,
                    length => random.below(length as u64 + 1) as usize,
                };
                self.all.insert(at, new);
            }
        }
        if is_first && let Some(first) = self.all.front() {
            tracing::debug!(coordinator = first.address, of = self.all.len(), "begins with");
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
    fn clients_begin_anywhere_and_new_coordinators_get_their_share() {
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
        assert!((50..=150).contains(&moved), "{moved} of 400 went to one of four");
    }

    #[test]
    fn one_that_fails_is_avoided_longer_each_time_and_the_other_is_stayed_with() {
        let mut now = Instant::now();
        let mut known = known(&["a:1", "b:1"], &SeededRandom::new(1));
        let first = chosen(&mut known, now);
        assert!(known.failed(&first, now));
        let second = chosen(&mut known, now);
        assert_ne!(first, second);
        now += AVOID_MAX;
        assert_eq!(chosen(&mut known, now), second, "nothing flaps back");
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
        assert!(!known.failed(&second, later), "there is none left");
        assert_eq!(chosen(&mut known, later), first, "its time is over soonest");
    }

    #[test]
    fn an_address_that_is_gone_from_its_name_is_forgotten() {
        let random = SeededRandom::new(1);
        let now = Instant::now();
        let mut known = known(&["a:1", "b:1"], &random);
        known.take(vec![(1, vec!["c:1".to_owned()])], &random);
        known.failed("b:1", now);
        known.take(vec![(0, vec!["b:1".to_owned()])], &random);
        let left: BTreeSet<_> = known.all.iter().map(|one| one.address.as_str()).collect();
        assert_eq!(left, BTreeSet::from(["b:1", "c:1"]));
        assert_eq!(chosen(&mut known, now), "c:1", "that b failed is still known");
    }
}
