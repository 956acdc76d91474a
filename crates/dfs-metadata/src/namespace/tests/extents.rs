//! Extents of any length: every byte is found, whatever the lengths and gaps before it.

use dfs_types::InodeId;

use super::*;
use crate::keys;
use crate::namespace::transaction::Attempt;
use crate::records::extent::Extent;
use crate::records::inode::{Content, Inode};

/// Extents per commit.
const AT_ONCE: usize = 90;

/// Gives an empty file these extents, all in one chunk.
async fn write_extents(fixture: &Fixture, at: &str, extents: &[(u64, u64)], size: u64) -> InodeId {
    fixture.put("/donor", CHUNK).await.unwrap();
    let donor = fixture.open("/donor").await.unwrap();
    let chunk = donor.extents[0].chunk_id;
    let inode = fixture.put(at, 0).await.unwrap().inode;
    for some in extents.chunks(AT_ONCE) {
        let mut tx = fixture.namespace.begin().await.unwrap();
        for &(offset, length) in some {
            let chunk_offset = offset % (CHUNK - length);
            tx.put(keys::extent(inode, offset), &Extent { length, chunk, chunk_offset, epoch: 0 });
        }
        let old = tx.chunk(chunk).await.unwrap().unwrap();
        let mut new = old.clone();
        new.references += some.len() as u32;
        tx.put_chunk(chunk, Some(&old), Some(&new));
        let key = keys::inode(inode);
        let mut record = tx.get::<Inode>(&key).await.unwrap().unwrap();
        if let Content::File(file) = &mut record.content {
            file.size = size;
        }
        tx.put(key, &record);
        let done = fixture.namespace.commit(tx).await.unwrap();
        assert!(matches!(done, Attempt::Committed(_)));
    }
    inode
}

/// Extents of 50 to 150 bytes without gaps.
fn small_extents(random: &dyn Random, count: usize) -> Vec<(u64, u64)> {
    let mut end = 0;
    let next = |_| {
        let (start, length) = (end, 50 + random.below(101));
        end += length;
        (start, length)
    };
    (0..count).map(next).collect()
}

#[tokio::test]
async fn offset_among_many_small_extents_takes_two_range_reads() {
    const EXTENTS: usize = 100_000;
    let (fixture, random) = (Fixture::new().await, SeededRandom::new(5));
    let extents = small_extents(&random, EXTENTS);
    let size = extents.last().map_or(0, |(start, length)| start + length);
    let inode = write_extents(&fixture, "/f", &extents, size).await;

    let (namespace, reads) = fixture.counting().await;
    // The first read also loads the disks.
    let request = OpenFile { target: Target::Inode(inode), offset: 0, length: 1, max_extents: 0 };
    namespace.open_file(Scope::internal(), &request).await.unwrap();
    let mut offsets = vec![0, 1, size - 1];
    offsets.extend((0..300).map(|_| random.below(size)));
    for offset in offsets {
        let length = 1 + random.below(2_000);
        let request = OpenFile { target: Target::Inode(inode), offset, length, max_extents: 0 };
        let before = reads.ranges();
        let plan = namespace.open_file(Scope::internal(), &request).await.unwrap();
        assert_eq!(reads.ranges() - before, 2, "reads for offset {offset}");
        let found: Vec<_> = plan.extents.iter().map(|e| (e.file_offset, e.length)).collect();
        let first = extents.partition_point(|(start, length)| start + length <= offset);
        let end = extents.partition_point(|(start, _)| *start < offset + length);
        assert_eq!(found, extents[first..end], "from {offset}, {length} bytes");
        assert_eq!(plan.next_offset, None);
    }
}

/// Reads a range page by page and returns where in the chunk each of its bytes is.
async fn bytes_of(
    fixture: &Fixture,
    inode: InodeId,
    range: std::ops::Range<u64>,
    max_extents: usize,
) -> Vec<Option<u64>> {
    let mut bytes = vec![None; (range.end - range.start) as usize];
    let mut offset = Some(range.start);
    while let Some(from) = offset {
        let (target, length) = (Target::Inode(inode), range.end - from);
        let request = OpenFile { target, offset: from, length, max_extents };
        let plan = fixture.namespace.open_file(Scope::internal(), &request).await.unwrap();
        assert!(plan.extents.len() <= max_extents);
        for extent in &plan.extents {
            assert!(extent.file_offset < range.end, "an extent after the range");
            assert!(extent.file_offset + extent.length > from, "an extent before the range");
            for at in extent.file_offset..extent.file_offset + extent.length {
                if let Some(byte) =
                    at.checked_sub(range.start).and_then(|at| bytes.get_mut(at as usize))
                {
                    *byte = Some(extent.chunk_offset + at - extent.file_offset);
                }
            }
        }
        assert!(plan.next_offset.is_none_or(|next| next > from), "a page without progress");
        offset = plan.next_offset;
    }
    bytes
}

#[tokio::test]
async fn random_extents_with_gaps_match_the_byte_model() {
    const SIZE: u64 = 6_000;
    for seed in 0..20 {
        let (fixture, random) = (Fixture::new().await, SeededRandom::new(seed));
        let mut extents = Vec::new();
        let mut end = 0;
        loop {
            let gap = if random.below(2) == 0 { 0 } else { random.below(200) };
            // Mostly tiny, sometimes longer than all others together.
            let longest = [3, 40, 400, 3_000][random.below(4) as usize];
            let (start, length) = (end + gap, 1 + random.below(longest));
            if start + length > SIZE {
                break;
            }
            extents.push((start, length));
            end = start + length;
        }
        let inode = write_extents(&fixture, "/f", &extents, SIZE).await;
        let mut model = vec![None; SIZE as usize];
        for &(start, length) in &extents {
            let chunk_offset = start % (CHUNK - length);
            for at in 0..length {
                model[(start + at) as usize] = Some(chunk_offset + at);
            }
        }
        for _ in 0..60 {
            let from = random.below(SIZE);
            let to = from + 1 + random.below(SIZE - from);
            let max_extents = 1 + random.below(8) as usize;
            let found = bytes_of(&fixture, inode, from..to, max_extents).await;
            assert_eq!(found, model[from as usize..to as usize], "seed {seed}, {from}..{to}");
        }
    }
}

#[tokio::test]
async fn shared_chunk_is_released_with_its_last_extent() {
    let fixture = Fixture::new().await;
    let extents = small_extents(&SeededRandom::new(1), 333);
    let size = extents.last().map_or(0, |(start, length)| start + length);
    write_extents(&fixture, "/f", &extents, size).await;
    let check = async || {
        let report = crate::check::check(&*fixture.engine, &|_| ()).await.unwrap();
        assert!(report.is_clean(), "{:#?}", report.problems);
    };
    check().await;
    fixture.delete("/f", false, true).await.unwrap();
    assert_eq!(fixture.reap(false).await, 0, "the donor still refers to the chunk");
    check().await;
    assert_eq!(fixture.count("x/").await, 0);
    fixture.delete("/donor", false, true).await.unwrap();
    assert_eq!(fixture.reap(false).await, 1, "each chunk once");
    check().await;
}
