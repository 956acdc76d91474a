//! Policies: who gets which replication factor, and when.

use dfs_types::{ChunkId, ErrorCode, Generation, Redundancy, SeededRandom};

use super::floor::{interleave, second};
use super::*;
use crate::check::check;

fn copies(copies: u8) -> Policy {
    Policy { copies, min_write: None }
}

impl Fixture {
    async fn set_policy(&self, at: &str, policy: Option<Policy>) -> Result<(), Error> {
        self.namespace.set_policy(Scope::internal(), &path(at), policy).await.map(drop)
    }

    async fn set_default(&self, factor: u8) {
        let replication = Replication { factor, min_write: None };
        self.namespace.set_replication(Scope::internal(), replication).await.unwrap();
    }

    /// Applies a part of the pending changes. Returns whether there was any.
    async fn step_policies(&self) -> bool {
        let step = self.namespace.step_policies(Scope::internal(), None).await.unwrap();
        step != PolicyStep::Idle
    }

    async fn is_pending(&self) -> bool {
        self.namespace.cluster_state(Scope::internal()).await.unwrap().has_pending_policies
    }

    async fn apply_policies(&self) {
        while self.step_policies().await {}
        assert!(!self.is_pending().await);
        for prefix in ["w/p/", "s/policy-sweep"] {
            assert_eq!(self.count(prefix).await, 0, "{prefix}");
        }
    }

    async fn put_with(&self, at: &str, size: u64, replicas: u8) -> Result<FileStat, Error> {
        let plan = self.plan_with(at, size, Some(replicas)).await?;
        let repeat = self.repeat();
        self.namespace.confirm(Scope::internal(), &self.confirm_of(&plan), Some(&repeat)).await
    }

    async fn plan_with(
        &self,
        at: &str,
        size: u64,
        replication_factor: Option<u8>,
    ) -> Result<UploadPlan, Error> {
        let request = PlanUpload {
            target: path(at),
            size: Some(size),
            chunk_size: Some(CHUNK),
            replication_factor,
            max_chunks: 0,
            client_host: String::new(),
            client_zone: String::new(),
        };
        self.namespace.plan_upload(Scope::internal(), &request, &self.placement()).await
    }

    async fn factor(&self, at: &str) -> u8 {
        self.stat(at).await.unwrap().replication_factor
    }

    /// Returns the copies that the chunks of a file want.
    async fn chunk_copies(&self, at: &str) -> Vec<u8> {
        let extents = self.open(at).await.unwrap().extents;
        extents.iter().map(|extent| extent.chunk.redundancy.target()).collect()
    }

    async fn first_chunk(&self, at: &str) -> (ChunkId, Chunk) {
        let extent = self.open(at).await.unwrap().extents.remove(0);
        (extent.chunk_id, extent.chunk)
    }

    /// Gives a chunk the copies of a policy, whatever the policy of its file.
    async fn mislabel(&self, (id, chunk): &(ChunkId, Chunk), policy: u32, copies: u8) {
        let mut tx = self.namespace.begin().await.unwrap();
        let redundancy = Redundancy::Replicated { copies };
        tx.put_chunk(*id, Some(chunk), Some(&Chunk { redundancy, policy, ..chunk.clone() }));
        self.namespace.commit(tx).await.unwrap();
    }

    async fn assert_consistent(&self, when: &str) {
        let report = check(&*self.engine, &|_| ()).await.unwrap();
        assert!(report.is_clean(), "{when}: {:#?}", report.problems);
    }
}

