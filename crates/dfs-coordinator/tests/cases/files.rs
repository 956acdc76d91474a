//! Files by their calls: plan, confirm, stat, and refusals.

use std::time::Duration;

use dfs_proto::v1;
use dfs_types::{ClientId, ErrorCode};
use tokio_stream::StreamExt;

use crate::cluster::datanode::written;
use crate::cluster::{CHUNK, Cluster, HOUR, refused, upload_request};

fn slot(sequence: u64) -> v1::Slot {
    let client_id = ClientId(9).to_bytes().to_vec().into();
    v1::Slot { client_id, slot: 3, sequence }
}

fn mkdir(path: &str, sequence: u64) -> v1::MakeDirectoryRequest {
    v1::MakeDirectoryRequest {
        target: Some(v1::Target::of_path(path.to_owned())),
        slot: Some(slot(sequence)),
        attributes: Some(v1::Attributes { mode: 0o755, ..v1::Attributes::default() }),
        ..v1::MakeDirectoryRequest::default()
    }
}

async fn names(cluster: &Cluster, path: &str) -> Vec<String> {
    let request = v1::ListRequest {
        target: Some(v1::Target::of_path(path.to_owned())),
        ..v1::ListRequest::default()
    };
    let mut pages = cluster.client().await.list_directory(request).await.unwrap().into_inner();
    let mut names = Vec::new();
    while let Some(page) = pages.next().await {
        let entries = page.unwrap().entries.into_iter();
        names.extend(entries.map(|entry| String::from_utf8(entry.name.to_vec()).unwrap()));
    }
    names
}

#[tokio::test]
async fn confirmed_file_appears_with_its_locations() {
    let cluster = Cluster::start(3).await;
    let mut client = cluster.client().await;
    let plan = cluster.plan("/file", CHUNK + 5).await;
    assert_eq!((plan.chunks.len(), plan.has_more, plan.replication_factor), (2, false, 3));
    let data = [vec![1; CHUNK as usize], vec![2; 5]];
    let mut chunks = Vec::new();
    for (planned, data) in plan.chunks.iter().zip(&data) {
        let chunk = dfs_types::ChunkId::from_slice(&planned.chunk_id).unwrap();
        let receipts: Vec<_> = cluster.nodes.values().map(|node| node.write(chunk, data)).collect();
        chunks.push(written(chunk, planned.file_offset, data, &receipts));
    }
    let stat = v1::StatRequest { target: Some(v1::Target::of_path("/file")), no_follow: false };
    assert_eq!(refused(client.stat(stat.clone()).await), ErrorCode::NotFound);
    let confirm = v1::ConfirmRequest {
        tokens: vec![plan.token],
        chunks,
        size: CHUNK + 5,
        attributes: Some(v1::Attributes { mode: 0o640, ..v1::Attributes::default() }),
        ..v1::ConfirmRequest::default()
    };
    let confirmed = client.confirm_upload(confirm.clone()).await.unwrap().into_inner().stat;
    let seen = client.stat(stat).await.unwrap().into_inner().stat.unwrap();
    assert_eq!(confirmed.as_ref(), Some(&seen));
    assert_eq!((seen.size, seen.attributes.unwrap().mode), (CHUNK + 5, 0o640));
    // A repeat returns the first reply.
    assert_eq!(client.confirm_upload(confirm).await.unwrap().into_inner().stat, confirmed);
    assert_eq!(names(&cluster, "/").await, ["file"]);

    let open = v1::OpenRequest {
        target: Some(v1::Target::of_path("/file")),
        ..v1::OpenRequest::default()
    };
    let opened = client.open_file(open).await.unwrap().into_inner();
    let lengths: Vec<u64> = opened.extents.iter().map(|extent| extent.length).collect();
    assert_eq!((lengths, opened.nodes.len()), (vec![CHUNK, 5], 3));
    assert!(opened.extents.iter().all(|extent| extent.replicas.len() == 3));
    assert!(opened.nodes.iter().all(|node| !node.address.is_empty()));
}

