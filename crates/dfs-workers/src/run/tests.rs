//! A worker under the loop, in simulated time.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::*;
use crate::{Control, Handles, Place, REAPER, Spec};

/// Outcome of a step.
#[derive(Debug, Clone, Copy)]
enum Step {
    Work(u64),
    Fail,
    Panic,
}

#[derive(Debug, thiserror::Error)]
#[error("the step failed")]
struct Failed;

/// Follows a script, then uses one unit per second.
struct Scripted {
    handle: Arc<Handle>,
    script: Arc<Mutex<Vec<Step>>>,
    steps: Arc<Mutex<Vec<Instant>>>,
}

#[async_trait]
impl Worker for Scripted {
    const SPEC: Spec = REAPER;

    type Error = Failed;

    async fn step(&mut self) -> Result<Next, Failed> {
        self.steps.lock().unwrap().push(Instant::now());
        let step = self.script.lock().unwrap().pop();
        match step {
            None => {
                self.handle.add_done(1);
                Ok(Next::After(Duration::from_secs(1)))
            }
            Some(Step::Work(units)) => {
                self.handle.take(units).await;
                self.handle.add_done(units);
                Ok(Next::Again)
            }
            Some(Step::Fail) => Err(Failed),
            Some(Step::Panic) => panic!("on purpose"),
        }
    }
}

/// A running worker and its observed state.
struct Run {
    handle: Arc<Handle>,
    steps: Arc<Mutex<Vec<Instant>>>,
    made: Arc<AtomicU64>,
    task: JoinHandle<Infallible>,
}

impl Run {
    /// Runs the steps of the script in this order.
    fn new(script: &[Step], control: Control) -> Self {
        let handle = Handles::new(Place::Lease).of(&REAPER);
        handle.set_control(control);
        let script: Vec<Step> = script.iter().rev().copied().collect();
        let script = Arc::new(Mutex::new(script));
        let (steps, made) = (Arc::<Mutex<_>>::default(), Arc::<AtomicU64>::default());
        let (into_steps, count) = (steps.clone(), made.clone());
        let task = tokio::spawn(run(handle.clone(), move |handle| {
            count.fetch_add(1, Ordering::Relaxed);
            Scripted { handle, script: script.clone(), steps: into_steps.clone() }
        }));
        Self { handle, steps, made, task }
    }

    /// Returns the number of steps so far.
    fn steps(&self) -> usize {
        self.steps.lock().unwrap().len()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn pause(until: Duration) -> Control {
    Control { paused_until: Some(Instant::now() + until), ..Control::default() }
}

const MINUTE: Duration = Duration::from_mins(1);
const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn paused_worker_takes_no_step_until_the_pause_ends() {
    let run = Run::new(&[], pause(MINUTE));
    sleep(SECOND * 59).await;
    assert_eq!((run.steps(), run.handle.activity()), (0, Activity::Paused));
    assert_eq!(run.handle.pause_left(), Some(SECOND));
    sleep(SECOND * 2).await;
    assert!(run.steps() > 0);
    assert_eq!((run.handle.activity(), run.handle.pause_left()), (Activity::Running, None));
}

#[tokio::test(start_paused = true)]
async fn pause_and_resume_take_effect_at_once() {
    let run = Run::new(&[], Control::default());
    sleep(SECOND / 2).await;
    run.handle.set_control(pause(MINUTE));
    assert_eq!(run.handle.activity(), Activity::Paused);
    let before = run.steps();
    sleep(MINUTE / 2).await;
    assert_eq!((run.steps(), run.handle.activity()), (before, Activity::Paused));
    run.handle.set_control(Control::default());
    sleep(SECOND / 2).await;
    assert_eq!((run.steps(), run.handle.activity()), (before + 1, Activity::Running));
}

#[tokio::test(start_paused = true)]
async fn pause_delays_the_work_of_a_step_in_progress() {
    let run =
        Run::new(&[Step::Work(1), Step::Work(1)], Control { rate: Some(1), ..Control::default() });
    sleep(SECOND / 2).await;
    assert_eq!((run.steps(), run.handle.done()), (2, 1));
    run.handle.set_control(Control { rate: Some(1), ..pause(MINUTE) });
    sleep(MINUTE / 2).await;
    assert_eq!((run.steps(), run.handle.done()), (2, 1));
    run.handle.set_control(Control::default());
    sleep(SECOND / 2).await;
    assert!(run.handle.done() >= 2);
}

#[tokio::test(start_paused = true)]
async fn work_is_bounded_by_the_rate() {
    let run = Run::new(&[Step::Work(10); 5], Control { rate: Some(10), ..Control::default() });
    let done_after = async |seconds| {
        sleep(SECOND * seconds).await;
        run.handle.done()
    };
    sleep(SECOND / 2).await;
    assert_eq!((run.handle.done(), done_after(1).await, done_after(2).await), (10, 20, 40));
    run.handle.set_control(Control::default());
    sleep(SECOND / 10).await;
    assert!(run.handle.done() >= 50, "the budget of the spec has no bound");
}

#[tokio::test(start_paused = true)]
async fn failed_steps_are_counted_and_backed_off() {
    let run = Run::new(&[Step::Fail; 9], Control::default());
    sleep(SECOND / 10).await;
    assert_eq!((run.handle.failed(), run.handle.activity()), (1, Activity::BackingOff));
    assert!(run.handle.detail().contains("the step failed"));
    sleep(MINUTE).await;
    let steps = run.steps.lock().unwrap().clone();
    let pauses: Vec<_> = steps.windows(2).map(|pair| (pair[1] - pair[0]).as_millis()).collect();
    assert_eq!(pauses[..9], [200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000, 10_000]);
    assert_eq!((run.handle.failed(), run.handle.activity()), (9, Activity::Running));
    assert_eq!(run.made.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn panic_is_counted_and_creates_a_new_worker() {
    let run = Run::new(&[Step::Panic, Step::Panic], Control::default());
    sleep(SECOND / 10).await;
    assert_eq!((run.handle.failed(), run.handle.activity()), (1, Activity::BackingOff));
    assert!(run.handle.detail().contains("on purpose"), "{}", run.handle.detail());
    sleep(MINUTE).await;
    assert_eq!((run.handle.failed(), run.made.load(Ordering::Relaxed)), (2, 3));
    assert!(run.handle.done() > 0);
}
