//! Runs blocking work: a bounded thread pool, or the caller itself in a simulation.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

type Job = Box<dyn FnOnce() + Send>;

/// Queued jobs per thread before [`Pool::run`] makes its caller wait.
const QUEUED_PER_THREAD: usize = 16;
/// Maximum number of reserved slots for detached jobs.
const PLACES: usize = 4_096;

/// The job panicked. Only its caller is affected: the thread continues with the next job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a job of the disk pool panicked")]
pub struct JobPanicked;

/// Runs blocking work: disk calls, hashing. Clones share the threads, which end when the last clone
/// is dropped and the queue is empty.
#[derive(Clone)]
pub struct Pool {
    workers: Workers,
}

#[derive(Clone)]
enum Workers {
    Threads(Arc<Threads>),
    /// Each job runs in its caller, unless the pool of this name is stalled.
    Caller {
        stalls: Stalls,
        name: String,
    },
}

/// Pools of a simulated process whose jobs do not run for now, as if their disks hung. Clones share
/// it.
#[derive(Clone, Default)]
pub struct Stalls(Arc<Mutex<BTreeMap<String, VecDeque<Job>>>>);

struct Threads {
    count: usize,
    queue: Arc<Queue>,
    room: Arc<Semaphore>,
    places: Arc<Semaphore>,
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    is_closed: bool,
}

/// Slot for one detached job at a time. Free for others once dropped.
#[derive(Debug)]
pub struct JobPlace {
    _permit: Option<OwnedSemaphorePermit>,
}

/// The result of a started job. Dropping it does not stop the job.
pub struct Running<T>(oneshot::Receiver<T>);

impl Pool {
    /// Creates a pool of `count` threads, at least one.
    ///
    /// # Panics
    /// When the operating system refuses a thread.
    pub fn threads(count: usize) -> Self {
        Self::named("dfs-pool", count.max(1))
    }

    /// Creates a pool like this one, with threads of its own.
    pub(crate) fn another(&self, name: &str) -> Self {
        match &self.workers {
            Workers::Threads(threads) => Self::named(name, threads.count),
            Workers::Caller { stalls, .. } => {
                Self { workers: Workers::Caller { stalls: stalls.clone(), name: name.to_owned() } }
            }
        }
    }

    fn named(name: &str, count: usize) -> Self {
        let queue = Arc::new(Queue::default());
        for number in 0..count {
            let queue = Arc::clone(&queue);
            std::thread::Builder::new()
                .name(format!("{name}-{number}"))
                .spawn(move || queue.work())
                .expect("the operating system refuses another thread");
        }
        let room = Arc::new(Semaphore::new(count * (1 + QUEUED_PER_THREAD)));
        let places = Arc::new(Semaphore::new(PLACES));
        Self { workers: Workers::Threads(Arc::new(Threads { count, queue, room, places })) }
    }

    /// Creates a pool that runs each job immediately in its caller. For simulations, where time
    /// does not pass in a job.
    pub fn inline() -> Self {
        Self::stallable(&Stalls::default())
    }

    /// Like [`Self::inline`], but the jobs of each disk wait while its pool is stalled.
    pub fn stallable(stalls: &Stalls) -> Self {
        Self { workers: Workers::Caller { stalls: stalls.clone(), name: String::new() } }
    }

    /// Returns whether jobs wait because the pool is stalled.
    pub(crate) fn is_stalled(&self) -> bool {
        match &self.workers {
            Workers::Threads(_) => false,
            Workers::Caller { stalls, name } => {
                stalls.lock().get(name).is_some_and(|jobs| !jobs.is_empty())
            }
        }
    }

    fn own_threads(&self) -> Option<&Threads> {
        match &self.workers {
            Workers::Threads(threads) => Some(threads),
            Workers::Caller { .. } => None,
        }
    }

    /// Runs `job` and waits for its result. Waits first while the queue is full. If the future is
    /// dropped the job still completes, unless it was waiting for the queue.
    pub async fn run<T, F>(&self, job: F) -> Result<T, JobPanicked>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        self.start(job).await.await
    }

    /// Starts `job` and returns its future result. Waits only while the queue is full.
    pub async fn start<T, F>(&self, job: F) -> Running<T>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let permit = match self.own_threads() {
            Some(threads) => Arc::clone(&threads.room).acquire_owned().await.ok(),
            None => None,
        };
        let (done, result) = oneshot::channel();
        self.push(Box::new(move || {
            let value = job();
            drop(permit);
            // The caller may be gone; the work is complete anyway.
            let _ = done.send(value);
        }));
        Running(result)
    }

    /// Reserves a slot for a job that [`Pool::detach`] may have to start later. Waits while all
    /// slots are taken.
    pub async fn reserve(&self) -> JobPlace {
        let permit = match self.own_threads() {
            Some(threads) => Arc::clone(&threads.places).acquire_owned().await.ok(),
            None => None,
        };
        JobPlace { _permit: permit }
    }

    /// Starts `job` without waiting, even from a destructor or another job. The slot reserved for
    /// it bounds the queue; the job gets the slot back.
    pub fn detach<F>(&self, place: JobPlace, job: F)
    where
        F: FnOnce(JobPlace) + Send + 'static,
    {
        self.push(Box::new(move || job(place)));
    }

    fn push(&self, job: Job) {
        match &self.workers {
            Workers::Threads(threads) => threads.queue.push(job),
            Workers::Caller { stalls, name } => {
                if let Some(job) = stalls.pass(name, job) {
                    run_caught(job);
                }
            }
        }
    }
}

impl Stalls {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, VecDeque<Job>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a job of a stalled pool; returns that of any other.
    fn pass(&self, name: &str, job: Job) -> Option<Job> {
        match self.lock().get_mut(name) {
            Some(jobs) => {
                jobs.push_back(job);
                None
            }
            None => Some(job),
        }
    }

