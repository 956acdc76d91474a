//! Runs determined by a seed: some clients, two coordinators, one store.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::engine::Engine;
use crate::namespace::{
    Components, Confirm, Delete, FileStat, InitOptions, MakeDirectory, MakeSymlink, Namespace,
    Options, Placement, PlanUpload, PlannedChunk, Registration, RemoveXattr, Rename, Repeat,
    SetXattr, UploadPlan, WrittenChunk, init,
};
use crate::placement::{Candidate, RoundRobin};
use crate::{Committer, Error};
use bytes::Bytes;
use dfs_types::{
    Attributes, ChunkSeal, ClientId, Clock, ClusterId, Crc32c, DfsPath, DiskId, InodeId, Name,
    NodeId, NodeSecret, Precondition, Random, Receipt, RegistrationNumber, Replication, Scope,
    Seal, SeededRandom, Sha256, Stamp, Target, Timestamp, XattrName,
};
use futures_util::future::join;

use super::calls::{Answer, At, Call, Demand, Known, Mark, Operation, Seen, Slot, any_marks};
use super::store::{Lapse, PausingEngine, pause};

/// Calls per client.
const CALLS: u64 = 6;
/// The only node.
pub(in super::super) const NODE: NodeId = NodeId(1);

/// The result of a run.
pub(super) struct Run {
    pub(super) history: Vec<Operation>,
    /// Commits that the store refused.
    pub(super) conflicts: u64,
}

/// A clock that never moves.
pub(in super::super) struct StoppedClock;

impl Clock for StoppedClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000)
    }
}

/// Runs three or four clients to the end, on an empty store with a handle for each coordinator.
pub(super) async fn history(engines: [Arc<dyn Engine>; 2], seed: u64, lapse: Lapse) -> Run {
    let random = Arc::new(SeededRandom::new(seed));
    let conflicts = Arc::<AtomicU64>::default();
    let replication = Replication { factor: 1, min_write: None };
    let options = InitOptions { cluster: ClusterId::random(&*random), replication };
    init(&*engines[0], &options, &StoppedClock, &*random).await.unwrap();
    let pausing = engines.map(|inner| {
        let (random, conflicts) = (random.clone(), conflicts.clone());
        Arc::new(PausingEngine { inner, random, lapse, conflicts })
    });
    let coordinators = [open(&pausing[0]).await, open(&pausing[1]).await];
    register_node(&coordinators[0]).await;
    let before = conflicts.load(Ordering::Relaxed);
    let ticks = Arc::new(AtomicU32::new(0));
    let clients: Vec<_> = (0..3 + random.below(2) as u32)
        .map(|number| {
            let (coordinators, random, ticks) =
                (coordinators.clone(), random.clone(), ticks.clone());
            let (history, known) = (Vec::new(), Known::default());
            let client = Client { number, coordinators, random, ticks, history, known };
            tokio::spawn(client.run())
        })
        .collect();
    let mut history = Vec::new();
    for client in clients {
        history.extend(client.await.unwrap());
    }
    let conflicts = conflicts.load(Ordering::Relaxed) - before;
    Run { history, conflicts }
}

async fn open(engine: &Arc<PausingEngine>) -> Namespace {
    let (committer, serving) = Committer::new(engine.clone(), std::future::pending());
    tokio::spawn(serving);
    let random = engine.random.clone();
    let components =
        Components { engine: engine.clone(), committer, clock: Arc::new(StoppedClock), random };
    Namespace::open(components, Options::default(), None).await.unwrap()
}

pub(in super::super) async fn register_node(namespace: &Namespace) {
    let registration = Registration {
        node: NODE,
        cluster: None,
        registration: RegistrationNumber::default(),
        start: 0,
        address: String::new(),
        zone: String::new(),
        host: String::new(),
        version: String::new(),
        level: dfs_types::Level::NEWEST,
        disks: vec![DiskId(1)],
        secret: NodeSecret::from_slice(&[1; 32]).unwrap(),
    };
    let registered = namespace.register(Scope::internal(), &registration, true).await.unwrap();
    namespace.confirm_registration(Scope::internal(), NODE, registered.number).await.unwrap();
}

struct Client {
    number: u32,
    coordinators: [Namespace; 2],
    random: Arc<SeededRandom>,
    /// Counts the beginnings and ends of the calls of all clients.
    ticks: Arc<AtomicU32>,
    history: Vec<Operation>,
    known: Known,
}

