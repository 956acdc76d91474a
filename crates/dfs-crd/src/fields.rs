//! The fields of the spec as a list, for people who read about them.

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};

use crate::definition::crd;

/// A field that a user may set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Where it is, as in `datanodes.storage.size`.
    pub path: String,
    /// What it takes.
    pub kind: String,
    /// What holds when it is not set; empty when it must be set, or nothing holds.
    pub default: String,
    /// What it does.
    pub description: String,
    /// Whether it must be set.
    pub is_required: bool,
}

/// The fields of the spec, in the order of their paths. Objects of Kubernetes are one field each.
pub fn fields() -> Vec<Field> {
    let mut fields = Vec::new();
    let versions = crd().spec.versions;
    let root = versions.into_iter().next().and_then(|version| version.schema?.open_api_v3_schema);
    if let Some(spec) = root.and_then(|mut root| root.properties.as_mut()?.remove("spec")) {
        collect("", &spec, &mut fields);
    }
    fields
}

/// The same as a page in Markdown.
pub fn fields_markdown() -> String {
    let mut page =
        "# Fields of a DfsCluster\n\nMade by `cargo xtask generate` from the definition; \
        `kubectl explain dfscluster.spec` says the same. Paths are below `spec`.\n\n\
        | field | takes | default | what it does |\n|---|---|---|---|\n"
            .to_owned();
    for Field { path, kind, default, description, is_required } in fields() {
        let default = match default.as_str() {
            _ if is_required => "must be set".to_owned(),
            "" => "not set".to_owned(),
            "\"\"" => "empty".to_owned(),
            value => format!("`{}`", value.trim_matches('"')),
        };
        let line = format!("| `{path}` | {kind} | {default} | {description} |\n");
        page.push_str(&line);
    }
    page
}

fn collect(path: &str, schema: &JSONSchemaProps, fields: &mut Vec<Field>) {
    let required = schema.required.as_deref().unwrap_or_default();
    for (name, property) in schema.properties.iter().flat_map(BTreeMap::iter) {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        if property.properties.is_some() && !is_foreign(name) {
            collect(&path, property, fields);
            continue;
        }
        fields.push(Field {
            kind: kind(name, property),
            default: property.default.as_ref().map(|value| value.0.to_string()).unwrap_or_default(),
            description: property.description.clone().unwrap_or_default().replace('\n', " "),
            is_required: required.contains(name),
            path,
        });
    }
}

/// Whether Kubernetes says what is in it.
fn is_foreign(name: &str) -> bool {
    name == "affinity"
}

fn kind(name: &str, schema: &JSONSchemaProps) -> String {
    if is_foreign(name) {
        return "Affinity".to_owned();
    }
    if let Some(values) = &schema.enum_ {
        let names = values.iter().filter_map(|value| value.0.as_str()).map(|v| format!("`{v}`"));
        return names.collect::<Vec<_>>().join(" or ");
    }
    let range = match (schema.minimum, schema.maximum) {
        (Some(min), Some(max)) => format!(", {min} to {max}"),
        _ => String::new(),
    };
    match schema.type_.as_deref() {
        Some("array") => match &schema.items {
            Some(JSONSchemaPropsOrArray::Schema(items))
                if items.type_.as_deref() == Some("string") =>
            {
                "list of strings".to_owned()
            }
            _ => "list of objects".to_owned(),
        },
        Some("object") => match &schema.additional_properties {
            Some(JSONSchemaPropsOrBool::Schema(_)) => "map".to_owned(),
            _ => "object".to_owned(),
        },
        Some(kind) => format!("{kind}{range}"),
        None => String::new(),
    }
}
