//! Chunk records and their work keys.

use dfs_types::{
    ChunkId, DiskNumber, Generation, NodeState, Part, ReadProof, ReplicaCondition, ReplicaRef,
    ReplicaVerdict, Seal, SeededRandom,
};

use super::*;
use crate::check::check;
use crate::chunk_health::{Cluster, Contact, NodeIntent, NodeLiveness};

impl Fixture {
    /// Writes a file of one chunk with replicas on nodes 1 to 3.
    async fn put_chunk(&self, at: &str) -> (PlannedChunk, ChunkSeal) {
        let plan = self.plan(at, CHUNK).await.unwrap();
        let confirm = self.confirm_of(&plan);
        self.namespace.confirm(Scope::internal(), &confirm, None).await.unwrap();
        (plan.chunks[0].clone(), confirm.chunks[0].seal)
    }

    async fn chunk(&self, chunk: ChunkId) -> Option<Chunk> {
        self.namespace.chunks(Scope::internal(), &[chunk]).await.unwrap().remove(0)
    }

    /// Keys under `w/r/` and `w/d/`.
    async fn work(&self) -> (usize, usize) {
        (self.count("w/r/").await, self.count("w/d/").await)
    }

    async fn assert_clean(&self, when: &str) {
        let report = check(&*self.engine, &|_| ()).await.unwrap();
        assert!(report.is_clean(), "{when}: {:#?}", report.problems);
    }

    fn receipt_on(&self, of: &(PlannedChunk, ChunkSeal), node: u128, stamp: u64) -> Receipt {
        let node = NodeId(node);
        let receipt = Receipt { stamp: Stamp(stamp), ..self.receipt(&of.0, of.1, node) };
        receipt.sealed(&self.namespace.keys().receipt(node, receipt.registration))
    }

    /// Returns the proof that a node read its replica at a generation.
    fn proof(&self, chunk: ChunkId, node: u128, stamp: u64, generation: Generation) -> ReadProof {
        let (replica, node) = (name(chunk, node, stamp), NodeId(node));
        let registration = RegistrationNumber(1);
        let proof = ReadProof { replica, generation, node, registration, seal: Seal([0; 32]) };
        proof.sealed(&self.namespace.keys().receipt(node, registration))
    }

    async fn swap(
        &self,
        chunk: ChunkId,
        generation: Generation,
        add: &[Receipt],
        doom: Option<Doom<'_>>,
    ) -> Result<Chunk, Error> {
        let scope = Scope::internal();
        self.namespace.swap_replicas(scope, chunk, generation, add, doom, None).await
    }

    /// Records a verdict of a node on its replica with stamp 1.
    async fn judge(
        &self,
        chunk: ChunkId,
        node: u128,
        condition: ReplicaCondition,
        number: u64,
    ) -> Marked {
        let verdict = verdict(name(chunk, node, 1), condition, number);
        self.mark(node, verdict, Evidence::ReadAgain).await
    }

    async fn mark(&self, node: u128, verdict: ReplicaVerdict, evidence: Evidence<'_>) -> Marked {
        let scope = Scope::internal();
        let marked = self.namespace.mark_replica(scope, NodeId(node), verdict, evidence, None);
        marked.await.unwrap()
    }
}

fn id(disk: u32, stamp: u64) -> ReplicaId {
    ReplicaId { disk: DiskNumber(disk), part: Part::WHOLE, stamp: Stamp(stamp) }
}

/// Returns the name that a node has for a replica on its first disk.
fn name(chunk: ChunkId, node: u128, stamp: u64) -> ReplicaRef {
    ReplicaRef { chunk, part: Part::WHOLE, disk: DiskId(node), stamp: Stamp(stamp) }
}

fn verdict(replica: ReplicaRef, condition: ReplicaCondition, number: u64) -> ReplicaVerdict {
    ReplicaVerdict { replica, number, condition, block: 0 }
}

fn recorded(marked: Marked) -> Chunk {
    match marked {
        Marked::Recorded { record, .. } | Marked::Known { record, .. } => record,
        other => panic!("{other:?}"),
    }
}

fn marks(chunk: &Chunk) -> Vec<(u32, u64, ReplicaMark)> {
    chunk.replicas.iter().map(|it| (it.disk.0, it.stamp.0, it.mark)).collect()
}

