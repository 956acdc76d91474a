//! Development tasks.

mod generate;

use std::path::Path;

use anyhow::{Context as _, Result, bail};

fn main() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the root")?;
    match std::env::args().nth(1).as_deref() {
        Some("generate") => generate::proto(root, &root.join("crates/dfs-proto/src/generated")),
        _ => bail!("usage: cargo xtask generate"),
    }
}