#[tokio::test]
async fn forged_confirmation_is_refused() {
    let cluster = Cluster::start(3).await;
    let mut client = cluster.client().await;
    let (honest, _) = cluster.write("/a", b"data", &[1, 2, 3]).await;
    let (other, _) = cluster.write("/b", b"data", &[1, 2, 3]).await;
    type Lie = fn(&mut v1::ConfirmRequest, &v1::ConfirmRequest);
    let lies: [(&str, Lie); 8] = [
        ("a forged seal", |lie, _| {
            lie.chunks[0].receipts[1].seal = vec![7; 32].into();
        }),
        ("sealed by another node", |lie, _| {
            lie.chunks[0].receipts[1].node_id = lie.chunks[0].receipts[0].node_id.clone();
        }),
        ("too few replicas", |lie, _| lie.chunks[0].receipts.truncate(1)),
        ("no replica", |lie, _| lie.chunks[0].receipts.clear()),
        ("another checksum", |lie, _| lie.chunks[0].crc32c ^= 1),
        ("another length", |lie, _| lie.chunks[0].length -= 1),
        ("the chunk of another upload", |lie, other| lie.chunks = other.chunks.clone()),
        ("an altered token", |lie, _| {
            let mut token = lie.tokens[0].to_vec();
            token[10] ^= 1;
            lie.tokens = vec![token.into()];
        }),
    ];
    for (name, lie) in lies {
        let mut request = honest.clone();
        lie(&mut request, &other);
        let result = client.confirm_upload(request).await;
        assert_eq!(refused(result), ErrorCode::InvalidArgument, "{name}");
    }
    assert!(names(&cluster, "/").await.is_empty());
    client.confirm_upload(honest).await.unwrap();
}

#[tokio::test]
async fn plan_expires() {
    let cluster = Cluster::start(3).await;
    let (late, _) = cluster.write("/late", b"data", &[1, 2, 3]).await;
    cluster.clock.advance(HOUR + Duration::from_secs(1));
    let result = cluster.client().await.confirm_upload(late).await;
    assert_eq!(refused(result), ErrorCode::Stale);
}

#[tokio::test]
async fn repeat_gets_the_first_answer_from_another_coordinator() {
    let mut cluster = Cluster::start(0).await;
    let mut client = cluster.client().await;
    let first = client.make_directory(mkdir("/d", 1)).await.unwrap().into_inner();
    let again = client.make_directory(mkdir("/d", 1)).await.unwrap().into_inner();
    assert_eq!(first, again);
    drop(client);
    cluster.stop().await;
    let engine = cluster.engine.clone();
    cluster.start_again(engine).await;
    let mut client = cluster.client().await;
    let later = client.make_directory(mkdir("/d", 1)).await.unwrap().into_inner();
    assert_eq!(first, later);
    assert_eq!(refused(client.make_directory(mkdir("/e", 1)).await), ErrorCode::InvalidArgument);
    assert_eq!(refused(client.make_directory(mkdir("/d", 2)).await), ErrorCode::AlreadyExists);
    client.make_directory(mkdir("/e", 3)).await.unwrap();
    assert_eq!(refused(client.make_directory(mkdir("/d", 1)).await), ErrorCode::Stale);
}

#[tokio::test]
async fn names_are_renamed_and_listed_in_pages() {
    let cluster = Cluster::start(0).await;
    let mut client = cluster.client().await;
    let mut sequence = 0;
    for path in ["/d", "/d/a", "/d/b", "/d/c", "/e"] {
        sequence += 1;
        client.make_directory(mkdir(path, sequence)).await.unwrap();
    }
    let rename = v1::RenameRequest {
        from: Some(v1::Target::of_path("/d/b")),
        to: Some(v1::Target::of_path("/e/b")),
        slot: Some(slot(6)),
        ..v1::RenameRequest::default()
    };
    client.rename(rename).await.unwrap();
    let link = v1::MakeSymlinkRequest {
        target: Some(v1::Target::of_path("/link")),
        symlink_target: "e".into(),
        attributes: Some(v1::Attributes { mode: 0o777, ..v1::Attributes::default() }),
        slot: Some(slot(7)),
        ..v1::MakeSymlinkRequest::default()
    };
    client.make_symlink(link).await.unwrap();
    assert_eq!(names(&cluster, "/").await, ["d", "e", "link"]);
    assert_eq!(names(&cluster, "/link").await, ["b"]);
    let set = v1::SetAttributesRequest {
        target: Some(v1::Target::of_path("/link/b")),
        mode: Some(0o700),
        slot: Some(slot(8)),
        ..v1::SetAttributesRequest::default()
    };
    let stat = client.set_attributes(set).await.unwrap().into_inner().stat.unwrap();
    assert_eq!(stat.attributes.unwrap().mode, 0o700);
    let page =
        v1::ListRequest { target: Some(v1::Target::of_path("/d")), after: "a".into(), limit: 1 };
    let mut pages = client.list_directory(page).await.unwrap().into_inner();
    let page = pages.next().await.unwrap().unwrap();
    assert_eq!((page.entries.len(), &page.entries[0].name[..]), (1, &b"c"[..]));
    assert!(pages.next().await.is_none());
}