#[tokio::test]
async fn new_entries_inherit_and_renamed_ones_keep_their_policy() {
    let fixture = Fixture::new().await;
    for at in ["/two", "/two/old", "/other"] {
        fixture.mkdir(at).await.unwrap();
    }
    fixture.put("/two/old/file", CHUNK).await.unwrap();
    fixture.set_policy("/two", Some(copies(2))).await.unwrap();
    assert_eq!(fixture.factor("/two").await, 2, "at once");
    fixture.put("/two/new", CHUNK).await.unwrap();
    fixture.mkdir("/two/sub").await.unwrap();
    fixture.put("/two/sub/new", CHUNK).await.unwrap();
    for at in ["/two/new", "/two/sub", "/two/sub/new"] {
        assert_eq!(fixture.factor(at).await, 2, "{at}");
    }
    assert_eq!(fixture.chunk_copies("/two/new").await, [2]);
    assert_eq!(fixture.factor("/two/old/file").await, 3, "not yet");
    fixture.apply_policies().await;
    assert_eq!(fixture.factor("/two/old/file").await, 2);
    assert_eq!(fixture.chunk_copies("/two/old/file").await, [2]);
    fixture.rename("/two/old", "/other/old").await.unwrap();
    fixture.put("/other/old/later", CHUNK).await.unwrap();
    assert_eq!(fixture.factor("/other/old/later").await, 2);
    fixture.put("/other/file", CHUNK).await.unwrap();
    assert_eq!(fixture.factor("/other/file").await, 3);
    fixture.set_policy("/other", None).await.unwrap();
    fixture.apply_policies().await;
    let stat = fixture.stat("/other/old/file").await.unwrap();
    assert_eq!((stat.replication_factor, stat.policy), (3, 0), "the default again");
    assert_eq!(fixture.count("p/").await, 1, "equal policies share a record");
    fixture.assert_consistent("at the end").await;
}

#[tokio::test]
async fn policy_of_a_file_changes_all_its_chunks() {
    let fixture = Fixture::new().await;
    fixture.put("/long", 60 * CHUNK).await.unwrap();
    fixture.set_policy("/long", Some(copies(1))).await.unwrap();
    assert!(fixture.step_policies().await && fixture.is_pending().await);
    let found = fixture.chunk_copies("/long").await;
    assert!(found.contains(&1) && found.contains(&3), "some in one step: {found:?}");
    fixture.apply_policies().await;
    assert_eq!(fixture.chunk_copies("/long").await, [1; 60]);
    assert_eq!(fixture.count("w/r/").await, 60, "each has replicas to drop");
    fixture.set_policy("/long", Some(copies(3))).await.unwrap();
    fixture.apply_policies().await;
    assert_eq!(
        (fixture.chunk_copies("/long").await, fixture.count("w/r/").await),
        (vec![3; 60], 0)
    );
    fixture.assert_consistent("at the end").await;
}

#[tokio::test]
async fn default_changes_the_files_without_a_policy_of_their_own() {
    let fixture = Fixture::new().await;
    fixture.put("/default", 3 * CHUNK).await.unwrap();
    fixture.put_with("/own", CHUNK, 3).await.unwrap();
    fixture.put("/deleted", CHUNK).await.unwrap();
    fixture.delete("/deleted", false, false).await.unwrap();
    fixture.set_default(2).await;
    fixture.apply_policies().await;
    assert_eq!(fixture.chunk_copies("/default").await, [2, 2, 2]);
    assert_eq!(fixture.factor("/default").await, 2);
    assert_eq!((fixture.chunk_copies("/own").await, fixture.factor("/own").await), (vec![3], 3));
    let request = Undelete { target: path("/deleted"), to: None };
    fixture.namespace.undelete(Scope::internal(), &request, None).await.unwrap();
    assert_eq!(fixture.chunk_copies("/deleted").await, [2], "what can be restored follows, too");
    fixture.set_default(3).await;
    fixture.apply_policies().await;
    assert_eq!(fixture.chunk_copies("/default").await, [3, 3, 3]);
    assert_eq!(fixture.count("w/r/").await, 0);
}

