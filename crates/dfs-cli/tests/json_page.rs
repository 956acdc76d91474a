//! `docs/json.md`, the page that lists the documents of all commands with `--json`.

use std::collections::BTreeMap;

use serde_json::Value;

const PAGE: &str = include_str!("../../../docs/json.md");

/// Types of the fields of a document, by path. Array elements are `[]`.
pub(crate) type Fields = BTreeMap<String, &'static str>;

/// Returns the commands of each heading, with the section below it.
pub(crate) fn sections() -> impl Iterator<Item = (Vec<&'static str>, &'static str)> {
    PAGE.split("\n## ").skip(1).map(|section| {
        let (heading, section) = section.split_once('\n').expect("a heading, then its section");
        (heading.split(", ").collect(), section)
    })
}

/// Returns the types that the page lists for a command, by path.
pub(crate) fn listed(command: &str) -> BTreeMap<&'static str, Vec<&'static str>> {
    let section = sections().find(|(commands, _)| commands.contains(&command));
    let (_, section) = section.unwrap_or_else(|| panic!("docs/json.md does not list {command}"));
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    let row = |row: &'static str| {
        let (field, rest) = row.split_once("` | ").expect("a field, then its type");
        let (types, _) = rest.split_once(" | ").expect("a type, then a description");
        (field, types.split(" or ").collect())
    };
    rows.map(row).collect()
}

/// Checks that the page lists every field of a document with its type, and that the document has
/// every listed field outside arrays. Returns the fields of the document.
pub(crate) fn check(command: &str, document: &Value) -> Fields {
    let mut found = Fields::new();
    collect(document, "", &mut found);
    let listed = listed(command);
    for (field, kind) in &found {
        let types = listed.get(field.as_str());
        let types = types.unwrap_or_else(|| panic!("{command}: {field} is not listed"));
        let is_listed = types.contains(kind) || (*kind == "integer" && types.contains(&"number"));
        assert!(is_listed, "{command}: {field} is a {kind}, {types:?} is listed");
    }
    for field in listed.keys().filter(|field| !field.contains("[]")) {
        assert!(found.contains_key(*field), "{command}: {field} is listed but not written");
    }
    found
}

fn collect(value: &Value, path: &str, found: &mut Fields) {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(items) => {
            for item in items {
                collect(item, &format!("{path}[]"), found);
            }
            "array"
        }
        Value::Object(members) => {
            let prefix = if path.is_empty() { String::new() } else { format!("{path}.") };
            for (name, member) in members {
                collect(member, &format!("{prefix}{name}"), found);
            }
            "object"
        }
    };
    if !path.is_empty() {
        found.insert(path.to_owned(), kind);
    }
}
