//! The samples of the documentation.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use dfs_e2e::case;

#[tokio::test]
async fn e07_samples_are_accepted_by_the_api_server() -> Result<()> {
    case("e07", async |case| {
        let samples = fs::read_dir(case.env.root.join("docs/samples"))?;
        let mut count = 0;
        for sample in samples {
            let path = sample?.path();
            let shown = path.to_str().context("the path of a sample is not UTF-8")?;
            let arguments = ["apply", "--dry-run=server", "--warnings-as-errors"];
            let kubectl = case.env.kubectl(&arguments).args(&["-n", &case.namespace, "-f", shown]);
            kubectl.run().await?;
            count += 1;
        }
        ensure!(count > 0, "no samples");
        Ok(())
    })
    .await
}