/// An upload planned before a change and confirmed after it, directly or staged.
#[tokio::test]
async fn upload_that_overlaps_a_change_ends_with_the_new_policy() {
    let fixture = Fixture::new().await;
    fixture.mkdir("/d").await.unwrap();
    for (name, chunks) in [("/d/direct", 2), ("/d/staged", 2)] {
        let is_staged = name == "/d/staged";
        for change in ["default", "directory"] {
            let at = format!("{name}-{change}");
            let plan = fixture.plan(&at, chunks * CHUNK).await.unwrap();
            let confirm = fixture.confirm_of(&plan);
            if is_staged {
                let staged = &confirm.chunks[..1];
                fixture.namespace.stage(Scope::internal(), &confirm.tokens, staged).await.unwrap();
            }
            match change {
                "default" => fixture.set_default(2).await,
                _ => fixture.set_policy("/d", Some(copies(1))).await.unwrap(),
            }
            fixture.apply_policies().await;
            let repeat = fixture.repeat();
            let scope = Scope::internal();
            fixture.namespace.confirm(scope, &confirm, Some(&repeat)).await.unwrap();
            fixture.apply_policies().await;
            let wanted = if change == "default" { 2 } else { 1 };
            assert_eq!(fixture.factor(&at).await, wanted, "{at}");
            assert_eq!(fixture.chunk_copies(&at).await, [wanted; 2], "{at}");
            fixture.set_policy("/d", None).await.unwrap();
            fixture.set_default(3).await;
            fixture.apply_policies().await;
        }
    }
    fixture.assert_consistent("at the end").await;
}

#[tokio::test]
async fn change_of_policy_invalidates_proofs_and_the_last_wanted_replicas_are_kept() {
    let fixture = Fixture::new().await;
    fixture.put("/file", CHUNK).await.unwrap();
    let (id, before) = fixture.first_chunk("/file").await;
    fixture.set_policy("/file", Some(copies(2))).await.unwrap();
    fixture.apply_policies().await;
    let (_, after) = fixture.first_chunk("/file").await;
    assert!(after.generation > before.generation);
    assert_eq!(after.redundancy, Redundancy::Replicated { copies: 2 });
    let doomed: Vec<ReplicaId> = after.replicas[1..].iter().map(ReplicaId::of).collect();
    let swap = async |generation: Generation, doomed: &[ReplicaId]| {
        let proof = fixture.proof_of(id, generation);
        let doom = Some(Doom { replicas: doomed, kept: &proof });
        let namespace = &fixture.namespace;
        namespace.swap_replicas(Scope::internal(), id, generation, &[], doom, None).await
    };
    let stale = swap(before.generation, &doomed[..1]).await;
    assert!(matches!(stale, Err(Error::ChunkChanged(_))), "{stale:?}");
    let both = swap(after.generation, &doomed).await;
    assert!(matches!(both, Err(Error::ReplicaNeeded(_))), "{both:?}");
    let trimmed = swap(after.generation, &doomed[..1]).await.unwrap();
    assert_eq!(trimmed.sound_replicas().count(), 2);
    assert!(trimmed.is_at_rest() && trimmed.awaits_deletion());
}

impl Fixture {
    /// Returns the proof that node 1 read its replica.
    fn proof_of(&self, chunk: ChunkId, generation: Generation) -> dfs_types::ReadProof {
        let (node, registration) = (NodeId(1), RegistrationNumber(1));
        let part = dfs_types::Part::WHOLE;
        let replica = dfs_types::ReplicaRef { chunk, part, disk: DiskId(1), stamp: Stamp(1) };
        let seal = Seal([0; 32]);
        let proof = dfs_types::ReadProof { replica, generation, node, registration, seal };
        proof.sealed(&self.namespace.keys().receipt(node, registration))
    }
}

#[tokio::test]
async fn write_quorum_is_that_of_the_policy() {
    let fixture = Fixture::new().await;
    fixture.mkdir("/d").await.unwrap();
    let of = async |at: &str| {
        let plan = fixture.plan(at, CHUNK).await.unwrap();
        (plan.replication_factor, plan.min_write_replicas)
    };
    assert_eq!(of("/d/a").await, (3, 2));
    let all = Some(Policy { copies: 4, min_write: Some(4) });
    fixture.set_policy("/d", all).await.unwrap();
    assert_eq!(of("/d/a").await, (4, 4));
    let plan = fixture.plan("/d/a", CHUNK).await.unwrap();
    let mut confirm = fixture.confirm_of(&plan);
    confirm.chunks[0].receipts.pop();
    let refused = fixture.namespace.confirm(Scope::internal(), &confirm, None).await;
    assert!(matches!(refused, Err(Error::BadChunk { .. })), "{refused:?}");
    // Without a quorum of its own, it has that of the cluster.
    fixture.set_policy("/d", Some(copies(4))).await.unwrap();
    assert_eq!(of("/d/a").await, (4, 3));
    let replication = Replication { factor: 3, min_write: Some(1) };
    fixture.namespace.set_replication(Scope::internal(), replication).await.unwrap();
    assert_eq!(of("/d/a").await, (4, 1));
}