#[tokio::test]
async fn disk_numbers_are_kept_and_never_reused() {
    let fixture = Fixture::new().await;
    let namespace = &fixture.namespace;
    let disks = async |node: u128| {
        let stored = namespace.node(Scope::internal(), NodeId(node)).await.unwrap().unwrap();
        let shown = stored.disks.iter().map(|it| (it.number.0, it.id.0, it.is_present()));
        shown.collect::<Vec<_>>()
    };
    assert_eq!(disks(1).await, [(1, 1, true)]);
    let register = async |disks: &[u128]| {
        let last = namespace.node(Scope::internal(), NodeId(1)).await.unwrap().unwrap().pending.0;
        let disks = disks.iter().copied().map(DiskId).collect();
        let request = Registration { disks, ..registration(NodeId(1), last) };
        namespace.register(Scope::internal(), &request, true).await.unwrap();
    };
    register(&[1, 77]).await;
    assert_eq!(disks(1).await, [(1, 1, true), (5, 77, true)]);
    register(&[77]).await;
    assert_eq!(disks(1).await, [(1, 1, false), (5, 77, true)], "the disk may come back");
    register(&[77, 1]).await;
    assert_eq!(disks(1).await, [(1, 1, true), (5, 77, true)]);
    // A disk that is moved to another node gets a new number there.
    let moved = Registration { disks: vec![DiskId(77)], ..registration(NodeId(50), 0) };
    namespace.register(Scope::internal(), &moved, true).await.unwrap();
    assert_eq!(disks(50).await, [(6, 77, true)]);
    let chunk = fixture.put_chunk("/f").await.0.chunk;
    let record = fixture.chunk(chunk).await.unwrap();
    let directory = namespace.disks_of([&record]).await.unwrap();
    let location = DiskLocation { node: NodeId(2), disk: DiskId(2) };
    assert_eq!(directory.get(DiskNumber(2)), Some(location));
    assert_eq!(directory.get(DiskNumber(7)), None);
}

#[tokio::test]
async fn only_chunks_created_short_of_replicas_get_repair_work() {
    let fixture = Fixture::new().await;
    let whole = fixture.put_chunk("/whole").await;
    assert_eq!(fixture.work().await, (0, 0));
    let plan = fixture.plan("/short", CHUNK).await.unwrap();
    let mut confirm = fixture.confirm_of(&plan);
    confirm.chunks[0].receipts.pop();
    fixture.namespace.confirm(Scope::internal(), &confirm, None).await.unwrap();
    let short = plan.chunks[0].chunk;
    assert_eq!(fixture.work().await, (1, 0));
    let waiting = fixture.namespace.chunks_to_repair(Scope::internal(), None, 10).await.unwrap();
    assert_eq!(waiting.chunks.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [short]);
    let (record, of) = (waiting.chunks[0].1.clone(), (plan.chunks[0].clone(), whole.1));
    let third = fixture.receipt_on(&of, 4, 1);
    let repaired = fixture.swap(short, record.generation, &[third], None).await;
    assert!(repaired.unwrap().is_at_rest());
    assert_eq!(fixture.work().await, (0, 0));
    for file in ["/whole", "/short"] {
        fixture.delete(file, false, true).await.unwrap();
    }
    fixture.reap(false).await;
    assert_eq!(fixture.work().await, (0, 2));
    let all = [1, 2, 3, 4].map(|disk| id(disk, 1));
    fixture.namespace.forget_replicas(Scope::internal(), short, &all, None).await.unwrap();
    assert!(fixture.chunk(short).await.is_some(), "a commit in flight may still register it");
    let later = fixture.clock.now().plus(Duration::from_millis(1));
    fixture.namespace.raise_gc_floor(Scope::internal(), later, None).await.unwrap();
    fixture.namespace.forget_replicas(Scope::internal(), whole.0.chunk, &all, None).await.unwrap();
    assert!(fixture.chunk(whole.0.chunk).await.is_none(), "removed with its last replica");
    assert_eq!(
        fixture.namespace.sweep_tombstones(Scope::internal(), None, 10, None).await.unwrap(),
        None
    );
    assert_eq!((fixture.count("k/").await, fixture.count("w/").await), (0, 0));
}

