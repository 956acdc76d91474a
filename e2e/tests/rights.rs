//! Permissions of the operator compared with their use, including the requests of earlier cases.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use dfs_e2e::{Audit, Request, case, until};
use k8s_openapi::api::rbac::v1::{PolicyRule, Role};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;

/// Granted, but its use is not visible here: the first is checked by the API server itself, for
/// owner references that block deletion; the second is for several coordinators reduced to one, and
/// several need an etcd.
const NOT_SEEN: [&str; 2] =
    ["update dfs.io dfsclusters/finalizers", "delete policy poddisruptionbudgets"];

#[tokio::test]
async fn c28_all_permissions_are_used_and_no_request_is_denied() -> Result<()> {
    case("c28", async |case| {
        let Some(audit) = Audit::whole(&case.env).await? else {
            anyhow::bail!("this cluster has no audit log");
        };
        serve_service_monitors(case).await?;
        let operator = case.operator().await?;
        let cluster = case.cluster("dfs");
        cluster.start().await?;
        // All its tasks: monitoring is switched on and off, pods are replaced, data is deleted.
        for enabled in [true, false] {
            let monitor = json!({ "serviceMonitor": { "enabled": enabled } });
            cluster.merge(json!({ "spec": { "monitoring": monitor } })).await?;
            cluster.wait_ready().await?;
        }
        let without_policies = json!({ "networkPolicy": { "enabled": false } });
        let own = json!({ "podTemplate": { "serviceAccountName": "default" } });
        let spec = json!({ "security": without_policies, "coordinator": own, "datanodes": own });
        cluster.merge(json!({ "spec": spec })).await?;
        cluster.wait_ready_within(Duration::from_mins(5)).await?;
        let confirmed = json!({ "deletionPolicy": "Delete", "deletionConfirmation": "dfs" });
        cluster.merge(json!({ "spec": confirmed })).await?;
        // Until the operator has seen that, it would delete nothing.
        cluster.wait_ready().await?;
        cluster.delete().await?;

        let roles: Api<Role> = Api::namespaced(case.env.client.clone(), &case.namespace);
        let roles = roles.list(&ListParams::default()).await?;
        let granted: BTreeSet<String> = roles
            .items
            .iter()
            .flat_map(|role| role.rules.iter().flatten())
            .flat_map(expand)
            .filter(|right| !NOT_SEEN.contains(&right.as_str()))
            .collect();
        // Watches appear in the log when they end.
        let ended = operator.try_uninstall().await?;
        ensure!(ended.is_success, "helm cannot uninstall: {}", ended.stderr);
        until("all permissions in use", Duration::from_secs(30), async || {
            let requests = audit.requests_of(&|user| is_operator(user)).await?;
            let used: BTreeSet<String> = requests.iter().flat_map(rights).collect();
            let idle: Vec<_> = granted.difference(&used).collect();
            if idle.is_empty() { Ok(Some(())) } else { bail!("granted and never used: {idle:#?}") }
        })
        .await?;
        let requests = audit.requests_of(&|user| is_operator(user)).await?;
        let refused: Vec<&Request> = requests
            .iter()
            .filter(|request| request.response_status.as_ref().is_some_and(|s| s.code == 403))
            // Other users are deleted, and their permissions before them.
            .filter(|request| request.user.username == operator.user())
            // Cluster-scoped: requested in case it is permitted.
            .filter(|request| request.resource() != "storageclasses")
            .collect();
        ensure!(refused.is_empty(), "denied requests of the operator: {refused:#?}");
        Ok(())
    })
    .await
}

/// Returns true for the users of all releases, in all namespaces.
fn is_operator(user: &str) -> bool {
    user.starts_with("system:serviceaccount:") && user.ends_with("-operator")
}

/// Returns `verb group resource` for each permission of a rule.
fn expand(rule: &PolicyRule) -> Vec<String> {
    let mut rights = Vec::new();
    for group in rule.api_groups.iter().flatten() {
        for resource in rule.resources.iter().flatten() {
            for verb in &rule.verbs {
                rights.push(format!("{verb} {group} {resource}"));
            }
        }
    }
    rights
}

/// Returns the permissions that a request needed, including create if a new object was applied.
fn rights(request: &Request) -> Vec<String> {
    let group = request.object_ref.as_ref().map(|object| object.api_group.as_str());
    let code = request.response_status.as_ref().map(|status| status.code);
    let is_new = request.verb == "patch" && code == Some(201);
    let verbs = [Some(request.verb.as_str()), is_new.then_some("create")];
    let right = |verb| format!("{verb} {} {}", group.unwrap_or_default(), request.resource());
    verbs.into_iter().flatten().map(right).collect()
}

/// Serves a minimal version of the Prometheus operator's kind.
async fn serve_service_monitors(case: &dfs_e2e::Case) -> Result<()> {
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": "servicemonitors.monitoring.coreos.com" },
        "spec": {
            "group": "monitoring.coreos.com",
            "scope": "Namespaced",
            "names": { "kind": "ServiceMonitor", "plural": "servicemonitors" },
            "versions": [{
                "name": "v1",
                "served": true,
                "storage": true,
                "schema": { "openAPIV3Schema": {
                    "type": "object",
                    "x-kubernetes-preserve-unknown-fields": true,
                } },
            }],
        },
    });
    let api: Api<CustomResourceDefinition> = Api::all(case.env.client.clone());
    let name = definition["metadata"]["name"].as_str().context("it has a name")?;
    api.patch(name, &PatchParams::apply("e2e"), &Patch::Apply(&definition)).await?;
    let wait = ["wait", "--for=condition=Established", "crd/servicemonitors.monitoring.coreos.com"];
    case.env.kubectl(&wait).run().await.map(drop)
}
