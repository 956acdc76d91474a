//! Location of the bytes of a file, page by page.

use std::collections::{BTreeMap, VecDeque};

use dfs_proto::v1;
use dfs_proto::wire::{self, FieldError};
use dfs_types::{
    ChunkId, ChunkSeal, ErrorCode, InodeId, NodeId, Redundancy, ReplicaHealth, ReplicaRef, Stamp,
};

use crate::plan::Node;
use crate::{Client, Error, FileStat, Target};

/// Extents requested at a time.
const PAGE: u32 = 64;

/// A piece of a file in a chunk.
#[derive(Debug, Clone)]
pub(crate) struct Extent {
    pub(crate) file_offset: u64,
    pub(crate) length: u64,
    pub(crate) chunk: ChunkId,
    pub(crate) chunk_offset: u64,
    /// Length and checksums of the whole chunk.
    pub(crate) seal: ChunkSeal,
    pub(crate) redundancy: Redundancy,
    pub(crate) replicas: Vec<Replica>,
}

/// A replica of a chunk.
#[derive(Debug, Clone)]
pub(crate) struct Replica {
    pub(crate) node: NodeId,
    /// Its name on that node.
    pub(crate) name: ReplicaRef,
    pub(crate) health: ReplicaHealth,
    /// `None` when the coordinator knows no address of the node.
    pub(crate) location: Option<Node>,
}

/// A replica with the node to read it from.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) node: Node,
    pub(crate) replica: ReplicaRef,
}

impl Replica {
    /// Returns whether the records say that nothing of it can be read.
    pub(crate) fn is_condemned(&self) -> bool {
        matches!(self.health, ReplicaHealth::Gone | ReplicaHealth::Doomed)
    }

    /// Returns the replica with its node; `None` when the node has no known address.
    pub(crate) fn source(&self) -> Option<Source> {
        let node = self.location.clone().filter(|node| !node.address.is_empty())?;
        Some(Source { node, replica: self.name })
    }
}

impl Extent {
    /// Returns the replicas that can be tried, with their health.
    pub(crate) fn sources(&self) -> impl Iterator<Item = (ReplicaHealth, Source)> {
        let readable = self.replicas.iter().filter(|replica| !replica.is_condemned());
        readable.filter_map(|replica| Some((replica.health, replica.source()?)))
    }

    /// End offset in the file.
    pub(crate) fn end(&self) -> u64 {
        self.file_offset.saturating_add(self.length)
    }
}

/// An open file, and the extents of a range of it.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) stat: FileStat,
    context: String,
    end: u64,
    extents: VecDeque<Extent>,
    next_offset: Option<u64>,
}

impl Layout {
    /// Opens a range of a file; up to its end without a length.
    pub(crate) async fn open(
        client: &Client,
        target: &Target,
        offset: u64,
        length: Option<u64>,
    ) -> Result<Self, Error> {
        let context = target.to_string();
        let end = length.map_or(u64::MAX, |length| offset.saturating_add(length));
        let request = range(target.clone(), offset, length.unwrap_or(0));
        // A length of 0 means all of it on the wire.
        let is_empty = length == Some(0);
        let page = open(client, &context, request).await?;
        let mut layout = Self {
            stat: page.stat,
            context,
            end,
            extents: page.extents,
            next_offset: page.next_offset,
        };
        layout.end = layout.end.min(layout.stat.size);
        if is_empty {
            layout.extents.clear();
            layout.next_offset = None;
        }
        Ok(layout)
    }

    /// End offset of the range.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Returns the next extent of the range, in file order.
    pub(crate) async fn next(&mut self, client: &Client) -> Result<Option<Extent>, Error> {
        if let (true, Some(offset)) = (self.extents.is_empty(), self.next_offset)
            && offset < self.end
        {
            let request = range(self.stat.inode.into(), offset, self.end - offset);
            let page = open(client, &self.context, request).await?;
            self.extents = page.extents;
            self.next_offset = page.next_offset;
        }
        Ok(self.extents.pop_front())
    }
}

