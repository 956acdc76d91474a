//! State that outlives a worker: progress, pause and rate.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::{Control, Next, Place, Spec, Throttle, all};

/// Activity of a worker in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// Not running here: the process does not hold the lease.
    Stopped,
    /// Taking steps.
    Running,
    /// Paused by an administrator.
    Paused,
    /// Waiting after a failed step.
    BackingOff,
}

/// A worker as seen by those who run, observe or administer it.
#[derive(Debug)]
pub struct Handle {
    spec: &'static Spec,
    throttle: Throttle,
    control: watch::Sender<Control>,
    activity: Mutex<Activity>,
    detail: Mutex<String>,
    done: AtomicU64,
    failed: AtomicU64,
    queued: AtomicU64,
}

impl Handle {
    fn new(spec: &'static Spec) -> Self {
        Self {
            spec,
            throttle: Throttle::new(spec.budget.per_second),
            control: watch::Sender::default(),
            activity: Mutex::new(Activity::Stopped),
            detail: Mutex::default(),
            done: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            queued: AtomicU64::new(0),
        }
    }

    /// Returns the spec of the worker.
    pub fn spec(&self) -> &'static Spec {
        self.spec
    }

    /// Waits until `units` of its budget may be used and it is not paused. When cancelled, none are
    /// used.
    pub async fn take(&self, units: u64) {
        let mut control = self.control.subscribe();
        loop {
            let paused_until = control.borrow_and_update().paused_until;
            let end = paused_until.filter(|end| *end > Instant::now());
            let turn = async {
                match end {
                    Some(end) => sleep_until(end).await,
                    None => self.throttle.take(units).await,
                }
            };
            tokio::select! {
                biased;
                _ = control.changed() => {}
                () = turn => if end.is_none() { return },
            }
        }
    }

    /// Uses `units` of its budget if that is possible at once, whether or not it is paused. Returns
    /// whether it was.
    pub fn try_take(&self, units: u64) -> bool {
        self.throttle.try_take(units)
    }

    /// Waits until [`Self::try_take`] may succeed.
    pub async fn ready(&self) {
        self.throttle.ready().await;
    }

    /// Takes back units that were not used after all.
    pub fn give_back(&self, units: u64) {
        self.throttle.give_back(units);
    }

    /// Changes its settings, which take effect at once, also for waiting callers.
    pub fn set_control(&self, control: Control) {
        self.throttle.set_rate(control.rate.unwrap_or(self.spec.budget.per_second));
        self.control.send_replace(control);
    }

    /// Returns its settings.
    pub fn control(&self) -> Control {
        *self.control.borrow()
    }

    /// Watches its settings.
    pub fn watch_control(&self) -> watch::Receiver<Control> {
        self.control.subscribe()
    }

    /// Returns its rate in units per second; 0 for unlimited.
    pub fn rate(&self) -> u64 {
        self.throttle.rate()
    }

    /// Returns the rest of its pause; `None` when it is not paused.
    pub fn pause_left(&self) -> Option<Duration> {
        let until = self.control().paused_until?;
        let left = until.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    /// Returns its activity. A pause counts at once, although a step in progress still completes.
    pub fn activity(&self) -> Activity {
        match *lock(&self.activity) {
            Activity::Running if self.pause_left().is_some() => Activity::Paused,
            activity => activity,
        }
    }

    pub(crate) fn set_activity(&self, activity: Activity) {
        *lock(&self.activity) = activity;
    }

    /// Returns a short description of what it is doing, or why it is not.
    pub fn detail(&self) -> String {
        lock(&self.detail).clone()
    }

    /// Sets the description of what it is doing.
    pub fn set_detail(&self, detail: impl Into<String>) {
        *lock(&self.detail) = detail.into();
    }

    /// Returns the number of items done since the process started.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Adds items done.
    pub fn add_done(&self, things: u64) {
        self.done.fetch_add(things, Ordering::Relaxed);
    }

    /// Returns the number of failed items and steps since the process started.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Adds failed items.
    pub fn add_failed(&self, things: u64) {
        self.failed.fetch_add(things, Ordering::Relaxed);
    }

    /// Returns the number of items known to be waiting.
    pub fn queued(&self) -> u64 {
        self.queued.load(Ordering::Relaxed)
    }

    /// Sets the number of items waiting.
    pub fn set_queued(&self, things: u64) {
        self.queued.store(things, Ordering::Relaxed);
    }

    /// Clears what only applied while the worker ran.
    pub(crate) fn stopped(&self) {
        self.set_activity(Activity::Stopped);
        self.set_detail("");
        self.set_queued(0);
    }

    /// Waits for the next step, or until the settings change or the pause ends.
    pub(crate) async fn wait(&self, next: Next) {
        let Next::After(wait) = next else { return tokio::task::yield_now().await };
        let mut control = self.control.subscribe();
        let until = Instant::now() + wait;
        let until = match control.borrow_and_update().paused_until {
            Some(end) if end > Instant::now() => until.min(end),
            _ => until,
        };
        tokio::select! {
            () = sleep_until(until) => {}
            _ = control.changed() => {}
        }
    }
}

/// The handles of all workers in one place.
#[derive(Debug, Clone)]
pub struct Handles(Arc<[Arc<Handle>]>);

impl Handles {
    /// Creates handles of the workers of that place.
    pub fn new(place: Place) -> Self {
        Self::of_specs(all().iter().filter(|spec| spec.place == place))
    }

    /// Creates handles of all workers, for a place that also administers those of others.
    pub fn all() -> Self {
        Self::of_specs(all().iter())
    }

    fn of_specs(specs: impl Iterator<Item = &'static Spec>) -> Self {
        Self(specs.map(|spec| Arc::new(Handle::new(spec))).collect())
    }

    /// Iterates in the order of [`all`](crate::all).
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Handle>> {
        self.0.iter()
    }

    /// Returns the worker with that name; `None` when there is none here.
    pub fn get(&self, name: &str) -> Option<&Arc<Handle>> {
        self.iter().find(|handle| handle.spec.name == name)
    }

    /// Returns the worker of that spec, which must run here.
    pub fn of(&self, spec: &Spec) -> Arc<Handle> {
        self.get(spec.name).expect("a worker runs where its spec says").clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