#[tokio::test]
async fn policies_that_cannot_be_and_targets_without_content_are_refused() {
    let fixture = Fixture::new().await;
    fixture.put("/file", 1).await.unwrap();
    fixture.symlink("/link", "/file").await.unwrap();
    for (number, min_write) in [(0, None), (17, None), (2, Some(3)), (2, Some(0))] {
        let policy = Some(Policy { copies: number, min_write });
        let refused = fixture.set_policy("/file", policy).await;
        assert_eq!(code(refused), ErrorCode::InvalidArgument, "{number} {min_write:?}");
    }
    assert_eq!(code(fixture.set_policy("/missing", Some(copies(2))).await), ErrorCode::NotFound);
    let link = fixture.namespace.stat(Scope::internal(), &path("/link"), false).await.unwrap();
    let target = Target::Inode(link.inode);
    let refused = fixture.namespace.set_policy(Scope::internal(), &target, Some(copies(2))).await;
    assert!(matches!(refused, Err(Error::IsASymlink { .. })), "{refused:?}");
    fixture.set_policy("/link", Some(copies(2))).await.unwrap();
    assert_eq!(fixture.factor("/file").await, 2, "a path through a symlink");
    let of_inode = Target::Inode(fixture.stat("/file").await.unwrap().inode);
    fixture.namespace.set_policy(Scope::internal(), &of_inode, Some(copies(4))).await.unwrap();
    assert_eq!(fixture.factor("/file").await, 4);
}

/// Records that disagree with the policy of their file, as no change leaves them.
#[tokio::test]
async fn chunks_that_do_not_follow_their_file_are_found_and_changed() {
    let fixture = Fixture::new().await;
    fixture.put("/file", 2 * CHUNK).await.unwrap();
    fixture.set_policy("/file", Some(copies(2))).await.unwrap();
    fixture.apply_policies().await;
    fixture.mislabel(&fixture.first_chunk("/file").await, 0, 4).await;
    let page = fixture.namespace.scan_chunks(Scope::internal(), None, 10).await.unwrap();
    let follow = async || {
        fixture.namespace.follow_policies(Scope::internal(), &page.chunks, None).await.unwrap()
    };
    assert_eq!(follow().await, 1);
    assert_eq!(fixture.chunk_copies("/file").await, [2, 2]);
    assert_eq!(follow().await, 0);
}

/// The chunk has the policy of the newer label already, so the walk that applies that label finds
/// nothing to change.
#[tokio::test]
async fn label_set_while_chunks_are_compared_with_their_files_wins() {
    let fixture = Fixture::new().await;
    fixture.put("/file", CHUNK).await.unwrap();
    for number in [1, 2] {
        fixture.set_policy("/file", Some(copies(number))).await.unwrap();
        fixture.apply_policies().await;
    }
    fixture.mislabel(&fixture.first_chunk("/file").await, 1, 1).await;
    let (namespace, engine) = second(&fixture).await;
    let page = fixture.namespace.scan_chunks(Scope::internal(), None, 10).await.unwrap();
    let follow = namespace.follow_policies(Scope::internal(), &page.chunks, None);
    let label = async {
        fixture.set_policy("/file", Some(copies(1))).await.unwrap();
        fixture.apply_policies().await;
    };
    assert_eq!(interleave(&engine, follow, label).await.unwrap(), 0);
    assert_eq!((fixture.factor("/file").await, fixture.chunk_copies("/file").await), (1, vec![1]));
}