/// Refreshes the locations of the chunk that contains a byte of an open file.
pub(crate) async fn refreshed(
    client: &Client,
    context: &str,
    inode: InodeId,
    old: &Extent,
) -> Result<Extent, Error> {
    let request = range(inode.into(), old.file_offset, 1);
    let page = open(client, context, request).await?;
    let mut extents = page.extents.into_iter();
    extents.find(|extent| extent.chunk == old.chunk).ok_or_else(|| {
        Error::new(ErrorCode::Stale, context, format!("it no longer has the chunk {}", old.chunk))
    })
}

fn range(target: Target, offset: u64, length: u64) -> v1::OpenRequest {
    let target = Some(target.into());
    v1::OpenRequest { target, offset, length, max_extents: PAGE, no_follow: false }
}

struct Page {
    stat: FileStat,
    extents: VecDeque<Extent>,
    next_offset: Option<u64>,
}

async fn open(client: &Client, context: &str, request: v1::OpenRequest) -> Result<Page, Error> {
    let answer = client.call(context, |mut coordinator| {
        let request = request.clone();
        async move { coordinator.open_file(request).await }
    });
    let page = page(answer.await?).map_err(|error| Error::wire(context, &error))?;
    let is_coded = |extent: &&Extent| matches!(extent.redundancy, Redundancy::Erasure { .. });
    match page.extents.iter().find(is_coded) {
        None => Ok(page),
        Some(Extent { chunk, .. }) => {
            let message = format!(
                "chunk {chunk} is erasure-coded, which this release cannot read: upgrade the client"
            );
            Err(Error::new(ErrorCode::UnsupportedVersion, context, message))
        }
    }
}

fn page(answer: v1::OpenResponse) -> Result<Page, FieldError> {
    let nodes = answer.nodes.into_iter().map(Node::from_wire);
    let nodes = nodes.map(|node| node.map(|node| (node.id, node)));
    let nodes: BTreeMap<NodeId, Node> = nodes.collect::<Result<_, _>>()?;
    let extents = answer.extents.into_iter().map(|extent| self::extent(extent, &nodes));
    let next_offset = Some(answer.next_offset).filter(|offset| *offset > 0);
    Ok(Page {
        stat: FileStat::from_wire(answer.stat)?,
        extents: extents.collect::<Result<_, _>>()?,
        next_offset,
    })
}

fn extent(extent: v1::Extent, nodes: &BTreeMap<NodeId, Node>) -> Result<Extent, FieldError> {
    let chunk = wire::id("extents.chunk_id", &extent.chunk_id)?;
    let replicas = extent.replicas.into_iter().map(|replica| {
        let node = wire::id("extents.replicas.node_id", &replica.node_id)?;
        Ok(Replica {
            node,
            name: ReplicaRef {
                chunk,
                part: wire::part("extents.replicas.part", replica.part)?,
                disk: wire::id("extents.replicas.disk_id", &replica.disk_id)?,
                stamp: Stamp(replica.stamp),
            },
            health: wire::replica_health("extents.replicas.health", replica.health)?,
            location: nodes.get(&node).cloned(),
        })
    });
    let parts = (extent.chunk_length, extent.chunk_crc32c, &extent.chunk_sha256[..]);
    let seal = wire::seal("extents.chunk_sha256", parts)?;
    let end = extent.chunk_offset.checked_add(extent.length);
    if end.is_none_or(|end| end > seal.length) {
        return Err(FieldError::new("extents.length", "reaches over the end of its chunk"));
    }
    Ok(Extent {
        file_offset: extent.file_offset,
        length: extent.length,
        chunk,
        chunk_offset: extent.chunk_offset,
        seal,
        redundancy: wire::redundancy("extents.redundancy", extent.redundancy)?,
        replicas: replicas.collect::<Result<_, _>>()?,
    })
}