    /// Makes the jobs of a disk, numbered from 0, wait from now on.
    pub fn stall(&self, disk: usize) {
        self.lock().entry(disk_pool(disk)).or_default();
    }

    /// Runs the jobs of a disk that wait, in their order, and no longer makes others wait.
    pub fn resume(&self, disk: usize) {
        let name = disk_pool(disk);
        loop {
            let job = {
                let mut stalled = self.lock();
                let Some(jobs) = stalled.get_mut(&name) else { return };
                let Some(job) = jobs.pop_front() else {
                    stalled.remove(&name);
                    return;
                };
                job
            };
            run_caught(job);
        }
    }

    /// Drops the jobs that wait, as the end of their process does.
    pub fn end_process(&self) {
        let waiting: Vec<_> = self.lock().values_mut().map(std::mem::take).collect();
        drop(waiting);
    }
}

impl std::fmt::Debug for Stalls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.lock().keys()).finish()
    }
}

/// Returns the name of the pool of a disk.
pub(crate) fn disk_pool(disk: usize) -> String {
    format!("dfs-disk-{disk}")
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.own_threads().is_some() { "Pool(threads)" } else { "Pool(inline)" })
    }
}

impl<T> Future for Running<T> {
    type Output = Result<T, JobPanicked>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // Only a panicking job drops the sender unused.
        Pin::new(&mut self.0).poll(context).map(|result| result.map_err(|_| JobPanicked))
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.queue.lock().is_closed = true;
        self.queue.wake.notify_all();
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, job: Job) {
        self.lock().jobs.push_back(job);
        self.wake.notify_one();
    }

    fn work(&self) {
        while let Some(job) = self.next() {
            run_caught(job);
        }
    }

    fn next(&self) -> Option<Job> {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                return Some(job);
            }
            if state.is_closed {
                return None;
            }
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn run_caught(job: Job) {
    if catch_unwind(AssertUnwindSafe(job)).is_err() {
        tracing::error!("a job of the disk pool panicked");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn panic_affects_only_its_caller() {
        for pool in [Pool::threads(1), Pool::inline()] {
            assert_eq!(pool.run(|| panic!("on purpose")).await, Err::<(), _>(JobPanicked));
            assert_eq!(pool.run(|| 7).await, Ok(7), "the thread survives");
        }
    }

    #[tokio::test]
    async fn jobs_of_a_stalled_disk_wait_and_run_in_order() {
        let stalls = Stalls::default();
        let pools = [0, 1].map(|disk| Pool::stallable(&stalls).another(&disk_pool(disk)));
        stalls.stall(1);
        let first = pools[1].start(|| 1).await;
        let second = pools[1].start(|| 2).await;
        assert!(pools[1].is_stalled() && !pools[0].is_stalled());
        assert_eq!(pools[0].run(|| 7).await, Ok(7), "the other disk works");
        stalls.resume(1);
        assert_eq!((first.await, second.await), (Ok(1), Ok(2)));
        assert_eq!((pools[1].run(|| 3).await, pools[1].is_stalled()), (Ok(3), false));
        stalls.stall(1);
        let dropped = pools[1].start(|| 4).await;
        stalls.end_process();
        assert!(dropped.await.is_err());
    }

    #[tokio::test]
    async fn queue_is_bounded() {
        let pool = Pool::threads(1);
        let (release, blocked) = std::sync::mpsc::channel::<()>();
        let first = pool.start(move || blocked.recv().is_ok()).await;
        let mut queued = Vec::new();
        for number in 0..QUEUED_PER_THREAD {
            queued.push(pool.start(move || number).await);
        }
        let mut over = Box::pin(pool.start(|| 99));
        let waker = std::task::Waker::noop();
        let poll = over.as_mut().poll(&mut Context::from_waker(waker));
        assert!(poll.is_pending(), "a job beyond the queue must wait");
        release.send(()).unwrap();
        assert_eq!(first.await, Ok(true));
        assert_eq!(over.await.await, Ok(99));
        for (number, job) in queued.into_iter().enumerate() {
            assert_eq!(job.await, Ok(number));
        }
    }

    #[tokio::test]
    async fn detached_jobs_are_bounded_by_their_slots() {
        let pool = Pool::threads(1);
        let (release, blocked) = std::sync::mpsc::channel::<()>();
        let first = pool.start(move || blocked.recv().is_ok()).await;
        let (done, seen) = std::sync::mpsc::channel();
        for number in 0..PLACES {
            let (place, done) = (pool.reserve().await, done.clone());
            pool.detach(place, move |_place| done.send(number).unwrap());
        }
        let mut over = Box::pin(pool.reserve());
        let poll = over.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop()));
        assert!(poll.is_pending(), "a job beyond the slots must wait");
        release.send(()).unwrap();
        assert_eq!(first.await, Ok(true));
        drop(over.await);
        assert!(seen.iter().take(PLACES).eq(0..PLACES));
    }

    #[tokio::test]
    async fn job_can_detach_another_on_the_only_thread() {
        let pool = Pool::threads(1);
        let (place, inner) = (pool.reserve().await, pool.clone());
        let (done, seen) = std::sync::mpsc::channel();
        pool.detach(place, move |place| {
            inner.detach(place, move |_place| done.send(1).unwrap());
        });
        assert_eq!(seen.recv(), Ok(1));
    }

    #[tokio::test]
    async fn job_survives_its_dropped_caller() {
        let pool = Pool::threads(1);
        let (done, seen) = std::sync::mpsc::channel();
        drop(pool.start(move || done.send(1)).await);
        drop(pool);
        assert_eq!(seen.recv(), Ok(1));
    }
}
