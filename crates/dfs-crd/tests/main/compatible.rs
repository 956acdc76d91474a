//! C69: stored resources of users stay valid. A definition of the same version never loses a field
//! and never narrows one.
//!
//! `tests/frozen` has the definition that users have. A release that only adds to it may replace
//! it; one that removes something needs a new version of the API, and a conversion.

use serde_json::{Value, json};

const FROZEN: &str = include_str!("../frozen/v1alpha1.yaml");

/// Keywords whose smaller values are narrower, then those whose larger ones are.
const UPPER: [&str; 4] = ["maximum", "maxLength", "maxItems", "maxProperties"];
const LOWER: [&str; 4] = ["minimum", "minLength", "minItems", "minProperties"];
/// Keywords that must not change at all.
const SAME: [&str; 6] = [
    "type",
    "format",
    "pattern",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-int-or-string",
];

/// Returns what `new` no longer accepts but `old` did, by path.
fn narrowed(old: &Value, new: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for version in versions(old) {
        let name = &version["name"];
        let Some(other) = versions(new).iter().find(|other| other["name"] == *name) else {
            found.push(format!("version {name} is gone"));
            continue;
        };
        let schema = |version: &Value| version["schema"]["openAPIV3Schema"].clone();
        compare("", &schema(version), &schema(other), &mut found);
    }
    found
}

fn versions(crd: &Value) -> &[Value] {
    crd["spec"]["versions"].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn compare(path: &str, old: &Value, new: &Value, found: &mut Vec<String>) {
    let mut say = |what: &str| found.push(format!("{path}: {what}"));
    for key in SAME {
        // Removing a pattern accepts more than before.
        if old.get(key) != new.get(key) && !(key == "pattern" && new.get(key).is_none()) {
            say(&format!("{key} changed"));
        }
    }
    for (keys, sign) in [(UPPER, 1.0), (LOWER, -1.0)] {
        for key in keys {
            let (before, after) = (old[key].as_f64(), new[key].as_f64());
            if after.is_some_and(|after| before.is_none_or(|before| sign * after < sign * before)) {
                say(&format!("{key} is narrower"));
            }
        }
    }
    let list = |schema: &Value, key: &str| schema[key].as_array().cloned().unwrap_or_default();
    let values = list(new, "enum");
    if !values.is_empty() {
        let was_open = old.get("enum").is_none();
        let is_gone = |value: &Value| !values.contains(value);
        if was_open || list(old, "enum").iter().any(is_gone) {
            say("enum lacks a value");
        }
    }
    for name in list(new, "required").iter().filter(|name| !list(old, "required").contains(name)) {
        // A field with a default is never absent.
        let property = &new["properties"][name.as_str().unwrap_or_default()];
        if property.get("default").is_none() {
            say(&format!("{name} must be set"));
        }
    }
    let rules = |schema: &Value| -> Vec<Value> {
        list(schema, "x-kubernetes-validations").iter().map(|rule| rule["rule"].clone()).collect()
    };
    for rule in rules(new).iter().filter(|rule| !rules(old).contains(rule)) {
        say(&format!("new rule: {rule}"));
    }
    for (name, property) in old["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        match new["properties"].get(name) {
            Some(other) => compare(&path, property, other, found),
            None => found.push(format!("{path} is gone")),
        }
    }
    for (key, mark) in [("items", "[]"), ("additionalProperties", "{}")] {
        if old[key].is_object() {
            compare(&format!("{path}{mark}"), &old[key], &new[key], found);
        }
    }
}

#[test]
fn c69_stored_resources_stay_valid() {
    let frozen: Value = serde_saphyr::from_str(FROZEN).unwrap();
    assert!(!versions(&frozen).is_empty());
    let now: Value = serde_saphyr::from_str(&dfs_crd::crd_yaml().unwrap()).unwrap();
    assert_eq!(narrowed(&frozen, &now), [""; 0], "this requires a new version of the API");
}

#[test]
fn c69_each_way_of_narrowing_is_detected() {
    let schema = |properties: Value| {
        json!({"spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": {
            "type": "object", "properties": properties,
        }}}]}})
    };
    let old = json!({
        "a": {"type": "string", "maxLength": 10, "enum": ["X", "Y"]},
        "n": {"type": "integer", "minimum": 1, "maximum": 9, "format": "int32"},
        "l": {"type": "array", "items": {"type": "object", "properties": {"b": {"type": "string"}}}},
    });
    let before = schema(old.clone());
    let after = |pointer: &str, value: Option<Value>| {
        let mut new = old.clone();
        let (parent, last) = pointer.rsplit_once('/').unwrap();
        let parent = new.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        match value {
            Some(value) => drop(parent.insert(last.to_owned(), value)),
            None => drop(parent.remove(last)),
        }
        narrowed(&before, &schema(new))
    };
    for (pointer, value, fault) in [
        ("/a", None, "a is gone"),
        ("/l/items/properties/b", None, "l[].b is gone"),
        ("/a/type", Some(json!("integer")), "a: type changed"),
        ("/a/maxLength", Some(json!(9)), "a: maxLength is narrower"),
        ("/a/minLength", Some(json!(1)), "a: minLength is narrower"),
        ("/a/pattern", Some(json!("^x$")), "a: pattern changed"),
        ("/a/enum", Some(json!(["X"])), "a: enum lacks a value"),
        ("/n/minimum", Some(json!(2)), "n: minimum is narrower"),
        ("/n/maximum", Some(json!(8)), "n: maximum is narrower"),
        ("/n/format", Some(json!("int64")), "n: format changed"),
        ("/l/maxItems", Some(json!(3)), "l: maxItems is narrower"),
        ("/l/items/required", Some(json!(["b"])), "l[]: \"b\" must be set"),
        ("/l/x-kubernetes-validations", Some(json!([{"rule": "false"}])), "l: new rule: \"false\""),
    ] {
        assert_eq!(after(pointer, value), [fault], "{pointer}");
    }
    for (pointer, value) in [
        ("/c", Some(json!({"type": "string"}))),
        ("/a/maxLength", Some(json!(11))),
        ("/a/enum", Some(json!(["X", "Y", "Z"]))),
        ("/a/enum", None),
        ("/n/minimum", Some(json!(0))),
        ("/l/items/properties/d", Some(json!({"type": "string"}))),
    ] {
        assert_eq!(after(pointer, value), [""; 0], "{pointer}");
    }
    let none = json!({"spec": {"versions": []}});
    assert_eq!(narrowed(&before, &none), ["version \"v1\" is gone"]);
}
