//! Pressure, and the removal of tombstones.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};

use dfs_metadata::memory::MemoryEngine;
use dfs_metadata::namespace::{Confirm, Delete, Placement, PlanUpload, Registration, WrittenChunk};
use dfs_metadata::placement::Candidate;
use dfs_runtime::{JoinSecret, Shutdown};
use dfs_transport::TcpNetwork;
use dfs_types::{
    Attributes, ChunkSeal, Clock, Crc32c, DfsPath, DiskId, NodeId, Receipt, RegistrationNumber,
    Scope, Seal, SeededRandom, Sha256, Stamp, Timestamp,
};
use tokio::time::sleep;

use super::*;
use crate::build_slots::BuildQuota;
use crate::node_liveness::Member;
use crate::{Components, Service, Settings, init};

#[derive(Default)]
struct ManualClock(AtomicU64);

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::Relaxed))
    }
}

const NODE: NodeId = NodeId(1);

/// Writes a file of one chunk with one replica, and deletes it at once.
async fn write_and_delete(core: &Core) -> ChunkId {
    let registration = Registration {
        node: NODE,
        cluster: None,
        registration: RegistrationNumber(0),
        start: 0,
        address: "127.0.0.1:1".to_owned(),
        zone: String::new(),
        host: String::new(),
        version: String::new(),
        level: dfs_types::Level::NEWEST,
        disks: vec![DiskId(1)],
        secret: dfs_types::NodeSecret::from_slice(&[1; 32]).unwrap(),
    };
    let registered = core.namespace.register(Scope::internal(), &registration, true).await.unwrap();
    core.namespace.confirm_registration(Scope::internal(), NODE, registered.number).await.unwrap();
    let path = DfsPath::new(&b"/file"[..]).unwrap();
    let upload = PlanUpload {
        target: path.clone().into(),
        size: Some(5),
        chunk_size: None,
        replication_factor: Some(1),
        max_chunks: 0,
        client_host: String::new(),
        client_zone: String::new(),
    };
    let (zone, host) = (String::new(), String::new());
    let candidates = [Candidate { node: NODE, zone, host, free: 1 << 40 }];
    let placement = Placement { candidates: &candidates, selector: &*core.selector };
    let plan = core.namespace.plan_upload(Scope::internal(), &upload, &placement).await.unwrap();
    let chunk = plan.chunks[0].chunk;
    let seal = ChunkSeal { length: 5, crc32c: Crc32c(1), sha256: Sha256([0; 32]) };
    let receipt = Receipt {
        part: dfs_types::Part::WHOLE,
        chunk,
        length: 5,
        crc32c: Crc32c(1),
        node: NODE,
        disk: DiskId(1),
        stamp: Stamp(1),
        registration: registered.number,
        seal: Seal([0; 32]),
    };
    let receipts = vec![receipt.sealed(&registered.key)];
    let confirm = Confirm {
        tokens: vec![plan.token],
        chunks: vec![WrittenChunk { chunk, file_offset: 0, seal, receipts }],
        size: 5,
        attributes: Attributes::default(),
        precondition: None,
        xattrs: BTreeMap::new(),
    };
    core.namespace.confirm(Scope::internal(), &confirm, None).await.unwrap();
    let delete = Delete { target: path.into(), recursive: false, now: true, precondition: None };
    core.namespace.delete(Scope::internal(), &delete, None).await.unwrap();
    chunk
}

