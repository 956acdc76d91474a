//! Makes `crates/dfs-proto/src/generated` from `proto/`.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

const FILES: [&str; 5] = [
    "dfs/v1/common.proto",
    "dfs/v1/coordinator.proto",
    "dfs/v1/datanode.proto",
    "dfs/v1/membership.proto",
    "dfs/v1/admin.proto",
];

/// Writes the generated files below `out`.
pub fn proto(root: &Path, out: &Path) -> Result<()> {
    let mut compiler = protox::Compiler::new([root.join("proto")])?;
    compiler.include_imports(true).include_source_info(true).open_files(FILES)?;
    fs::create_dir_all(out).with_context(|| format!("make {}", out.display()))?;
    let mut described = protox::Compiler::new([root.join("proto")])?;
    described.include_imports(true).include_source_info(false).open_files(FILES)?;
    fs::write(out.join("dfs.v1.bin"), described.encode_file_descriptor_set())?;
    tonic_prost_build::configure()
        .bytes(".")
        .build_transport(true)
        .out_dir(out)
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
