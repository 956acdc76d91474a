//! The measurement of a start, with few chunks: `cargo xtask bench start` measures many.

use std::path::PathBuf;

#[expect(dead_code, reason = "only the parts without processes")]
#[path = "../../examples/start.rs"]
mod measurement;

#[tokio::test]
async fn measured_start_finds_all_chunks_from_indexes_and_from_heads() {
    let folder = tempfile::tempdir_in(PathBuf::from(env!("CARGO_TARGET_TMPDIR"))).unwrap();
    measurement::prepare(folder.path(), 300).await.unwrap();
    for _ in 0..2 {
        let start = measurement::start(folder.path()).await.unwrap();
        assert_eq!(start.chunks, 300);
        assert!(start.resident_kib > 0 && start.peak_kib >= start.resident_kib);
        measurement::remove_indexes(folder.path()).unwrap();
    }
}
