//! Repeated calls after kept replies were swept, under wrong clocks.

use dfs_types::ErrorCode;

use super::*;
use crate::namespace::reply_cache::{earlier_answer, keep};
use crate::namespace::transaction::Attempt;
use crate::records::answer::Answer;

const DAY: Duration = Duration::from_hours(24);

impl Fixture {
    /// Returns the first call of a client that starts now.
    fn first_call(&self) -> Repeat {
        let client = ClientId::new(self.clock.now(), &*self.random());
        Repeat { slot: Slot { client, slot: 0, sequence: 1 }, body: Sha256([1; 32]) }
    }

    /// Runs `rm /f` as a separate client.
    async fn remove(&self, repeat: &Repeat) -> Result<(), Error> {
        let request =
            Delete { target: path("/f"), recursive: false, now: true, precondition: None };
        self.namespace.delete(Scope::internal(), &request, Some(repeat)).await.map(|_| ())
    }

    /// Creates an empty file as a separate client.
    async fn create(&self, at: &str, repeat: &Repeat) -> Result<FileStat, Error> {
        let confirm = self.confirm_of(&self.plan(at, 0).await?);
        self.namespace.confirm(Scope::internal(), &confirm, Some(repeat)).await
    }

    async fn sweep(&self) {
        while self.namespace.sweep_slots(Scope::internal(), 10, None).await.unwrap() {}
    }
}

/// F7: the clock of the sweeping coordinator is a day ahead for a moment.
#[tokio::test]
async fn f07_repeated_delete_spares_the_new_file_despite_a_fast_sweeper_clock() {
    let fixture = Fixture::new().await;
    fixture.put("/f", CHUNK).await.unwrap();
    let remove = fixture.first_call();
    fixture.remove(&remove).await.unwrap();
    fixture.put("/f", CHUNK).await.unwrap();
    let right = fixture.clock.now();
    fixture.clock.advance(DAY + HOUR);
    fixture.sweep().await;
    fixture.clock.set(right);
    // The reply was lost, so the client repeats the call.
    fixture.remove(&remove).await.unwrap();
    fixture.stat("/f").await.unwrap();
}

/// F7, with a client whose own clock is just as far ahead.
#[tokio::test]
async fn f07_repeated_delete_spares_the_new_file_despite_several_fast_clocks() {
    let fixture = Fixture::new().await;
    fixture.put("/f", CHUNK).await.unwrap();
    let remove = fixture.first_call();
    fixture.remove(&remove).await.unwrap();
    fixture.put("/f", CHUNK).await.unwrap();
    let right = fixture.clock.now();
    fixture.clock.advance(2 * DAY);
    fixture.create("/ahead", &fixture.first_call()).await.unwrap();
    fixture.sweep().await;
    fixture.clock.set(right);
    assert_eq!(code(fixture.remove(&remove).await), ErrorCode::Stale);
    fixture.stat("/f").await.unwrap();
}

#[tokio::test]
async fn old_clients_are_refused_once_their_answers_are_swept() {
    let fixture = Fixture::new().await;
    fixture.put("/f", CHUNK).await.unwrap();
    let remove = fixture.first_call();
    fixture.remove(&remove).await.unwrap();
    let before = fixture.count("r/").await;
    fixture.clock.advance(DAY / 2);
    let later = fixture.first_call();
    fixture.create("/f", &later).await.unwrap();
    fixture.sweep().await;
    assert_eq!(fixture.count("r/").await, before + 1, "no client is a day old");

    fixture.clock.advance(DAY * 3 / 4);
    // Only this process's clock says so: no other call shows that time has passed.
    fixture.sweep().await;
    assert_eq!(fixture.count("r/").await, before + 1);

    let newest = fixture.first_call();
    fixture.create("/g", &newest).await.unwrap();
    fixture.sweep().await;
    assert_eq!(fixture.count("r/").await, 2, "those of the two younger clients");
    assert_eq!(code(fixture.remove(&remove).await), ErrorCode::Stale);
    let other = Repeat { slot: Slot { sequence: 2, ..remove.slot }, ..remove };
    let refused = fixture.remove(&other).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::Stale, "new calls are refused, too");
    for time in [other.slot.client.time(), fixture.clock.now()] {
        assert!(refused.to_string().contains(&time.to_string()), "{refused}");
    }
    assert!(refused.to_string().contains("set the clock"), "{refused}");
    fixture.create("/g", &newest).await.unwrap();
    fixture.stat("/f").await.unwrap();
}

#[tokio::test]
async fn delayed_call_of_a_forgotten_client_is_refused() {
    let fixture = Fixture::new().await;
    fixture.put("/f", CHUNK).await.unwrap();
    let remove = fixture.first_call();
    let mut tx = fixture.namespace.begin().await.unwrap();
    assert!(earlier_answer(&mut tx, &remove, fixture.clock.now()).await.unwrap().is_none());
    keep(&mut tx, &remove, &Answer::Done);
    fixture.remove(&remove).await.unwrap();
    fixture.clock.advance(2 * DAY);
    fixture.create("/f", &fixture.first_call()).await.unwrap();
    fixture.sweep().await;
    let late = fixture.namespace.commit(tx).await.unwrap();
    assert_eq!(late, Attempt::Conflict);
}
