//! Drift detection: whether an object in the API server already has everything that is desired.
//!
//! The server adds defaults and other managers add their own fields, so the desired object need
//! only be contained in the observed one. A field that is no longer desired does not show up that
//! way; the annotation [`APPLIED`] on each object detects it.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

/// Fingerprint of what was last applied.
pub use dfs_crd::APPLIED;

/// Keys that identify the items of a list, in order of preference.
const KEYS: [&str; 6] = ["name", "mountPath", "containerPort", "port", "uid", "topologyKey"];

/// Marks an object with the fingerprint of its desired content.
pub fn mark(object: &mut Value) {
    let digest = Sha256::digest(object.to_string());
    let mark = digest.iter().take(8).fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        let annotations =
            metadata.entry("annotations").or_insert_with(|| Value::Object(Map::new()));
        if !annotations.is_object() {
            *annotations = Value::Object(Map::new());
        }
        annotations[APPLIED] = mark.into();
    }
}

/// Returns whether `there` contains all of `wanted`.
pub fn contains(there: &Value, wanted: &Value) -> bool {
    match (there, wanted) {
        (Value::Object(there), Value::Object(wanted)) => wanted.iter().all(|(key, wanted)| {
            match there.get(key) {
                Some(there) if is_amount(key) => same_amounts(there, wanted),
                Some(there) => contains(there, wanted),
                // The server drops empty values.
                None => is_empty(wanted),
            }
        }),
        (Value::Array(there), Value::Array(wanted)) => list_contains(there, wanted),
        (there, wanted) => there == wanted || (is_empty(there) && is_empty(wanted)),
    }
}

fn list_contains(there: &[Value], wanted: &[Value]) -> bool {
    let key = KEYS.iter().find(|key| {
        let has_key = |item: &Value| item.get(key).is_some();
        !wanted.is_empty() && wanted.iter().all(has_key) && there.iter().all(has_key)
    });
    match key {
        // Other managers may have added items between ours.
        Some(key) => wanted.iter().all(|wanted| {
            let mut same = there.iter().filter(|there| there[key] == wanted[key]);
            same.any(|there| contains(there, wanted))
        }),
        None => {
            there.len() == wanted.len()
                && there.iter().zip(wanted).all(|(there, wanted)| contains(there, wanted))
        }
    }
}

/// Returns true if values under this key are quantities, which the server normalises.
fn is_amount(key: &str) -> bool {
    matches!(key, "limits" | "requests" | "capacity" | "sizeLimit" | "divisor")
}

fn same_amounts(there: &Value, wanted: &Value) -> bool {
    match (there, wanted) {
        (Value::Object(there), Value::Object(wanted)) => wanted
            .iter()
            .all(|(key, wanted)| there.get(key).is_some_and(|there| same_amounts(there, wanted))),
        (Value::String(there), Value::String(wanted)) => {
            there == wanted
                || match (amount(there), amount(wanted)) {
                    (Some(there), Some(wanted)) => (there - wanted).abs() <= wanted.abs() * 1e-12,
                    _ => false,
                }
        }
        (there, wanted) => there == wanted,
    }
}

/// Returns the number behind `500m`, `1Gi`, `1e3`.
pub fn amount(text: &str) -> Option<f64> {
    let split = text.find(|c: char| c.is_ascii_alphabetic() && !is_exponent(text, c));
    let (number, suffix) = text.split_at(split.unwrap_or(text.len()));
    let factor = match suffix {
        "" => 1.0,
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1024.0 * 1024.0,
        "Gi" => 1024.0 * 1024.0 * 1024.0,
        "Ti" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        "Pi" => 1024.0 * 1024.0 * 1024.0 * 1024.0 * 1024.0,
        "Ei" => 1024.0 * 1024.0 * 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * factor)
}

/// Returns whether two quantities denote the same amount.
pub fn same_quantity(a: &Quantity, b: &Quantity) -> bool {
    same_amounts(&Value::String(a.0.clone()), &Value::String(b.0.clone()))
}

/// Returns true for an `e` followed by a number; an `E` alone is the suffix.
fn is_exponent(text: &str, c: char) -> bool {
    matches!(c, 'e' | 'E')
        && text
            .split_once(c)
            .is_some_and(|(_, rest)| !rest.is_empty() && rest.parse::<i32>().is_ok())
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(value) => value.as_f64() == Some(0.0),
        Value::String(value) => value.is_empty(),
        Value::Array(value) => value.is_empty(),
        Value::Object(value) => value.values().all(is_empty),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn defaults_and_foreign_fields_are_ignored() {
        let there = json!({
            "metadata": {"labels": {"a": "1", "theirs": "x"}, "uid": "u"},
            "spec": {"replicas": 3, "strategy": "Recreate", "containers": [
                {"name": "injected", "image": "s"},
                {"name": "c", "image": "i", "imagePullPolicy": "Always"},
            ]},
        });
        let wanted = json!({
            "metadata": {"labels": {"a": "1"}},
            "spec": {"replicas": 3, "containers": [{"name": "c", "image": "i", "env": []}]},
        });
        assert!(contains(&there, &wanted));
        for (path, value) in [
            ("/metadata/labels/a", json!("2")),
            ("/spec/replicas", json!(4)),
            ("/spec/containers/0/image", json!("other")),
            ("/spec/containers/0/name", json!("new")),
        ] {
            let mut changed = wanted.clone();
            *changed.pointer_mut(path).unwrap() = value;
            assert!(!contains(&there, &changed), "{path}");
        }
    }

    #[test]
    fn values_dropped_by_the_server_are_ignored() {
        let wanted = json!({"a": "", "b": false, "c": [], "d": {}, "e": null, "f": 0});
        assert!(contains(&json!({}), &wanted));
        assert!(!contains(&json!({}), &json!({"a": "x"})));
        assert!(!contains(&json!({"b": true}), &json!({"b": false})));
        assert!(!contains(&json!({"c": ["x"]}), &json!({"c": []})));
    }

    #[test]
    fn lists_without_keys_are_compared_as_a_whole() {
        assert!(contains(&json!(["a", "b"]), &json!(["a", "b"])));
        assert!(!contains(&json!(["a", "b"]), &json!(["b", "a"])));
        assert!(!contains(&json!(["a", "b"]), &json!(["a"])));
    }

    #[test]
    fn quantities_are_compared_by_amount() {
        let limits = |cpu: &str, memory: &str| json!({"limits": {"cpu": cpu, "memory": memory}});
        assert!(contains(&limits("1", "1Gi"), &limits("1000m", "1024Mi")));
        assert!(!contains(&limits("1", "1Gi"), &limits("1001m", "1Gi")));
        assert!(!contains(&limits("1", "1Gi"), &limits("one", "1Gi")));
        for (text, number) in
            [("1e3", 1e3), ("2E", 2e18), ("1E2", 1e2), ("0.5Ki", 512.0), ("10", 10.0)]
        {
            assert_eq!(amount(text), Some(number), "{text}");
        }
        assert_eq!(amount("1Zi"), None);
    }

    #[test]
    fn mark_depends_on_the_content() {
        let marked = |replicas: i32| {
            let mut object = json!({"metadata": {"name": "a"}, "spec": {"replicas": replicas}});
            mark(&mut object);
            object["metadata"]["annotations"][APPLIED].as_str().unwrap().to_owned()
        };
        assert_eq!(marked(1), marked(1));
        assert_ne!(marked(1), marked(2));
        assert_eq!(marked(1).len(), 16);
    }
}
