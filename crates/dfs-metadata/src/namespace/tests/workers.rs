//! Pauses and rates of background workers.

use super::*;
use crate::engine::{Commit, Condition, Write};
use crate::keys;

const MINUTE: Duration = Duration::from_mins(1);

impl Fixture {
    async fn set(&self, change: WorkerChange) -> Result<WorkerControl, Error> {
        self.namespace.set_worker(Scope::internal(), "repair", change, None).await
    }

    async fn control(&self) -> WorkerControl {
        self.namespace.worker_control(Scope::internal(), "repair").await.unwrap()
    }

    async fn pause_left(&self) -> Option<Duration> {
        self.control().await.pause_left(self.clock.now())
    }
}

#[tokio::test]
async fn pause_and_rate_are_independent_and_persist() {
    let fixture = Fixture::new().await;
    assert_eq!(fixture.control().await, WorkerControl::default());
    fixture.set(WorkerChange::Rate(Some(7))).await.unwrap();
    let set = fixture.set(WorkerChange::Pause(MINUTE)).await.unwrap();
    assert_eq!(fixture.control().await, set);
    assert_eq!((set.rate, fixture.pause_left().await), (Some(7), Some(MINUTE)));
    fixture.set(WorkerChange::Pause(Duration::ZERO)).await.unwrap();
    let rate_alone = WorkerControl { rate: Some(7), ..Default::default() };
    assert_eq!(fixture.control().await, rate_alone);
    fixture.set(WorkerChange::Rate(None)).await.unwrap();
    let snapshot = fixture.engine.snapshot().await.unwrap();
    assert_eq!(snapshot.get(&keys::worker("repair")).await.unwrap(), None);
}

#[tokio::test]
async fn each_request_has_a_greater_number() {
    let fixture = Fixture::new().await;
    let mut last = 0;
    for _ in 0..3 {
        let request = fixture.set(WorkerChange::Start).await.unwrap().request;
        assert!(request > last, "{request} after {last}");
        last = request;
    }
    fixture.set(WorkerChange::Rate(Some(1))).await.unwrap();
    assert_eq!(fixture.control().await.request, last);
}

#[tokio::test]
async fn pause_expires_and_a_wrong_clock_only_shortens_it() {
    let fixture = Fixture::new().await;
    fixture.set(WorkerChange::Pause(MINUTE)).await.unwrap();
    let control = fixture.control().await;
    let now = fixture.clock.now();
    let second = Duration::from_secs(1);
    assert_eq!(control.pause_left(now), Some(MINUTE));
    assert_eq!(control.pause_left(now.plus(MINUTE).minus(second)), Some(second));
    assert_eq!(control.pause_left(now.plus(MINUTE)), None);
    assert_eq!(control.pause_left(now.plus(HOUR)), None, "a clock that is ahead");
    assert_eq!(control.pause_left(now.minus(second)), None, "a clock that is behind");
    let too_long = fixture.set(WorkerChange::Pause(WorkerControl::PAUSE_MAX + second)).await;
    assert!(matches!(too_long, Err(Error::Invalid { .. })), "{too_long:?}");
}

#[tokio::test]
async fn lost_lease_sets_nothing_and_damaged_record_is_replaced() {
    let fixture = Fixture::new().await;
    let fence = Condition::Absent(keys::CLUSTER);
    let change = WorkerChange::Rate(Some(1));
    let refused =
        fixture.namespace.set_worker(Scope::internal(), "repair", change, Some(&fence)).await;
    assert!(matches!(refused, Err(Error::LeaseLost)), "{refused:?}");
    assert_eq!(fixture.control().await, WorkerControl::default());
    let damaged = Write::Put(keys::worker("repair"), Bytes::from_static(&[1, 9]));
    let commit = Commit { conditions: Vec::new(), writes: vec![damaged] };
    fixture.engine.commit_batch(vec![commit]).await.unwrap();
    let read = fixture.namespace.worker_control(Scope::internal(), "repair").await;
    assert!(matches!(read, Err(Error::Damaged { .. })), "{read:?}");
    fixture.set(change).await.unwrap();
    assert_eq!(fixture.control().await.rate, Some(1));
}
