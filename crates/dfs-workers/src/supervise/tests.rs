//! Workers that start and stop with their lease, in simulated time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures_util::FutureExt;
use tokio::task::JoinHandle;

use super::*;
use crate::{Activity, Handle, Next, Place, REPAIR, Spec, Worker, run};

#[derive(Debug, thiserror::Error)]
#[error("no answer")]
struct NoAnswer;

/// Replies of a store to one kind of request, in order; an error means no reply.
type Script<T> = Mutex<VecDeque<Result<T, ()>>>;

/// A store with scripted replies. The last reply of each kind is repeated.
#[derive(Default)]
struct Toy {
    grants: Script<Option<u64>>,
    controls: Script<Vec<(String, Control)>>,
    grant: Mutex<Option<u64>>,
    hangs: AtomicBool,
}

fn next<T: Clone>(answers: &Script<T>) -> Result<T, NoAnswer> {
    let mut answers = answers.lock().unwrap();
    let answer = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
    answer.expect("a script").map_err(|()| NoAnswer)
}

const TTL: Duration = Duration::from_secs(9);

#[async_trait]
impl Lease for Toy {
    type Grant = u64;
    type Error = NoAnswer;

    fn ttl(&self) -> Duration {
        TTL
    }

    async fn request(&self) -> Result<Option<u64>, NoAnswer> {
        if self.hangs.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        next(&self.grants)
    }

    async fn controls(&self) -> Result<Vec<(String, Control)>, NoAnswer> {
        next(&self.controls)
    }

    fn set_grant(&self, grant: Option<u64>) {
        *self.grant.lock().unwrap() = grant;
    }
}

/// A worker with long steps, which counts only finished ones.
struct Slow {
    begun: Arc<AtomicU64>,
    ended: Arc<AtomicU64>,
}

#[async_trait]
impl Worker for Slow {
    const SPEC: Spec = REPAIR;

    type Error = NoAnswer;

    async fn step(&mut self) -> Result<Next, NoAnswer> {
        self.begun.fetch_add(1, Ordering::Relaxed);
        sleep(Duration::from_secs(20)).await;
        self.ended.fetch_add(1, Ordering::Relaxed);
        Ok(Next::Again)
    }
}

/// A supervised worker.
struct Run {
    lease: Arc<Toy>,
    handle: Arc<Handle>,
    begun: Arc<AtomicU64>,
    ended: Arc<AtomicU64>,
    task: JoinHandle<Infallible>,
}

impl Run {
    fn new(
        grants: impl Into<VecDeque<Result<Option<u64>, ()>>>,
        controls: impl Into<VecDeque<Result<Vec<(String, Control)>, ()>>>,
    ) -> Self {
        let lease = Arc::new(Toy {
            grants: Mutex::new(grants.into()),
            controls: Mutex::new(controls.into()),
            ..Toy::default()
        });
        let handles = Handles::new(Place::Lease);
        let handle = handles.of(&REPAIR);
        let (begun, ended) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let slow = (begun.clone(), ended.clone());
        let task = tokio::spawn({
            let lease = lease.clone();
            async move {
                supervise(&*lease, &handles, |_| {
                    let (begun, ended) = slow.clone();
                    let make = move |_| Slow { begun: begun.clone(), ended: ended.clone() };
                    vec![run(handles.of(&REPAIR), make).boxed()]
                })
                .await
            }
        });
        Self { lease, handle, begun, ended, task }
    }

    fn steps(&self) -> (u64, u64) {
        (self.begun.load(Ordering::Relaxed), self.ended.load(Ordering::Relaxed))
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn no_controls() -> [Result<Vec<(String, Control)>, ()>; 1] {
    [Ok(Vec::new())]
}

#[tokio::test(start_paused = true)]
async fn workers_run_only_while_the_lease_is_held() {
    let run = Run::new([Ok(None), Ok(None), Ok(Some(1))], no_controls());
    sleep(TTL / 3).await;
    assert_eq!((run.steps(), run.handle.activity()), ((0, 0), Activity::Stopped));
    sleep(Duration::from_secs(24)).await;
    assert_eq!((run.steps(), run.handle.activity()), ((2, 1), Activity::Running));
    assert_eq!(*run.lease.grant.lock().unwrap(), Some(1));
}

#[tokio::test(start_paused = true)]
async fn step_is_cancelled_when_another_takes_the_lease() {
    let run = Run::new([Ok(Some(1)), Ok(Some(1)), Ok(None)], no_controls());
    sleep(Duration::from_mins(1)).await;
    assert_eq!((run.steps(), run.handle.activity()), ((1, 0), Activity::Stopped));
    assert_eq!(*run.lease.grant.lock().unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn step_is_cancelled_when_the_lease_may_have_expired() {
    let run = Run::new([Ok(Some(1))], no_controls());
    sleep(Duration::from_secs(1)).await;
    run.lease.hangs.store(true, Ordering::Relaxed);
    sleep(TTL).await;
    assert_eq!((run.steps(), run.handle.activity()), ((1, 0), Activity::Stopped));
    assert_eq!(*run.lease.grant.lock().unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn new_grant_restarts_the_workers() {
    let run = Run::new([Ok(Some(1)), Ok(Some(2))], no_controls());
    sleep(Duration::from_secs(10)).await;
    assert_eq!(run.steps(), (2, 0));
    assert_eq!(*run.lease.grant.lock().unwrap(), Some(2));
}

#[tokio::test(start_paused = true)]
async fn workers_wait_for_their_settings_and_start_paused() {
    let until = tokio::time::Instant::now() + Duration::from_mins(1);
    let paused = Control { paused_until: Some(until), rate: Some(7), ..Control::default() };
    let stored = vec![("repair".to_owned(), paused), ("unknown".to_owned(), paused)];
    let run = Run::new([Ok(Some(1))], [Err(()), Err(()), Ok(stored)]);
    sleep(Duration::from_secs(2)).await;
    assert_eq!((run.steps(), run.handle.activity()), ((0, 0), Activity::Stopped));
    assert_eq!(*run.lease.grant.lock().unwrap(), None, "not yet visible as the holder");
    sleep(Duration::from_secs(50)).await;
    assert_eq!((run.steps(), run.handle.activity()), ((0, 0), Activity::Paused));
    assert_eq!(run.handle.rate(), 7);
    sleep(Duration::from_secs(10)).await;
    assert_eq!((run.steps(), run.handle.activity()), ((1, 0), Activity::Running));
}
