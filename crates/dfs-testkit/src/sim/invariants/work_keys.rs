//! All records are consistent at any moment, and the work keys equal a recount.

use dfs_metadata::Error;
use dfs_metadata::check::{Report, check};
use dfs_metadata::engine::Engine;

/// Reads all records of a store, and returns what is wrong with them. Fails if they cannot be read,
/// which violates nothing.
pub(in crate::sim) async fn problems(engine: &dyn Engine) -> Result<Option<String>, Error> {
    let report = check(engine, &|_| ()).await?;
    let Report { problems, .. } = &report;
    Ok((!report.is_clean()).then(|| format!("the metadata is not clean: {problems:?}")))
}
