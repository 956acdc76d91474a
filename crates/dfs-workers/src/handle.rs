//! What outlives a worker: its progress, its pause and its rate.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::{Control, Next, Place, Spec, Throttle, all};

/// Whether a worker runs, as far as its process knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// Not here: the process does not hold the lease.
    Stopped,
    /// It does steps.
    Running,
    /// An administrator paused it.
    Paused,
    /// It waits after a step that failed.
    BackingOff,
}

/// A worker, as those see it who run, watch or administer it.
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

    /// Which worker it is.
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

    /// Sets what administrators want. It holds at once, for what waits, too.
    pub fn set_control(&self, control: Control) {
        self.throttle.set_rate(control.rate.unwrap_or(self.spec.budget.per_second));
        self.control.send_replace(control);
    }

    /// What administrators want.
    pub fn control(&self) -> Control {
        *self.control.borrow()
    }

    /// Units a second that it may use; 0 for no bound.
    pub fn rate(&self) -> u64 {
        self.throttle.rate()
    }

    /// How long its pause goes on; `None` when it is not paused.
    pub fn pause_left(&self) -> Option<Duration> {
        let until = self.control().paused_until?;
        let left = until.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    /// Whether it runs.
    pub fn activity(&self) -> Activity {
        *lock(&self.activity)
    }

    pub(crate) fn set_activity(&self, activity: Activity) {
        *lock(&self.activity) = activity;
    }

    /// What it is doing, or why it is not, in a few words.
    pub fn detail(&self) -> String {
        lock(&self.detail).clone()
    }

    /// Says what it is doing.
    pub fn set_detail(&self, detail: impl Into<String>) {
        *lock(&self.detail) = detail.into();
    }

    /// Things done since the process started.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Counts things done.
    pub fn add_done(&self, things: u64) {
        self.done.fetch_add(things, Ordering::Relaxed);
    }

    /// Things and steps that failed since the process started.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Counts things that failed.
    pub fn add_failed(&self, things: u64) {
        self.failed.fetch_add(things, Ordering::Relaxed);
    }

    /// Things known to wait.
    pub fn queued(&self) -> u64 {
        self.queued.load(Ordering::Relaxed)
    }

    /// Sets how many things wait.
    pub fn set_queued(&self, things: u64) {
        self.queued.store(things, Ordering::Relaxed);
    }

    /// Forgets what held only while the worker ran.
    pub(crate) fn stopped(&self) {
        self.set_activity(Activity::Stopped);
        self.set_detail("");
        self.set_queued(0);
    }

    /// Waits for the next step, or until the control changes or the pause ends.
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

/// The handles of all workers that run in one place.
#[derive(Debug, Clone)]
pub struct Handles(Arc<[Arc<Handle>]>);

impl Handles {
    /// Handles of the workers that run there.
    pub fn new(place: Place) -> Self {
        let specs = all().iter().filter(|spec| spec.place == place);
        Self(specs.map(|spec| Arc::new(Handle::new(spec))).collect())
    }

    /// In the order of [`all`](crate::all).
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Handle>> {
        self.0.iter()
    }

    /// The worker of that name; `None` when none runs here.
    pub fn get(&self, name: &str) -> Option<&Arc<Handle>> {
        self.iter().find(|handle| handle.spec.name == name)
    }

    /// The worker of that spec, which is one of those that run here.
    pub fn of(&self, spec: &Spec) -> Arc<Handle> {
        self.get(spec.name).expect("a worker runs where its spec says").clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
