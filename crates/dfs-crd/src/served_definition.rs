//! Differences of the definition in an API server from the one compiled in here.
//!
//! An API server drops fields that its definition lacks. An operator that is newer than the
//! definition would therefore treat settings of the user as unset, and write a status that never
//! persists.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};

use crate::{VERSION, crd};

/// The name of the definition.
pub const CRD_NAME: &str = "dfsclusters.dfs.io";

/// Returns the paths of the fields, and the values of enums as `path=value`, that `served` lacks,
/// sorted. Empty when it has all: then it is of this version or newer.
pub fn missing(served: &CustomResourceDefinition) -> Vec<String> {
    let own = crd();
    let Some(own) = schema(&own) else { return Vec::new() };
    let Some(served) = schema(served) else { return vec![format!("version {VERSION}")] };
    let mut missing = Vec::new();
    compare("", own, served, &mut missing);
    missing
}

/// Returns the schema of our version, if it is served.
fn schema(crd: &CustomResourceDefinition) -> Option<&JSONSchemaProps> {
    let version = crd.spec.versions.iter().find(|one| one.name == VERSION && one.served)?;
    version.schema.as_ref()?.open_api_v3_schema.as_ref()
}

fn compare(path: &str, own: &JSONSchemaProps, served: &JSONSchemaProps, missing: &mut Vec<String>) {
    for value in own.enum_.iter().flatten() {
        if !served.enum_.iter().flatten().any(|there| there == value) {
            missing.push(format!("{path}={}", value.0.as_str().unwrap_or_default()));
        }
    }
    for (name, property) in own.properties.iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        match served.properties.as_ref().and_then(|all| all.get(name)) {
            Some(there) => compare(&path, property, there, missing),
            None => missing.push(path),
        }
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &own.items
        && let Some(JSONSchemaPropsOrArray::Schema(there)) = &served.items
    {
        compare(&format!("{path}[]"), items, there, missing);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &own.additional_properties
        && let Some(JSONSchemaPropsOrBool::Schema(there)) = &served.additional_properties
    {
        compare(&format!("{path}{{}}"), values, there, missing);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const SCHEMA: &str = "/spec/versions/0/schema/openAPIV3Schema/properties";

    fn changed(change: impl FnOnce(&mut Value)) -> Vec<String> {
        let mut crd = serde_json::to_value(crd()).unwrap();
        change(&mut crd);
        missing(&serde_json::from_value(crd).unwrap())
    }

    fn object<'a>(crd: &'a mut Value, path: &str) -> &'a mut serde_json::Map<String, Value> {
        crd.pointer_mut(&format!("{SCHEMA}{path}")).unwrap().as_object_mut().unwrap()
    }

    #[test]
    fn definition_of_this_version_or_newer_lacks_nothing() {
        assert_eq!(changed(|_| {}), [""; 0]);
        let newer = changed(|crd| {
            let field = json!({"type": "string", "description": "New."});
            object(crd, "/spec/properties").insert("later".to_owned(), field);
            crd["spec"]["versions"][0]["name"] = VERSION.into();
        });
        assert_eq!(newer, [""; 0]);
        assert_eq!(crd().metadata.name.as_deref(), Some(CRD_NAME));
    }

    #[test]
    fn fields_missing_in_an_older_definition_are_named() {
        let older = changed(|crd| {
            object(crd, "/spec/properties/datanodes/properties").remove("podTemplate");
            object(crd, "/status/properties").remove("rollout");
            let engine = "/spec/properties/coordinator/properties/metadata/properties/engine";
            object(crd, engine).insert("enum".to_owned(), json!(["Embedded"]));
            let node = "/status/properties/datanodes/items/properties";
            object(crd, node).remove("version");
        });
        let wanted = [
            "spec.coordinator.metadata.engine=Etcd",
            "spec.datanodes.podTemplate",
            "status.datanodes[].version",
            "status.rollout",
        ];
        assert_eq!(older, wanted);
    }

    #[test]
    fn unserved_version_is_reported_as_missing() {
        let other = changed(|crd| crd["spec"]["versions"][0]["name"] = "v1".into());
        assert_eq!(other, ["version v1alpha1"]);
        let off = changed(|crd| crd["spec"]["versions"][0]["served"] = false.into());
        assert_eq!(off, ["version v1alpha1"]);
    }
}
