//! Two operators and one Lease, on the test's clock.

use std::time::Duration;

use dfs_operator::lease::{Election, Lost};
use dfs_runtime::Readiness;
use tokio::time::{Instant, timeout};

use crate::api_server::ApiServer;

fn candidate(api: &ApiServer, name: &str) -> Election {
    Election::new(api.client(), "op", "dfs-operator", name)
}

fn holder(api: &ApiServer) -> Option<String> {
    let lease = api.get("leases", "dfs-operator")?;
    lease["spec"]["holderIdentity"].as_str().map(str::to_owned)
}

async fn acquire(election: &mut Election) {
    election.acquire(&Readiness::new("")).await;
}

#[tokio::test(start_paused = true)]
async fn c33_first_candidate_gets_the_lease_and_the_second_waits() {
    let api = ApiServer::default();
    let (mut a, mut b) = (candidate(&api, "a"), candidate(&api, "b"));
    acquire(&mut a).await;
    assert_eq!(holder(&api).as_deref(), Some("a"));
    let readiness = Readiness::new("");
    tokio::select! {
        lost = a.hold() => panic!("{lost}"),
        () = b.acquire(&readiness) => panic!("two leaders"),
        () = tokio::time::sleep(Duration::from_mins(5)) => {}
    }
    assert_eq!(readiness.reason(), None, "a waiting candidate is ready");
}

#[tokio::test(start_paused = true)]
async fn c34_released_lease_is_taken_at_once() {
    let api = ApiServer::default();
    let (mut a, mut b) = (candidate(&api, "a"), candidate(&api, "b"));
    acquire(&mut a).await;
    assert!(timeout(Duration::from_secs(5), acquire(&mut b)).await.is_err());
    a.release().await;
    let start = Instant::now();
    acquire(&mut b).await;
    assert!(start.elapsed() <= Duration::from_secs(3));
    assert_eq!(holder(&api).as_deref(), Some("b"));
}

#[tokio::test(start_paused = true)]
async fn e32_lease_of_a_dead_operator_is_taken_over_in_time() {
    let api = ApiServer::default();
    let (mut a, mut b) = (candidate(&api, "a"), candidate(&api, "b"));
    acquire(&mut a).await;
    drop(a);
    let start = Instant::now();
    acquire(&mut b).await;
    let taken = start.elapsed();
    assert!(taken >= Duration::from_secs(15) && taken < Duration::from_secs(20), "{taken:?}");
}

#[tokio::test(start_paused = true)]
async fn c35_holder_that_cannot_renew_stops_before_another_starts() {
    let api = ApiServer::default();
    let mut a = candidate(&api, "a");
    acquire(&mut a).await;
    api.set_down(true);
    let start = Instant::now();
    assert!(matches!(a.hold().await, Lost::NotRenewed(Some(_))));
    assert!(start.elapsed() < Duration::from_secs(15));
}

#[tokio::test(start_paused = true)]
async fn c35_holder_whose_lease_was_taken_stops() {
    let api = ApiServer::default();
    let mut a = candidate(&api, "a");
    acquire(&mut a).await;
    let mut lease = api.get("leases", "dfs-operator").unwrap();
    lease["spec"]["holderIdentity"] = "b".into();
    api.put("leases", lease);
    let lost = timeout(Duration::from_secs(10), a.hold()).await.unwrap();
    assert!(matches!(lost, Lost::Taken(holder) if holder == "b"));
    a.release().await;
    assert_eq!(holder(&api).as_deref(), Some("b"), "a lease not held is not released");
}

#[tokio::test(start_paused = true)]
async fn short_api_server_outage_does_not_cost_the_lease() {
    let api = ApiServer::default();
    let mut a = candidate(&api, "a");
    acquire(&mut a).await;
    let outage = async {
        tokio::time::sleep(Duration::from_secs(10)).await;
        api.set_down(true);
        tokio::time::sleep(Duration::from_secs(4)).await;
        api.set_down(false);
        tokio::time::sleep(Duration::from_mins(1)).await;
    };
    tokio::select! {
        lost = a.hold() => panic!("{lost}"),
        () = outage => {}
    }
}
