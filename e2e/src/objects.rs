//! Objects of a cluster.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::cluster::Cluster;
use crate::environment::Environment;

/// Kinds of objects managed by the operator, and the cluster itself.
const KINDS: &str = "serviceaccounts,configmaps,secrets,services,networkpolicies,\
    poddisruptionbudgets,deployments,statefulsets,dfsclusters";
/// Fields set by the API server or a controller.
const NOT_OURS: [&str; 10] = [
    "/status",
    "/metadata/uid",
    "/metadata/resourceVersion",
    "/metadata/generation",
    "/metadata/creationTimestamp",
    "/metadata/managedFields",
    "/metadata/annotations/deployment.kubernetes.io~1revision",
    "/spec/clusterIP",
    "/spec/clusterIPs",
    "/spec/template/metadata/creationTimestamp",
];

/// A snapshot of an object.
#[derive(Debug, Clone)]
pub struct Object {
    namespace: String,
    kind: String,
    name: String,
    uid: String,
    /// The content requested at its creation.
    pub content: Value,
}

impl Object {
    fn new(mut json: Value) -> Result<Self> {
        let text = |pointer: &str| -> Result<String> {
            let found = json.pointer(pointer).and_then(Value::as_str);
            found.map(str::to_owned).with_context(|| format!("an object without {pointer}"))
        };
        let (namespace, kind) = (text("/metadata/namespace")?, text("/kind")?);
        let (name, uid) = (text("/metadata/name")?, text("/metadata/uid")?);
        for pointer in NOT_OURS {
            remove(&mut json, pointer);
        }
        Ok(Self { namespace, kind, name, uid, content: json })
    }

    /// Returns true if it is the same object, not a recreated one.
    pub fn is_same_object(&self, other: &Self) -> bool {
        self.uid == other.uid
    }

    /// Deletes it without waiting.
    pub async fn delete(&self, env: &Environment) -> Result<()> {
        let arguments = ["delete", &self.kind, &self.name, "-n", &self.namespace, "--wait=false"];
        env.kubectl(&arguments).run().await.map(drop)
    }

    /// Returns the current object of the same name, if any.
    pub async fn again(&self, env: &Environment) -> Result<Option<Self>> {
        let arguments = ["get", &self.kind, &self.name, "-n", &self.namespace];
        let kubectl = env.kubectl(&arguments).args(&["-o", "json", "--ignore-not-found"]);
        let json = kubectl.run().await?;
        if json.trim().is_empty() {
            return Ok(None);
        }
        Self::new(serde_json::from_str(&json)?).map(Some)
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

impl Cluster {
    /// Returns its objects of a kind.
    pub async fn objects(&self, kind: &str) -> Result<Vec<Object>> {
        self.list(kind).await?.into_iter().map(Object::new).collect()
    }

    /// Returns the revision of each of its objects. Equal revisions mean that nothing was written.
    pub async fn revisions(&self) -> Result<BTreeMap<String, String>> {
        let mut revisions = BTreeMap::new();
        let mut objects = self.list(KINDS).await?;
        let own = ["get", "dfsc", &self.name, "-n", &self.namespace, "-o", "json"];
        objects.push(serde_json::from_str(&self.env.kubectl(&own).run().await?)?);
        for object in objects {
            let (kind, meta) = (&object["kind"], &object["metadata"]);
            revisions
                .insert(format!("{kind} {}", meta["name"]), meta["resourceVersion"].to_string());
        }
        Ok(revisions)
    }

    async fn list(&self, kinds: &str) -> Result<Vec<Value>> {
        let selector = self.selector();
        let arguments = ["get", kinds, "-n", &self.namespace, "-l", &selector, "-o", "json"];
        let mut list: Value = serde_json::from_str(&self.env.kubectl(&arguments).run().await?)?;
        match list["items"].take() {
            Value::Array(items) => Ok(items),
            _ => Ok(Vec::new()),
        }
    }
}

fn remove(json: &mut Value, pointer: &str) {
    let Some((parent, key)) = pointer.rsplit_once('/') else { return };
    if let Some(Value::Object(parent)) = json.pointer_mut(parent) {
        parent.remove(&key.replace("~1", "/"));
    }
}