#[tokio::test]
async fn conditional_swap_keeps_the_last_sound_replica() {
    use ReplicaCondition::Bad;
    use ReplicaMark::{Doomed, Sound};
    let fixture = Fixture::new().await;
    let of = fixture.put_chunk("/f").await;
    let chunk = of.0.chunk;
    let record = fixture.chunk(chunk).await.unwrap();
    let all = [1, 2, 3].map(|disk| id(disk, 1));
    let kept = fixture.proof(chunk, 3, 1, record.generation);
    let gone =
        fixture.swap(chunk, record.generation, &[], Some(Doom { replicas: &all, kept: &kept }));
    assert!(matches!(gone.await, Err(Error::BadProof { .. })));
    let marked = recorded(fixture.judge(chunk, 1, Bad, 1).await);
    assert_eq!((marked.sound_replicas().count(), fixture.work().await), (2, (1, 0)));
    assert_eq!(recorded(fixture.judge(chunk, 1, Bad, 1).await), marked);
    let doom = Some(Doom { replicas: &all[..1], kept: &kept });
    let stale = fixture.swap(chunk, record.generation, &[], doom).await;
    assert!(matches!(stale, Err(Error::ChunkChanged(_))));
    let fresh = fixture.receipt_on(&of, 4, 1);
    let forged = Receipt { stamp: Stamp(9), ..fresh };
    let lie = fixture.swap(chunk, marked.generation, &[forged], None).await;
    assert!(matches!(lie, Err(Error::BadReceipt { .. })));
    let kept = fixture.proof(chunk, 4, 1, marked.generation);
    let doom = Some(Doom { replicas: &all[..1], kept: &kept });
    let swapped = fixture.swap(chunk, marked.generation, &[fresh], doom).await.unwrap();
    let left = [(1, 1, Doomed), (2, 1, Sound), (3, 1, Sound), (4, 1, Sound)];
    assert_eq!((marks(&swapped), fixture.work().await), (left.to_vec(), (0, 1)));
    // A live replica is not forgotten, even if the node deleted it.
    let namespace = &fixture.namespace;
    namespace.forget_replicas(Scope::internal(), chunk, &[id(1, 1), id(2, 1)], None).await.unwrap();
    assert_eq!(marks(&fixture.chunk(chunk).await.unwrap()), left[1..]);
    assert_eq!(fixture.work().await, (0, 0));
    assert_eq!(fixture.judge(chunk, 1, Bad, 2).await, Marked::Unnamed);
}

#[tokio::test]
async fn replica_is_doomed_only_with_a_proof_that_another_one_was_read_since() {
    use ReplicaCondition::Bad;
    let fixture = Fixture::new().await;
    let of = fixture.put_chunk("/f").await;
    let chunk = of.0.chunk;
    let generation = fixture.chunk(chunk).await.unwrap().generation;
    let doomed = [id(1, 1)];
    let good = fixture.proof(chunk, 2, 1, generation);
    let unsealed = ReadProof { seal: Seal([0; 32]), ..good };
    let of_node_3 = fixture.namespace.keys().receipt(NodeId(3), RegistrationNumber(1));
    for (what, bad) in [
        ("unsealed", unsealed),
        ("sealed by another node", good.sealed(&of_node_3)),
        ("of another chunk", fixture.proof(ChunkId(9), 2, 1, generation)),
        ("of the doomed one", fixture.proof(chunk, 1, 1, generation)),
        ("of another replica", fixture.proof(chunk, 2, 9, generation)),
        ("of a node without one", fixture.proof(chunk, 4, 1, generation)),
        ("of an earlier generation", fixture.proof(chunk, 2, 1, Generation(0))),
    ] {
        let doom = Some(Doom { replicas: &doomed, kept: &bad });
        let swapped = fixture.swap(chunk, generation, &[], doom).await;
        assert!(matches!(swapped, Err(Error::BadProof { .. })), "{what}: {swapped:?}");
    }
    // The one that was read turned bad since.
    let marked = recorded(fixture.judge(chunk, 2, Bad, 1).await);
    let doom = |kept| Some(Doom { replicas: &doomed, kept });
    let swapped = fixture.swap(chunk, marked.generation, &[], doom(&good)).await;
    assert!(matches!(swapped, Err(Error::BadProof { .. })), "{swapped:?}");
    let again = fixture.proof(chunk, 2, 1, marked.generation);
    let swapped = fixture.swap(chunk, marked.generation, &[], doom(&again)).await;
    assert!(matches!(swapped, Err(Error::BadProof { .. })), "{swapped:?}");
    let third = fixture.proof(chunk, 3, 1, marked.generation);
    let fourth = [fixture.receipt_on(&of, 4, 1)];
    let swapped = fixture.swap(chunk, marked.generation, &fourth, doom(&third)).await;
    assert_eq!(swapped.unwrap().replicas[0].mark, ReplicaMark::Doomed);
}