#[tokio::test]
async fn invalid_calls_are_refused_with_their_codes() {
    let cluster = Cluster::start(3).await;
    let mut client = cluster.client().await;
    for path in ["", "a", "/a/../b", "/a//b", "/a\0b"] {
        let request = v1::StatRequest {
            target: Some(v1::Target::of_path(path.to_owned())),
            no_follow: false,
        };
        assert_eq!(refused(client.stat(request).await), ErrorCode::InvalidArgument, "{path:?}");
    }
    let long =
        v1::StatRequest { target: Some(v1::Target::of_path(vec![b'/'; 4_097])), no_follow: false };
    assert_eq!(refused(client.stat(long).await), ErrorCode::NameTooLong);
    for size in [0, CHUNK + 1, 1 << 40] {
        let request = v1::UploadRequest { chunk_size: Some(size), ..upload_request("/a", CHUNK) };
        assert_eq!(
            refused(client.upload_file(request).await),
            ErrorCode::InvalidArgument,
            "{size}"
        );
    }
    for replicas in [0, 17, 300] {
        let request =
            v1::UploadRequest { replication_factor: Some(replicas), ..upload_request("/a", CHUNK) };
        assert_eq!(refused(client.upload_file(request).await), ErrorCode::InvalidArgument);
    }
    let wide = v1::UploadRequest { replication_factor: Some(7), ..upload_request("/a", CHUNK) };
    assert_eq!(refused(client.upload_file(wide).await), ErrorCode::NotEnoughNodes);
}

#[tokio::test]
async fn full_nodes_are_skipped_and_a_full_cluster_is_reported() {
    let mut cluster = Cluster::start(3).await;
    let mut client = cluster.client().await;
    for node in cluster.nodes.values() {
        node.set_free(0);
    }
    let full = async |client: &mut v1::coordinator_client::CoordinatorClient<_>| {
        let planned = client.upload_file(upload_request("/a", CHUNK)).await;
        planned.is_err_and(|status| {
            dfs_proto::Failure::from_status(&status).code == ErrorCode::NoSpace
        })
    };
    crate::cluster::eventually("the nodes are known to be full", || {
        let mut client = client.clone();
        async move { full(&mut client).await }
    })
    .await;
    cluster.add_node(4).await;
    cluster.add_node(5).await;
    let plan = client.upload_file(upload_request("/a", CHUNK)).await.unwrap().into_inner();
    assert_eq!(plan.chunks[0].nodes.len(), 2, "two are enough for a start");
}

#[tokio::test]
async fn set_replication_applies_to_new_files() {
    let cluster = Cluster::start(3).await;
    let mut admin = cluster.admin().await;
    let set = |replication_factor, min_write_replicas| v1::SetReplicationRequest {
        replication_factor,
        min_write_replicas,
        ..Default::default()
    };
    for (factor, min) in [(0, None), (17, None), (2, Some(3)), (2, Some(0))] {
        let result = admin.set_replication(set(factor, min)).await;
        assert_eq!(refused(result), ErrorCode::InvalidArgument);
    }
    let revision = admin.set_replication(set(2, None)).await.unwrap().into_inner().revision;
    let plan = cluster.plan("/a", 1).await;
    assert_eq!((plan.replication_factor, plan.chunks[0].nodes.len()), (2, 2));
    let request = v1::ClusterStatusRequest { min_revision: revision, order: None };
    let status = admin.cluster_status(request).await.unwrap().into_inner();
    assert!(status.revision >= revision);
    assert_eq!((status.replication_factor, status.min_write_replicas), (2, 2));
}
