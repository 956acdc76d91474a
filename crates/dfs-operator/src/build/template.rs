//! Pod templates stay as rendered until a restart is requested.
//!
//! A Deployment replaces its pods when its template changes in any way. A new operator that renders
//! the same resource differently would restart every coordinator, and pass flags to images that do
//! not support them yet. So the applied template is remembered in an annotation, and applied again
//! until the revision changes.

use serde_json::Value;

use super::revision::REVISION;

/// Annotation of workloads with the applied template, in JSON.
pub use dfs_crd::TEMPLATE;

const PATH: &str = "/spec/template";

/// Records the template of a workload.
pub(super) fn remember(workload: &mut Value) {
    let template = workload.pointer(PATH).map(Value::to_string);
    if let (Some(template), Some(metadata)) = (template, workload.get_mut("metadata")) {
        metadata["annotations"][TEMPLATE] = template.into();
    }
}

/// Replaces the template in `wanted` by the one that `there` was applied with, if both have the
/// same revision.
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
