//! Pod templates stay as they were rendered as long as nothing asks for a restart.
//!
//! A Deployment replaces its pods when its template changes in any way. A new operator that renders
//! the same resource in another way would restart every coordinator, and give flags to images that
//! do not know them yet. So the template that was applied is remembered in an annotation, and
//! applied again until the revision changes.

use serde_json::Value;

use super::revision::REVISION;

/// Annotation of workloads with the template that was applied, in JSON.
pub use dfs_crd::TEMPLATE;

const PATH: &str = "/spec/template";

/// Notes down the template of a workload.
pub(super) fn remember(workload: &mut Value) {
    let template = workload.pointer(PATH).map(Value::to_string);
    if let (Some(template), Some(metadata)) = (template, workload.get_mut("metadata")) {
        metadata["annotations"][TEMPLATE] = template.into();
    }
}

/// Puts the template that `there` was applied with into `wanted`, when both have the same
/// revision.
pub fn keep_template(there: &Value, wanted: &mut Value) {
    let (Some(remembered), Some(template)) = (remembered(there), wanted.pointer_mut(PATH)) else {
        return;
    };
    if revision(&remembered).is_some() && revision(&remembered) == revision(template) {
        *template = remembered;
        remember(wanted);
    }
}

fn remembered(workload: &Value) -> Option<Value> {
    let text = workload.pointer("/metadata/annotations")?.get(TEMPLATE)?.as_str()?;
    serde_json::from_str(text).ok()
}

fn revision(template: &Value) -> Option<&str> {
    template.pointer("/metadata/annotations")?.get(REVISION)?.as_str()
}
