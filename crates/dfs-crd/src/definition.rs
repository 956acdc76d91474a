//! The CustomResourceDefinition: the derived schema in the form that the API server takes, with
//! everything bounded, nothing nullable, and defaults in the spec alone.

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt as _;

use crate::cluster::DfsCluster;
use crate::schema::{ITEMS_MAX, TEXT_LEN_MAX};

/// The greatest integer that every reader of JSON can represent.
const INTEGER_MAX: f64 = 9_007_199_254_740_991.0;

/// Returns the CustomResourceDefinition of [`DfsCluster`].
pub fn crd() -> CustomResourceDefinition {
    let mut crd = DfsCluster::crd();
    for version in &mut crd.spec.versions {
        let schema = version.schema.as_mut().and_then(|all| all.open_api_v3_schema.as_mut());
        // The API server knows everything else of the root object.
        let parts = schema.and_then(|root| root.properties.as_mut());
        for (name, part) in parts.into_iter().flatten() {
            shape(part, name == "spec");
        }
    }
    crd
}

/// Returns the definition in YAML, with a line that says where it comes from.
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

/// Bounds what has no bound of its own, as types of Kubernetes have none.
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