impl Client {
    async fn run(mut self) -> Vec<Operation> {
        for sequence in 0..CALLS {
            let slot = Slot { number: self.number, sequence };
            let plan = self.number * CALLS as u32 + sequence as u32;
            let call = Call::any(&*self.random, slot, plan, &self.known);
            pause(&self.random).await;
            if let Call::Plan { at, size, plan } = call {
                self.put(at, size, plan, slot).await;
            } else {
                self.call(call, None).await;
            }
            for operation in &self.history {
                self.known.learn(&operation.answer);
            }
        }
        self.history
    }

    async fn put(&mut self, at: At, size: u64, plan: u32, slot: Slot) {
        let (called, coordinator) = (self.tick(), self.coordinator());
        let planned = plan_upload(coordinator, &at, size).await;
        let answer = planned.as_ref().map_or_else(failed, |_| Answer::Planned);
        let returned = self.tick();
        let call = Call::Plan { at, size, plan };
        self.history.push(Operation { call, answer, called, returned });
        if let Ok(planned) = planned {
            let demand = self.known.any_demand(&*self.random);
            let xattrs = any_marks(&*self.random);
            let call = Call::Confirm { plan, size, demand, xattrs, slot: Some(slot) };
            self.call(call, Some(&planned)).await;
        }
    }

    /// Makes a call, and repeats some of them before or after they have ended, like a client that
    /// lost its connection.
    async fn call(&mut self, call: Call, plan: Option<&UploadPlan>) {
        if call.slot().is_some() && self.random.below(6) == 0 {
            let again = async {
                for _ in 0..self.random.below(150) {
                    tokio::task::yield_now().await;
                }
                self.recorded(&call, plan).await
            };
            let (first, second) = join(self.recorded(&call, plan), again).await;
            self.history.extend([first, second]);
        } else {
            let operation = self.recorded(&call, plan).await;
            self.history.push(operation);
        }
    }

    async fn recorded(&self, call: &Call, plan: Option<&UploadPlan>) -> Operation {
        let called = self.tick();
        let answer = self.answer(call, plan).await.unwrap_or_else(|error| failed(&error));
        let returned = self.tick();
        Operation { call: call.clone(), answer, called, returned }
    }

    fn tick(&self) -> u32 {
        self.ticks.fetch_add(1, Ordering::Relaxed)
    }

    fn coordinator(&self) -> &Namespace {
        &self.coordinators[self.random.below(2) as usize]
    }

    async fn answer(&self, call: &Call, plan: Option<&UploadPlan>) -> Result<Answer, Error> {
        let namespace = self.coordinator();
        let repeat = call.slot().map(repeat);
        let repeat = repeat.as_ref();
        match call {
            Call::MakeDirectory { at, parents, .. } => {
                let attributes = Attributes::default();
                let request = MakeDirectory { target: target(at), parents: *parents, attributes };
                namespace
                    .make_directory(Scope::internal(), &request, repeat)
                    .await
                    .map(|stat| node(&stat))
            }
            Call::MakeSymlink { at, target: symlink_target, replace, .. } => {
                let request = MakeSymlink {
                    target: target(at),
                    symlink_target: Bytes::from(symlink_target.clone()),
                    attributes: Attributes::default(),
                    replace: *replace,
                };
                namespace
                    .make_symlink(Scope::internal(), &request, repeat)
                    .await
                    .map(|stat| node(&stat))
            }
            Call::Rename { from, to, demand, exchange, .. } => {
                let (from, to) = (target(from), target(to));
                let precondition = demand.map(precondition);
                let request = Rename { from, to, precondition, exchange: *exchange };
                namespace.rename(Scope::internal(), &request, repeat).await.map(|()| Answer::Done)
            }
            Call::Delete { at, recursive, now, demand, .. } => {
                let request = Delete {
                    target: target(at),
                    recursive: *recursive,
                    now: *now,
                    precondition: demand.map(precondition),
                };
                let until = namespace.delete(Scope::internal(), &request, repeat).await?;
                Ok(Answer::Until(until.is_some()))
            }
            Call::Confirm { size, demand, xattrs, .. } => {
                let plan = plan.expect("a confirm follows a plan");
                let chunks = plan.chunks.iter().map(|planned| written(namespace, planned));
                let request = Confirm {
                    tokens: vec![plan.token.clone()],
                    chunks: chunks.collect(),
                    size: *size,
                    attributes: Attributes::default(),
                    precondition: demand.map(precondition),
                    xattrs: xattrs.iter().map(|(name, mark)| (xattr(name), value(*mark))).collect(),
                };
                namespace.confirm(Scope::internal(), &request, repeat).await.map(|stat| node(&stat))
            }
            Call::SetXattr { at, name, mark, demand, .. } => {
                let request = SetXattr {
                    target: target(at),
                    follow: true,
                    name: xattr(name),
                    value: value(*mark),
                    create: *demand == Some(false),
                    replace: *demand == Some(true),
                };
                let set = namespace.set_xattr(Scope::internal(), &request, repeat).await;
                set.map(|stat| node(&stat))
            }
            Call::RemoveXattr { at, name, .. } => {
                let request = RemoveXattr { target: target(at), follow: true, name: xattr(name) };
                let removed = namespace.remove_xattr(Scope::internal(), &request, repeat).await;
                removed.map(|stat| node(&stat))
            }
            Call::Xattrs { at } => {
                let found = namespace.xattr_values(Scope::internal(), &target(at), true).await?;
                let marks = found.iter().map(|(name, value)| (name.to_string(), mark(value)));
                Ok(Answer::Marked(marks.collect()))
            }
            Call::Stat { at, follow } => {
                let target = target(at);
                namespace.stat(Scope::internal(), &target, *follow).await.map(|stat| node(&stat))
            }
            Call::List { at } => {
                let limit = Namespace::PAGE_LEN_MAX;
                let page =
                    namespace.list_directory(Scope::internal(), &target(at), None, limit).await?;
                let entries = page.entries.into_iter();
                Ok(Answer::Listed(entries.map(|e| (e.name.to_string(), seen(&e.stat))).collect()))
            }
            Call::Plan { .. } => unreachable!("plans are kept for their confirm"),
        }
    }
}