#[tokio::test]
async fn swap_takes_one_read() {
    let fixture = Fixture::new().await;
    let of = fixture.put_chunk("/f").await;
    let (namespace, reads) = fixture.counting().await;
    let (chunk, doomed) = (of.0.chunk, [id(1, 1)]);
    let generation = fixture.chunk(chunk).await.unwrap().generation;
    let (added, kept) = (fixture.receipt_on(&of, 4, 1), fixture.proof(chunk, 2, 1, generation));
    let doom = Some(Doom { replicas: &doomed, kept: &kept });
    let before = (reads.keys(), reads.ranges());
    let scope = Scope::internal();
    namespace.swap_replicas(scope, chunk, generation, &[added], doom, None).await.unwrap();
    assert_eq!((reads.keys() - before.0, reads.ranges() - before.1), (1, 0));
}

#[tokio::test]
async fn bad_replica_is_doomed_only_when_all_replicas_wanted_are_sound() {
    use ReplicaCondition::Bad;
    let fixture = Fixture::new().await;
    let of = fixture.put_chunk("/f").await;
    let chunk = of.0.chunk;
    let marked = recorded(fixture.judge(chunk, 1, Bad, 1).await);
    let bad = [id(1, 1)];
    let kept = fixture.proof(chunk, 2, 1, marked.generation);
    let doom = Some(Doom { replicas: &bad, kept: &kept });
    let early = fixture.swap(chunk, marked.generation, &[], doom).await;
    assert!(matches!(early, Err(Error::BadReplicaNeeded(_))), "{early:?}");
    // A replica in its place has every block of it.
    let in_place = fixture.receipt_on(&of, 1, 2);
    let swapped = fixture.swap(chunk, marked.generation, &[in_place], None).await.unwrap();
    assert_eq!(swapped.replicas[0].mark, ReplicaMark::Doomed);
}

#[tokio::test]
async fn doomed_replica_stays_doomed_and_greatest_verdict_wins() {
    use ReplicaMark::{Bad, Doomed, Gone, Sound};
    let fixture = Fixture::new().await;
    let of = fixture.put_chunk("/f").await;
    let chunk = of.0.chunk;
    let note = async |node, condition, number| {
        let record = recorded(fixture.judge(chunk, node, condition, number).await);
        record.replicas[node as usize - 1].mark
    };
    use ReplicaCondition as C;
    for (condition, number, found) in
        [(C::Bad, 5, Bad), (C::Sound, 5, Bad), (C::Sound, 4, Bad), (C::Gone, 7, Gone)]
    {
        assert_eq!(note(1, condition, number).await, found, "{condition:?} {number}");
    }
    assert_eq!((note(1, C::Sound, 8).await, fixture.work().await), (Sound, (0, 0)));
    // A newer replica on the same node dooms the older one.
    let record = fixture.chunk(chunk).await.unwrap();
    let newer = fixture.receipt_on(&of, 1, 2);
    let swapped = fixture.swap(chunk, record.generation, &[newer], None).await.unwrap();
    assert_eq!(swapped.replicas[0].mark, Doomed);
    assert_eq!(swapped.replicas[3], Replica::new(DiskNumber(1), Part::WHOLE, Stamp(2)));
    assert_eq!(note(1, C::Sound, 99).await, Doomed);
    // Its receipt does not bring it back either.
    let older = fixture.receipt_on(&of, 1, 1);
    let back = fixture.swap(chunk, swapped.generation, &[older], None).await;
    assert!(matches!(back, Err(Error::BadReceipt { .. })), "{back:?}");
    let again = fixture.swap(chunk, swapped.generation, &[newer], None).await;
    assert_eq!(again.unwrap(), swapped, "a repeat changes nothing");
}

