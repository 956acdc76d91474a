//! The hooks that the chart's Jobs run on install and uninstall.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use dfs_crd::DfsCluster;
use kube::api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt as _};

/// Field manager of the spec that the chart's values define. The operator never owns the spec.
const FIELD_MANAGER: &str = "helm";
/// Maximum number of clusters named when the operator cannot be uninstalled.
const NAMED_MAX: usize = 10;

/// Applies the DfsCluster in a JSON file.
pub(crate) async fn apply(file: &Path) -> Result<()> {
    let shown = file.display();
    let text = fs::read(file).with_context(|| format!("cannot read {shown}"))?;
    let cluster: DynamicObject = serde_json::from_slice(&text)
        .with_context(|| format!("{shown} is not a DfsCluster in JSON"))?;
    let namespace = cluster.namespace().with_context(|| format!("{shown} has no namespace"))?;
    let name = cluster.metadata.name.clone().with_context(|| format!("{shown} has no name"))?;
    let client = Client::try_default().await.context("cannot find the Kubernetes cluster")?;
    let kind = ApiResource::erase::<DfsCluster>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(client, &namespace, &kind);
    let params = PatchParams::apply(FIELD_MANAGER).force();
    api.patch(&name, &params, &Patch::Apply(&cluster))
        .await
        .with_context(|| format!("cannot apply the DfsCluster {namespace}/{name}"))?;
    println!("applied the DfsCluster {namespace}/{name}");
    Ok(())
}

/// Fails while clusters exist in the watched namespaces, or in any when none is named: without an
/// operator they would be left unmanaged.
pub(crate) async fn check_uninstall(namespaces: &[String]) -> Result<()> {
    let client = Client::try_default().await.context("cannot find the Kubernetes cluster")?;
    let mut left = Vec::new();
    if namespaces.is_empty() {
        left.extend(clusters(&Api::all(client)).await?);
    } else {
        for namespace in namespaces {
            left.extend(clusters(&Api::namespaced(client.clone(), namespace)).await?);
        }
    }
    if left.is_empty() {
        return Ok(());
    }
    let more = if left.len() > NAMED_MAX { " and more" } else { "" };
    left.truncate(NAMED_MAX);
    bail!(
        "the operator manages {}{more}: delete these DfsClusters first; their volumes stay \
         unless deletionPolicy says otherwise",
        left.join(", ")
    )
}

/// Returns the names of existing clusters, at most one more than an error names.
async fn clusters(api: &Api<DfsCluster>) -> Result<Vec<String>> {
    let params = ListParams::default().limit(NAMED_MAX as u32 + 1);
    match api.list_metadata(&params).await {
        Ok(list) => {
            let items = list.items.iter();
            let names = items.map(|cluster| {
                format!("{}/{}", cluster.namespace().unwrap_or_default(), cluster.name_any())
            });
            Ok(names.collect())
        }
        // An operator without permissions in a namespace, which may be gone, manages nothing in it.
        Err(kube::Error::Api(status)) if status.code == 403 => {
            eprintln!("skipped, as the operator has no permissions there: {}", status.message);
            Ok(Vec::new())
        }
        // The kind is gone, and every cluster with it.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
        Err(error) => Err(error).context("cannot list DfsClusters"),
    }
}