async fn plan_upload(namespace: &Namespace, at: &At, size: u64) -> Result<UploadPlan, Error> {
    let (zone, host) = (String::new(), String::new());
    let candidates = [Candidate { node: NODE, zone, host, free: 1 << 40 }];
    let selector = RoundRobin::default();
    let request = PlanUpload {
        target: target(at),
        size: Some(size),
        chunk_size: None,
        replication_factor: None,
        max_chunks: 0,
        client_host: String::new(),
        client_zone: String::new(),
    };
    let placement = Placement { candidates: &candidates, selector: &selector };
    namespace.plan_upload(Scope::internal(), &request, &placement).await
}

/// Returns a chunk as if its node had stored it.
pub(in super::super) fn written(namespace: &Namespace, planned: &PlannedChunk) -> WrittenChunk {
    let length = planned.max_length;
    let seal = ChunkSeal { length, crc32c: Crc32c(1), sha256: Sha256([1; 32]) };
    let registration = RegistrationNumber(1);
    let receipt = Receipt {
        part: dfs_types::Part::WHOLE,
        chunk: planned.chunk,
        length,
        crc32c: seal.crc32c,
        node: NODE,
        disk: DiskId(1),
        stamp: Stamp(1),
        registration,
        seal: Seal([0; 32]),
    };
    let receipt = receipt.sealed(&namespace.keys().receipt(NODE, registration));
    let file_offset = planned.file_offset;
    WrittenChunk { chunk: planned.chunk, file_offset, seal, receipts: vec![receipt] }
}

fn repeat(slot: Slot) -> Repeat {
    let Slot { number, sequence } = slot;
    let slot = dfs_types::Slot { client: ClientId(u128::from(number)), slot: 0, sequence };
    Repeat { slot, body: Sha256::of(&sequence.to_be_bytes()) }
}

pub(in super::super) fn at(path: &str) -> Target {
    Target::Path(DfsPath::new(path.as_bytes().to_vec()).unwrap())
}

fn target(place: &At) -> Target {
    match place {
        At::Path(path) => at(path),
        At::Child(parent, name) => {
            Target::child(InodeId(*parent), &Name::new(name.clone()).unwrap())
        }
    }
}

fn precondition(demand: Demand) -> Precondition {
    match demand {
        Demand::Absent => Precondition::Absent,
        Demand::Inode(inode) => Precondition::Inode { inode: InodeId(inode), change: None },
    }
}

fn failed(error: &Error) -> Answer {
    Answer::Failed(error.code())
}

fn node(stat: &FileStat) -> Answer {
    Answer::Node(seen(stat))
}

fn seen(stat: &FileStat) -> Seen {
    let target = String::from_utf8_lossy(&stat.symlink_target).into_owned();
    let xattrs = stat.xattrs as usize;
    Seen { inode: stat.inode.0, kind: stat.kind, size: stat.size, target, xattrs }
}

fn xattr(name: &str) -> XattrName {
    XattrName::new(name.to_owned()).unwrap()
}

/// Returns a value that begins with its mark. Every other one is too large for the inode record.
fn value(mark: Mark) -> Bytes {
    let mut value = mark.to_be_bytes().to_vec();
    value.resize(if mark.is_multiple_of(2) { 4 } else { 2_000 }, 0);
    value.into()
}

fn mark(value: &[u8]) -> Mark {
    value.first_chunk().map_or(Mark::MAX, |mark| Mark::from_be_bytes(*mark))
}
