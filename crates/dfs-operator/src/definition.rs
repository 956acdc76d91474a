//! Checks that the API server's definition of the resource is as new as this operator.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dfs_crd::CRD_NAME;
use dfs_types::with_causes;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, Client};

/// Interval between checks.
pub(crate) const EVERY: Duration = Duration::from_mins(1);

/// State of the definition in the API server.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Definition {
    /// Unknown: it was not read, or must not be.
    #[default]
    Unknown,
    /// As new as this operator.
    Current,
    /// Without these fields, which the API server therefore drops.
    Older(Vec<String>),
}

/// The latest known state. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known(Arc<Mutex<Definition>>);

impl Known {
    pub(crate) fn get(&self) -> Definition {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the definition. When that fails, the last known state stays.
    pub(crate) async fn refresh(&self, client: &Client) {
        let api: Api<CustomResourceDefinition> = Api::all(client.clone());
        let found = match api.get(CRD_NAME).await {
            Ok(served) => match dfs_crd::missing(&served) {
                missing if missing.is_empty() => Definition::Current,
                missing => Definition::Older(missing),
            },
            Err(error) => {
                tracing::debug!(
                    error = with_causes(&error),
                    "cannot read the definition of DfsCluster"
                );
                return;
            }
        };
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if *known == found {
            return;
        }
        if let Definition::Older(missing) = &found {
            tracing::error!(
                missing = missing.join(", "),
                "the definition of DfsCluster is older than this operator; no cluster is changed"
            );
        } else {
            tracing::info!("the definition of DfsCluster is as new as this operator");
        }
        *known = found;
    }
}