/// A second pass starts at the position at which the first one is about to end.
#[tokio::test]
async fn default_set_while_the_pass_of_another_one_ends_is_applied() {
    let fixture = Fixture::new().await;
    fixture.put("/file", CHUNK).await.unwrap();
    fixture.set_default(2).await;
    assert!(fixture.is_pending().await);
    let page = fixture.namespace.scan_chunks(Scope::internal(), None, 10).await.unwrap();
    let followed = fixture.namespace.follow_policies(Scope::internal(), &page.chunks, None).await;
    assert_eq!(followed.unwrap(), 1, "what is left of the pass is to note that it ended");
    let (namespace, engine) = second(&fixture).await;
    let step = namespace.step_policies(Scope::internal(), None);
    interleave(&engine, step, fixture.set_default(1)).await.unwrap();
    fixture.apply_policies().await;
    assert_eq!(fixture.chunk_copies("/file").await, [1]);
}

#[tokio::test]
async fn default_with_the_same_number_of_replicas_starts_no_pass() {
    let fixture = Fixture::new().await;
    fixture.put("/file", CHUNK).await.unwrap();
    fixture.set_default(2).await;
    fixture.apply_policies().await;
    let set = async |min_write| {
        let replication = Replication { factor: 2, min_write };
        fixture.namespace.set_replication(Scope::internal(), replication).await.unwrap()
    };
    let before = set(None).await;
    assert_eq!(set(None).await, before, "idempotent");
    assert!(set(Some(1)).await > before);
    assert_eq!(fixture.count("s/policy-sweep").await, 0);
    assert!(!fixture.step_policies().await);
    assert_eq!(fixture.plan("/next", CHUNK).await.unwrap().min_write_replicas, 1);
}

#[tokio::test]
async fn repeat_of_the_newest_change_of_a_path_starts_no_walk() {
    let fixture = Fixture::new().await;
    fixture.mkdir("/d").await.unwrap();
    fixture.put("/d/file", CHUNK).await.unwrap();
    fixture.set_policy("/d", Some(copies(2))).await.unwrap();
    fixture.apply_policies().await;
    fixture.set_policy("/d", Some(copies(2))).await.unwrap();
    assert_eq!(fixture.count("w/p/").await, 0, "idempotent");
    // After another change it is one again: it replaces what was set below since.
    fixture.set_policy("/d/file", Some(copies(1))).await.unwrap();
    fixture.apply_policies().await;
    fixture.set_policy("/d", Some(copies(2))).await.unwrap();
    assert_eq!(fixture.count("w/p/").await, 1);
}

/// The longest paths whose every name is a condition, and a pending change for both.
#[tokio::test]
async fn rename_of_deep_names_fits_into_one_commit_while_a_change_is_applied() {
    let fixture = Fixture::new().await;
    let deep = |top: &str| format!("/{top}{}", "/d".repeat(38));
    for top in ["from", "to"] {
        let attributes = Attributes { mode: 0o755, ..Attributes::default() };
        let request = MakeDirectory { target: path(&deep(top)), parents: true, attributes };
        fixture.namespace.make_directory(Scope::internal(), &request, None).await.unwrap();
        fixture.put(&format!("{}/file", deep(top)), CHUNK).await.unwrap();
        fixture.set_policy(&format!("/{top}"), Some(copies(2))).await.unwrap();
    }
    let (from, to) = (format!("{}/file", deep("from")), format!("{}/file", deep("to")));
    let exchange = Rename { from: path(&from), to: path(&to), precondition: None, exchange: true };
    let repeat = fixture.repeat();
    fixture.namespace.rename(Scope::internal(), &exchange, Some(&repeat)).await.unwrap();
    let replace = Rename { exchange: false, ..exchange };
    let repeat = fixture.repeat();
    fixture.namespace.rename(Scope::internal(), &replace, Some(&repeat)).await.unwrap();
    assert_eq!(fixture.factor(&to).await, 2, "at once");
    fixture.apply_policies().await;
    assert_eq!(fixture.chunk_copies(&to).await, [2]);
}

