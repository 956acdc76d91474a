//! Prints what `cargo xtask generate` writes to the repository: `crd`, `fields` or `reference`.

use std::io::{Error, Write as _};

fn main() -> Result<(), Error> {
    let text = match std::env::args().nth(1).as_deref() {
        Some("crd") => dfs_crd::crd_yaml().map_err(Error::other)?,
        Some("fields") => dfs_crd::fields_markdown(),
        Some("reference") => dfs_crd::reference_markdown(),
        _ => return Err(Error::other("give crd, fields or reference")),
    };
    std::io::stdout().write_all(text.as_bytes())
}
