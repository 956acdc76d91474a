//! Requests in the audit log of the API server.

use anyhow::Result;
use serde::Deserialize;

use crate::environment::Environment;

/// The log from some moment on.
pub struct Audit {
    env: Environment,
    /// Bytes that were in the log before.
    skip: usize,
}

/// A request.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// Its verb: get, list, watch, create, patch …
    pub verb: String,
    /// Time of arrival, as RFC 3339.
    pub request_received_timestamp: String,
    /// Its user.
    pub user: User,
    /// Its object.
    pub object_ref: Option<ObjectRef>,
    /// Its response, once available.
    pub response_status: Option<ResponseStatus>,
    stage: String,
}

/// User of a request.
#[derive(Debug, Clone, Deserialize)]
pub struct User {
    /// Name known to the API server; empty if unauthenticated.
    #[serde(default)]
    pub username: String,
    /// Additional attributes: the name of the pod, for one with its own token.
    #[serde(default)]
    pub extra: std::collections::BTreeMap<String, Vec<String>>,
}

/// Object of a request.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectRef {
    /// Group of the API; empty for the core.
    pub api_group: String,
    /// Plural of the kind.
    pub resource: String,
    /// Subresource, such as `status`.
    pub subresource: String,
    /// Its name; empty for a list.
    pub name: String,
}

/// Response to a request.
#[derive(Debug, Clone, Deserialize)]
pub struct ResponseStatus {
    /// HTTP status code.
    pub code: u16,
}

impl Request {
    /// Returns true if it may have changed something.
    pub fn is_write(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list" | "watch")
    }

    /// Returns the kind with its subresource: `dfsclusters/status`.
    pub fn resource(&self) -> String {
        let Some(object) = &self.object_ref else { return String::new() };
        match object.subresource.as_str() {
            "" => object.resource.clone(),
            part => format!("{}/{part}", object.resource),
        }
    }
}

impl Audit {
    /// Starts now. `None` if the cluster has no audit log.
    pub async fn begin(env: &Environment) -> Result<Option<Self>> {
        let Some(whole) = Self::whole(env).await? else { return Ok(None) };
        let skip = whole.read().await?.len();
        Ok(Some(Self { skip, ..whole }))
    }

    /// Returns the complete log. `None` if the cluster has no audit log.
    pub async fn whole(env: &Environment) -> Result<Option<Self>> {
        if !env.has_nodes() {
            return Ok(None);
        }
        let ended = env.cluster_program()?.args(&["logs", "audit"]).end().await?;
        Ok(ended.is_success.then(|| Self { env: env.clone(), skip: 0 }))
    }

    async fn read(&self) -> Result<String> {
        self.env.cluster_program()?.args(&["logs", "audit"]).run().await
    }

    /// Returns the requests of a user since, except for the lease, which a leader renews
    /// continuously.
    pub async fn requests(&self, user: &str) -> Result<Vec<Request>> {
        let mut requests = self.requests_of(&|name| name == user).await?;
        requests.retain(|request| request.resource() != "leases");
        Ok(requests)
    }

    /// Returns the requests of matching users since.
    pub async fn requests_of(&self, is_wanted: &dyn Fn(&str) -> bool) -> Result<Vec<Request>> {
        let log = self.read().await?;
        let mut requests = Vec::new();
        for line in log.get(self.skip..).unwrap_or_default().lines() {
            let request: Request = serde_json::from_str(line)?;
            if is_wanted(&request.user.username) && request.stage == "ResponseComplete" {
                requests.push(request);
            }
        }
        Ok(requests)
    }
}