/// What the namespace should be: each path with its replicas.
#[derive(Default)]
struct Model(BTreeMap<String, (bool, u8)>);

impl Model {
    fn parent(at: &str) -> &str {
        at.rsplit_once('/').map_or("", |(parent, _)| parent)
    }

    fn inherited(&self, at: &str) -> u8 {
        self.0.get(Self::parent(at)).map_or(3, |(_, copies)| *copies)
    }

    fn below<'a>(&'a self, at: &'a str) -> impl Iterator<Item = String> + 'a {
        let is_below = move |path: &&String| {
            *path == at || path.strip_prefix(at).is_some_and(|rest| rest.starts_with('/'))
        };
        self.0.keys().filter(is_below).cloned()
    }

    fn set(&mut self, at: &str, copies: u8) {
        for path in self.below(at).collect::<Vec<_>>() {
            self.0.get_mut(&path).unwrap().1 = copies;
        }
    }

    fn rename(&mut self, from: &str, to: &str) {
        for path in self.below(from).collect::<Vec<_>>() {
            let moved = self.0.remove(&path).unwrap();
            self.0.insert(format!("{to}{}", &path[from.len()..]), moved);
        }
    }

    fn pick(&self, random: &SeededRandom, is_directory: bool) -> Option<String> {
        let of_kind = self.0.iter().filter(|(_, (is_dir, _))| !is_directory || *is_dir);
        let paths: Vec<_> = of_kind.map(|(path, _)| path).collect();
        (!paths.is_empty()).then(|| paths[random.below(paths.len() as u64) as usize].clone())
    }
}

/// Changes, renames and new files in any order, and between any two steps of the walk.
#[tokio::test]
async fn applied_policies_equal_those_of_a_toy_model() {
    for seed in 0..60 {
        let fixture = Fixture::new().await;
        let random = SeededRandom::new(seed);
        let mut model = Model::default();
        model.0.insert("/d".to_owned(), (true, 3));
        fixture.mkdir("/d").await.unwrap();
        // More entries than a step labels.
        for number in 0..random.below(2) * 60 {
            let at = format!("/d/f{number:02}");
            fixture.put(&at, CHUNK).await.unwrap();
            model.0.insert(at, (false, 3));
        }
        for number in 0..40 {
            let Some(directory) = model.pick(&random, true) else { continue };
            let at = format!("{directory}/{}{number}", ["a", "n", "z"][random.below(3) as usize]);
            match random.below(10) {
                0..2 => {
                    fixture.mkdir(&at).await.unwrap();
                    model.0.insert(at.clone(), (true, model.inherited(&at)));
                }
                2..4 => {
                    let size = (1 + random.below(2)) * CHUNK;
                    fixture.put(&at, size).await.unwrap();
                    model.0.insert(at.clone(), (false, model.inherited(&at)));
                }
                4 => {
                    fixture.put_with(&at, CHUNK, 4).await.unwrap();
                    model.0.insert(at, (false, 4));
                }
                5..7 => {
                    let from = model.pick(&random, false).unwrap();
                    if fixture.rename(&from, &at).await.is_ok() {
                        model.rename(&from, &at);
                    }
                }
                7 => {
                    let of = model.pick(&random, random.below(2) == 0).unwrap();
                    let wanted = 1 + random.below(4) as u8;
                    // Three is the default.
                    let policy = if wanted == 3 { None } else { Some(copies(wanted)) };
                    fixture.set_policy(&of, policy).await.unwrap();
                    model.set(&of, wanted);
                }
                _ => {
                    fixture.step_policies().await;
                }
            }
        }
        fixture.assert_consistent(&format!("seed {seed}, half way")).await;
        fixture.apply_policies().await;
        for (at, (is_directory, wanted)) in &model.0 {
            assert_eq!(fixture.factor(at).await, *wanted, "seed {seed}: {at}");
            if !is_directory {
                let found = fixture.chunk_copies(at).await;
                assert!(found.iter().all(|copies| copies == wanted), "seed {seed}: {at} {found:?}");
            }
        }
        fixture.assert_consistent(&format!("seed {seed}")).await;
    }
}
