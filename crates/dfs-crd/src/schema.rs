//! Brings what is derived into the form that the API server takes: everything bounded, nothing
//! nullable, defaults in the spec alone.

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt as _;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use crate::cluster::DfsCluster;

/// Bounds of what Kubernetes itself does not bound.
const TEXT_LEN_MAX: i64 = 1_024;
const ITEMS_MAX: i64 = 32;
/// What every reader of JSON can tell apart.
const INTEGER_MAX: f64 = 9_007_199_254_740_991.0;
const LABEL_VALUE_LEN_MAX: i64 = 63;

/// The definition of [`DfsCluster`], as the API server gets it.
pub fn crd() -> CustomResourceDefinition {
    let mut crd = DfsCluster::crd();
    for version in &mut crd.spec.versions {
        let schema = version.schema.as_mut().and_then(|all| all.open_api_v3_schema.as_mut());
        // Of the root object the API server knows what is beside spec and status.
        let parts = schema.and_then(|root| root.properties.as_mut());
        for (name, part) in parts.into_iter().flatten() {
            shape(part, name == "spec");
        }
    }
    crd
}

/// The same in YAML, with a line that says where it comes from.
pub fn crd_yaml() -> Result<String, serde_saphyr::ser_error::Error> {
    let yaml = serde_saphyr::to_string(&crd())?;
    Ok(format!("# Made by `cargo xtask generate`; changes here get lost.\n{yaml}"))
}

fn shape(schema: &mut JSONSchemaProps, has_defaults: bool) {
    // An absent value is absent: the API server drops a null before it fills in defaults.
    schema.nullable = None;
    if !has_defaults {
        schema.default = None;
    }
    bound(schema);
    for property in schema.properties.iter_mut().flat_map(BTreeMap::values_mut) {
        shape(property, has_defaults);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        shape(items, has_defaults);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        shape(values, has_defaults);
    }
}

/// Bounds what has no bound: what is Kubernetes' own.
fn bound(schema: &mut JSONSchemaProps) {
    if schema.x_kubernetes_int_or_string == Some(true) {
        return;
    }
    match schema.type_.as_deref() {
        Some("string") if schema.enum_.is_none() && schema.format.is_none() => {
            schema.max_length.get_or_insert(TEXT_LEN_MAX);
        }
        Some("array") => {
            schema.max_items.get_or_insert(ITEMS_MAX);
            schema.x_kubernetes_list_type.get_or_insert_with(|| "atomic".to_owned());
        }
        Some("integer") => {
            schema.minimum.get_or_insert(0.0);
            let max = match schema.format.as_deref() {
                Some("int32") => f64::from(i32::MAX),
                _ => INTEGER_MAX,
            };
            schema.maximum.get_or_insert(max);
        }
        Some("object") if schema.additional_properties.is_some() => {
            schema.max_properties.get_or_insert(ITEMS_MAX);
        }
        _ => {}
    }
}

/// An object of Kubernetes.
pub(crate) fn embedded_object<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = T::json_schema(generator);
    if let Some(object) = schema.as_object_mut() {
        object.values_mut().for_each(shorten);
    }
    schema
}

/// A list of objects of Kubernetes.
pub(crate) fn embedded_list<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "items": embedded_object::<T>(generator) })
}

/// Leaves the first sentence of each description. With all of them the definition would be too
/// large for `kubectl apply`, which keeps a replica in an annotation.
fn shorten(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if let Some(Value::String(text)) = fields.get_mut("description") {
                let end = text.find(". ").map_or(text.len(), |end| end + 1);
                let end = text.find('\n').map_or(end, |line| line.min(end));
                text.truncate(end);
            }
            fields.values_mut().for_each(shorten);
        }
        Value::Array(items) => items.iter_mut().for_each(shorten),
        _ => {}
    }
}

/// Labels.
pub(crate) fn label_map(_: &mut SchemaGenerator) -> Schema {
    map(LABEL_VALUE_LEN_MAX)
}

/// Annotations.
pub(crate) fn text_map(_: &mut SchemaGenerator) -> Schema {
    map(TEXT_LEN_MAX)
}

fn map(value_len_max: i64) -> Schema {
    let value: Value = json!({ "type": "string", "maxLength": value_len_max });
    json_schema!({
        "type": "object",
        "additionalProperties": value,
        "maxProperties": ITEMS_MAX,
        "x-kubernetes-map-type": "granular",
    })
}