#[tokio::test]
async fn d03_damaged_head_makes_the_older_replica_of_its_disk_gone() {
    let fixture = Fixture::new().await;
    let of = fixture.put_chunk("/f").await;
    let chunk = of.0.chunk;
    let record = fixture.chunk(chunk).await.unwrap();
    let newer = fixture.receipt_on(&of, 1, 20);
    let swapped = fixture.swap(chunk, record.generation, &[newer], None).await.unwrap();
    let unnamed = |number| verdict(name(chunk, 1, 0), ReplicaCondition::Gone, number);
    // Found before the newer replica was built.
    let marked = fixture.mark(1, unnamed(15), Evidence::ReadAgain).await;
    assert_eq!((marked, fixture.chunk(chunk).await), (Marked::Unnamed, Some(swapped)));
    let record = recorded(fixture.mark(1, unnamed(25), Evidence::ReadAgain).await);
    assert_eq!(marks(&record)[3], (1, 20, ReplicaMark::Gone));
}

/// Returns nodes 1 to 4 with a disk each, some of them silent.
fn cluster(silent: &[u128]) -> Cluster {
    let mut cluster = Cluster::default();
    for node in 1..=4 {
        let contact = if silent.contains(&node) { Contact::Silent } else { Contact::Responsive };
        let disk = NodeDisk::new(DiskNumber(node as u32), DiskId(node));
        let intent =
            NodeIntent { state: NodeState::Active, is_leaving: false, in_maintenance: false };
        let liveness = NodeLiveness { contact, ..NodeLiveness::default() };
        cluster.add_node(NodeId(node), intent, &[disk], &liveness);
    }
    cluster
}

#[tokio::test]
async fn last_readable_replica_is_marked_only_once_it_was_read_again() {
    use ReplicaCondition::{Bad, Gone, Sound};
    let fixture = Fixture::new().await;
    let chunk = fixture.put_chunk("/f").await.0.chunk;
    // The replica on node 3 does not count as long as its node is silent.
    let seen = cluster(&[3]);
    let report = async |node, condition, number| {
        let verdict = verdict(name(chunk, node, 1), condition, number);
        fixture.mark(node, verdict, Evidence::Reported(&seen)).await
    };
    recorded(report(1, Bad, 1).await);
    let before = fixture.chunk(chunk).await.unwrap();
    for condition in [Bad, Gone] {
        assert_eq!(report(2, condition, 1).await, Marked::NotProven(name(chunk, 2, 1)));
    }
    let unnamed = verdict(name(chunk, 2, 0), Gone, 9);
    let marked = fixture.mark(2, unnamed, Evidence::Reported(&seen)).await;
    assert_eq!(marked, Marked::NotProven(name(chunk, 2, 1)), "it can be read only by its name");
    assert_eq!(fixture.chunk(chunk).await.unwrap(), before);
    recorded(report(1, Sound, 2).await);
    recorded(report(2, Bad, 1).await);
    let again = verdict(name(chunk, 1, 1), Bad, 3);
    assert!(matches!(report(1, Bad, 3).await, Marked::NotProven(_)));
    let record = recorded(fixture.mark(1, again, Evidence::ReadAgain).await);
    assert_eq!(record.sound_replicas().count(), 1);
}

#[tokio::test]
async fn verdict_on_a_replica_that_the_record_does_not_name_changes_nothing() {
    use ReplicaCondition::Bad;
    let fixture = Fixture::new().await;
    let chunk = fixture.put_chunk("/f").await.0.chunk;
    let namespace = &fixture.namespace;
    // Node 1 now has a second disk; its replica is on the first one.
    let disks = vec![DiskId(1), DiskId(77)];
    let request = Registration { disks, ..registration(NodeId(1), 1) };
    namespace.register(Scope::internal(), &request, true).await.unwrap();
    let before = fixture.chunk(chunk).await;
    let named = name(chunk, 1, 1);
    for (node, stale) in [
        (1, ReplicaRef { disk: DiskId(77), ..named }),
        (1, ReplicaRef { part: Part(1), ..named }),
        (1, ReplicaRef { stamp: Stamp(2), ..named }),
        (2, named),
    ] {
        let marked = fixture.mark(node, verdict(stale, Bad, 1), Evidence::ReadAgain).await;
        assert_eq!(marked, Marked::Unnamed, "{stale:?}");
        assert_eq!(fixture.chunk(chunk).await, before, "{stale:?}");
    }
    recorded(fixture.judge(chunk, 1, Bad, 1).await);
    assert_ne!(fixture.chunk(chunk).await, before);
}