#[tokio::test(start_paused = true)]
async fn tombstone_is_removed_once_unused_and_below_the_floor() {
    let clock = Arc::new(ManualClock::default());
    clock.0.store(1_700_000_000_000, Ordering::Relaxed);
    let components = Components {
        engine: Arc::new(MemoryEngine::new()),
        network: Arc::new(TcpNetwork),
        clock: clock.clone(),
        random: Arc::new(SeededRandom::new(1)),
    };
    let settings = Settings {
        listen: "127.0.0.1:0".to_owned(),
        http_listen: String::new(),
        join_secret: JoinSecret::new("secret"),
        ..Settings::default()
    };
    let options = settings.init_options().unwrap();
    init(components.engine.clone(), &*clock, &SeededRandom::new(2), options).await.unwrap();
    let service = Service::start(settings, components).await.unwrap();
    let core = service.core();
    let (_trigger, shutdown) = Shutdown::new();
    tokio::spawn(service.run(shutdown));
    let chunk = write_and_delete(&core).await;
    let read = async || core.namespace.chunks(Scope::internal(), &[chunk]).await.unwrap().remove(0);

    // Its node does not respond, so the replica may still exist.
    clock.0.fetch_add(3 * 3_600_000, Ordering::Relaxed);
    sleep(TOMBSTONES_EVERY * 3).await;
    let tombstone = read().await.unwrap();
    assert!(tombstone.is_tombstone());
    assert_eq!(tombstone.replicas.len(), 1);

    // It never returns.
    core.namespace.set_node_state(Scope::internal(), NODE, NodeState::Removed).await.unwrap();
    sleep(TOMBSTONES_EVERY * 2).await;
    assert_eq!(read().await, None);
}

/// Returns a node with this many of its 100 bytes free.
fn view(free: u64, is_full: bool, state: NodeState) -> View {
    View {
        node: NODE,
        member: Member {
            address: String::new(),
            zone: String::new(),
            host: String::new(),
            version: String::new(),
            admin_state: NodeState::Active,
            maintenance_until: None,
            is_leaving: false,
            is_given_up: false,
            registration: RegistrationNumber(1),
            disks: Vec::new(),
        },
        state,
        disks: Vec::new(),
        free,
        planned: 0,
        capacity: 100,
        contended: BTreeSet::new(),
        is_full,
        is_stopping: false,
        sessions: 0,
        builds: BuildQuota::of(32),
        last_heard: Some(Duration::ZERO),
        lost_in: None,
        maintenance_left: None,
    }
}

#[test]
fn pressure_depends_on_reachable_space() {
    use NodeState::{Active, Draining, Lost, Maintenance, Suspect};
    let all_broken = View { capacity: 0, ..view(0, true, Active) };
    let never_heard = View { last_heard: None, ..view(0, true, Active) };
    let spacious = || view(90, false, Active);
    let table = [
        ("no nodes", vec![], false),
        ("enough space", vec![spacious(), spacious()], false),
        ("just below the bound", vec![view(11, false, Active)], false),
        ("at the bound", vec![view(10, false, Active)], true),
        ("sum over all nodes", vec![view(0, false, Active), view(21, false, Active)], false),
        ("a full node", vec![spacious(), view(30, true, Active)], true),
        ("a full node that takes no chunks", vec![spacious(), view(0, true, Draining)], false),
        ("a full node in maintenance", vec![spacious(), view(0, true, Maintenance)], false),
        ("a full, silent node", vec![spacious(), view(80, true, Suspect)], false),
        ("space of a lost node", vec![view(5, false, Active), view(100, false, Lost)], true),
        ("a full, lost node", vec![spacious(), view(0, true, Lost), view(0, true, Lost)], false),
        ("space of a suspect node", vec![view(5, false, Active), view(90, false, Suspect)], false),
        ("broken disks do not make a node full", vec![spacious(), all_broken], false),
        ("a node never heard", vec![spacious(), never_heard], false),
    ];
    for (what, views, expected) in table {
        assert_eq!(is_under_pressure(&views, 90, None), expected, "{what}");
    }
    let views = [spacious()];
    assert!(is_under_pressure(&views, 90, Some(Duration::ZERO)), "a writer was refused");
    assert!(is_under_pressure(&views, 90, Some(REFUSAL_COUNTS_FOR)));
    let long_ago = REFUSAL_COUNTS_FOR + Duration::from_millis(1);
    assert!(!is_under_pressure(&views, 90, Some(long_ago)), "that was long ago");
}
