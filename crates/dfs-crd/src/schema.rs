//! Schemas of fields with Kubernetes types, or maps.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

/// Bounds of values that Kubernetes does not bound.
pub(crate) const TEXT_LEN_MAX: i64 = 1_024;
pub(crate) const ITEMS_MAX: i64 = 32;
const LABEL_VALUE_LEN_MAX: i64 = 63;

/// Returns the schema of a Kubernetes object.
pub(crate) fn embedded_object<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = T::json_schema(generator);
    if let Some(object) = schema.as_object_mut() {
        object.values_mut().for_each(shorten);
    }
    schema
}

/// Returns the schema of a list of Kubernetes objects.
pub(crate) fn embedded_list<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "items": embedded_object::<T>(generator) })
}

/// Keeps the first sentence of each description. With all of them the definition would be too large
/// for `kubectl apply`, which stores a copy of it in an annotation.
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

/// Returns the schema of labels.
pub(crate) fn label_map(_: &mut SchemaGenerator) -> Schema {
    map(LABEL_VALUE_LEN_MAX)
}

/// Returns the schema of annotations.
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