/// Does something to a chunk, which may be refused.
async fn random_call(
    fixture: &Fixture,
    chunks: &mut Vec<(PlannedChunk, ChunkSeal)>,
    random: &SeededRandom,
) {
    let namespace = &fixture.namespace;
    if chunks.len() < 3 || random.below(8) == 0 {
        let plan = fixture.plan(&format!("/{}", chunks.len() % 6), CHUNK).await.unwrap();
        let mut confirm = fixture.confirm_of(&plan);
        confirm.chunks[0].receipts.truncate(2 + random.below(2) as usize);
        namespace.confirm(Scope::internal(), &confirm, None).await.unwrap();
        chunks.push((plan.chunks[0].clone(), confirm.chunks[0].seal));
    }
    let of = &chunks[random.below(chunks.len() as u64) as usize];
    let chunk = of.0.chunk;
    let record = fixture.chunk(chunk).await;
    let generation = record.as_ref().map(|record| record.generation).unwrap_or_default();
    let replicas = record.map(|record| record.replicas).unwrap_or_default();
    let some = || replicas.iter().filter(|_| random.below(3) == 0).map(ReplicaId::of).collect();
    let some: Vec<ReplicaId> = some();
    match random.below(7) {
        0 | 1 => {
            let node = 1 + u128::from(random.below(4));
            let receipts = [fixture.receipt_on(of, node, 1 + random.below(4))];
            let add = &receipts[..random.below(2) as usize];
            let (node, stamp) = (1 + u128::from(random.below(4)), 1 + random.below(4));
            let kept = fixture.proof(chunk, node, stamp, generation);
            let doom = (random.below(4) > 0).then_some(Doom { replicas: &some, kept: &kept });
            drop(fixture.swap(chunk, generation, add, doom).await);
        }
        2 | 3 => {
            use ReplicaCondition::{Bad, Gone, Sound};
            let condition = [Sound, Bad, Gone][random.below(3) as usize];
            let (node, stamp) = (1 + u128::from(random.below(4)), 1 + random.below(4));
            let verdict = verdict(name(chunk, node, stamp), condition, random.below(60));
            let seen = cluster(&[1 + u128::from(random.below(4))]);
            let reported = Evidence::Reported(&seen);
            let evidence = if random.below(2) == 0 { reported } else { Evidence::ReadAgain };
            fixture.mark(node, verdict, evidence).await;
        }
        4 => namespace.forget_replicas(Scope::internal(), chunk, &some, None).await.unwrap(),
        5 => {
            drop(fixture.delete(&format!("/{}", random.below(6)), false, true).await);
            fixture.reap(false).await;
        }
        _ => {
            fixture.clock.advance(Duration::from_millis(random.below(4)));
            let floor = fixture.clock.now().minus(Duration::from_millis(2));
            namespace.raise_gc_floor(Scope::internal(), floor, None).await.unwrap();
            namespace.sweep_tombstones(Scope::internal(), None, 50, None).await.unwrap();
        }
    }
}

#[tokio::test]
async fn work_keys_equal_a_recount_in_random_histories() {
    let mut seen = (0, 0);
    for seed in 0..20 {
        let (fixture, random) = (Fixture::new().await, SeededRandom::new(seed));
        let mut chunks = Vec::new();
        for step in 0..120 {
            random_call(&fixture, &mut chunks, &random).await;
            fixture.assert_clean(&format!("seed {seed}, step {step}")).await;
            let (repairs, deletions) = fixture.work().await;
            seen = (seen.0 + repairs, seen.1 + deletions);
        }
    }
    assert!(seen.0 > 1_000 && seen.1 > 1_000, "too little work: {seen:?}");
}
