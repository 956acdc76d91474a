//! What a repeat of a call meets once answers are swept, whatever the clocks say.

use dfs_types::ErrorCode;

use super::*;
use crate::namespace::slots::{earlier_answer, keep};
use crate::namespace::transaction::Attempt;
use crate::records::answer::Answer;

const DAY: Duration = Duration::from_hours(24);

impl Fixture {
    /// The first call of a client that begins now.
    fn first_call(&self) -> Repeat {
        let client = ClientId::new(self.clock.now(), &*self.random());
        Repeat { slot: Slot { client, slot: 0, sequence: 1 }, body: Sha256([1; 32]) }
    }

    /// `rm /f`, as a client of its own.
    async fn remove(&self, repeat: &Repeat) -> Result<(), Error> {
        let request =
            Delete { target: path("/f"), recursive: false, now: true, precondition: None };
        self.namespace.delete(Scope::internal(), &request, Some(repeat)).await.map(|_| ())
    }

    /// Creates an empty file, as a client of its own.
    async fn create(&self, at: &str, repeat: &Repeat) -> Result<FileStat, Error> {
        let confirm = self.confirm_of(&self.plan(at, 0).await?);
        self.namespace.confirm(Scope::internal(), &confirm, Some(repeat)).await
    }

    async fn sweep(&self) {
        while self.namespace.sweep_slots(Scope::internal(), 10, None).await.unwrap() {}
    }
}

/// F7: the clock of the coordinator that sweeps is a day ahead for a moment.
#[tokio::test]
async fn repeated_delete_spares_the_new_file_although_the_clock_was_a_day_ahead() {
    let fixture = Fixture::new().await;
    fixture.put("/f", CHUNK).await.unwrap();
    let remove = fixture.first_call();
    fixture.remove(&remove).await.unwrap();
    fixture.put("/f", CHUNK).await.unwrap();
    let right = fixture.clock.now();
    fixture.clock.advance(DAY + HOUR);
    fixture.sweep().await;
    fixture.clock.set(right);
    // The answer was lost, so the client asks again.
    fixture.remove(&remove).await.unwrap();
    fixture.stat("/f").await.unwrap();
}

/// The same with a client whose own clock is just as far ahead.
#[tokio::test]
async fn repeated_delete_spares_the_new_file_although_several_clocks_were_ahead() {
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
async fn old_clients_are_refused_once_their_answers_are_forgotten() {
    let fixture = Fixture::new().await;
    fixture.put("/f", CHUNK).await.unwrap();
    let remove = fixture.first_call();
    fixture.remove(&remove).await.unwrap();
    let before = fixture.count("r/").await;
    fixture.clock.advance(DAY / 2);
    let later = fixture.first_call();
    fixture.create("/f", &later).await.unwrap();
    fixture.sweep().await;
    assert_eq!(fixture.count("r/").await, before + 1, "nobody is a day old");

    fixture.clock.advance(DAY * 3 / 4);
    // Only the clock says so: no call shows that time has passed.
    fixture.sweep().await;
    assert_eq!(fixture.count("r/").await, before + 1);

    let newest = fixture.first_call();
    fixture.create("/g", &newest).await.unwrap();
    fixture.sweep().await;
    assert_eq!(fixture.count("r/").await, 2, "of the two clients that are younger");
    assert_eq!(code(fixture.remove(&remove).await), ErrorCode::Stale);
    let other = Repeat { slot: Slot { sequence: 2, ..remove.slot }, ..remove };
    assert_eq!(code(fixture.remove(&other).await), ErrorCode::Stale, "not only repeats");
    fixture.create("/g", &newest).await.unwrap();
    fixture.stat("/f").await.unwrap();
}

#[tokio::test]
async fn a_call_that_was_held_up_while_its_client_was_forgotten_is_not_carried_out() {
    let fixture = Fixture::new().await;
    fixture.put("/f", CHUNK).await.unwrap();
    let remove = fixture.first_call();
    let mut tx = fixture.namespace.begin().await.unwrap();
    assert!(earlier_answer(&mut tx, &remove).await.unwrap().is_none());
    keep(&mut tx, &remove, &Answer::Done);
    fixture.remove(&remove).await.unwrap();
    fixture.clock.advance(2 * DAY);
    fixture.create("/f", &fixture.first_call()).await.unwrap();
    fixture.sweep().await;
    let late = fixture.namespace.commit(tx).await.unwrap();
    assert_eq!(late, Attempt::Conflict);
}
