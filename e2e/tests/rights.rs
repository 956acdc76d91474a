//! What the operator may do, and what it does. Looks at the requests of the cases before it, too.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use dfs_e2e::{Audit, Request, case, until};
use k8s_openapi::api::rbac::v1::{PolicyRule, Role};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;

/// Granted, and not to be seen here: the first is looked up by the API server itself, which asks
/// whether an owner may be named that blocks its deletion; the second is for coordinators that
/// become one again, and several need an etcd.
const NOT_SEEN: [&str; 2] =
    ["update dfs.io dfsclusters/finalizers", "delete policy poddisruptionbudgets"];

#[tokio::test]
async fn c28_what_is_granted_is_used_and_nothing_is_refused() -> Result<()> {
    case("c28", async |case| {
        let Some(audit) = Audit::whole(&case.env).await? else {
            anyhow::bail!("this Kubernetes shows no audit log");
        };
        serve_service_monitors(case).await?;
        let operator = case.operator().await?;
        let cluster = case.cluster("dfs");
        cluster.start().await?;
        // All that it is there for: monitoring comes and goes, pods are replaced, data is deleted.
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
        // Until the operator has seen that, nothing would be deleted by it.
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
        // Watches are told of when they end.
        let ended = operator.try_uninstall().await?;
        ensure!(ended.is_success, "helm cannot uninstall: {}", ended.stderr);
        until("all rights in use", Duration::from_secs(30), async || {
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
            // Others go, and their rights before them.
            .filter(|request| request.user.username == operator.user())
            // Belong to no namespace: asked for in case somebody has granted it.
            .filter(|request| request.resource() != "storageclasses")
            .collect();
        ensure!(refused.is_empty(), "the operator asked for what it may not: {refused:#?}");
        Ok(())
    })
    .await
}

/// Of all releases, in all namespaces.
fn is_operator(user: &str) -> bool {
    user.starts_with("system:serviceaccount:") && user.ends_with("-operator")
}

/// `verb group resource` for each that a rule grants.
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

/// What a request took: the right to create as well, where something was applied that was not there.
fn rights(request: &Request) -> Vec<String> {
    let group = request.object_ref.as_ref().map(|object| object.api_group.as_str());
    let code = request.response_status.as_ref().map(|status| status.code);
    let is_new = request.verb == "patch" && code == Some(201);
    let verbs = [Some(request.verb.as_str()), is_new.then_some("create")];
    let right = |verb| format!("{verb} {} {}", group.unwrap_or_default(), request.resource());
    verbs.into_iter().flatten().map(right).collect()
}

/// The kind of the Prometheus operator, as far as it matters here.
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
