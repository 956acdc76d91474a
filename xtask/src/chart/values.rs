//! Table of values, from the comments in `values.yaml`.

use std::fmt::Write as _;

use anyhow::{Context as _, Result, bail};

/// A value, or a group of values.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Value {
    key: String,
    comment: String,
    /// Text after the key on its line.
    inline: String,
    children: Vec<Value>,
}

/// Returns one line per value, in the order of the file.
pub(super) fn table(yaml: &str) -> Result<String> {
    let mut table = "| value | default | description |\n|---|---|---|\n".to_owned();
    for (path, value) in leaves(&parse(yaml)?, "")? {
        let comment = value.comment.replace('|', "\\|");
        writeln!(table, "| `{path}` | `{}` | {comment} |", value.default().replace('|', "\\|"))?;
    }
    Ok(table)
}

/// Returns the paths of the values that can be set, each of which must have a comment.
pub(super) fn paths(yaml: &str) -> Result<Vec<String>> {
    Ok(leaves(&parse(yaml)?, "")?.into_iter().map(|(path, _)| path).collect())
}

/// Returns the leaves: a value whose children have comments is a group; one whose children have
/// none is set as a whole.
fn leaves<'a>(values: &'a [Value], parent: &str) -> Result<Vec<(String, &'a Value)>> {
    let mut leaves = Vec::new();
    for value in values {
        let path = format!("{parent}{}", value.key);
        if value.children.iter().any(|child| !child.comment.is_empty()) {
            leaves.extend(self::leaves(&value.children, &format!("{path}."))?);
        } else if value.comment.is_empty() {
            bail!("{path} has no comment in values.yaml");
        } else {
            leaves.push((path, value));
        }
    }
    Ok(leaves)
}

impl Value {
    /// Returns the default on one line.
    fn default(&self) -> String {
        if self.children.is_empty() {
            return self.inline.clone();
        }
        let children = self.children.iter();
        let children = children.map(|child| format!("{}: {}", child.key, child.default()));
        format!("{{{}}}", children.collect::<Vec<_>>().join(", "))
    }
}

/// Parses the subset of YAML that the file uses: mappings, two spaces per level, everything else on
/// one line.
fn parse(yaml: &str) -> Result<Vec<Value>> {
    let mut open: Vec<Value> = vec![Value::group("")];
    let mut comment = Vec::new();
    for (number, line) in (1..).zip(yaml.lines()) {
        let text = line.trim_start();
        if text.is_empty() {
            // The comment was about the file.
            comment.clear();
        } else if let Some(words) = text.strip_prefix('#') {
            comment.push(words.trim());
        } else {
            let place = || format!("line {number} of values.yaml is not `key: value`");
            let (key, inline) = text.split_once(':').with_context(place)?;
            let level = (line.len() - text.len()) / 2 + 1;
            if level > open.len() {
                bail!("line {number} of values.yaml is indented too far");
            }
            close_to(&mut open, level);
            let mut value = Value::group(key);
            value.comment = comment.join(" ");
            inline.trim().clone_into(&mut value.inline);
            open.push(value);
            comment.clear();
        }
    }
    close_to(&mut open, 1);
    open.pop().map(|root| root.children).context("values.yaml has nothing in it")
}

/// Closes open values deeper than a level.
fn close_to(open: &mut Vec<Value>, level: usize) {
    while open.len() > level {
        if let Some(value) = open.pop()
            && let Some(parent) = open.last_mut()
        {
            parent.children.push(value);
        }
    }
}

impl Value {
    fn group(key: &str) -> Self {
        Self {
            key: key.to_owned(),
            comment: String::new(),
            inline: String::new(),
            children: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const YAML: &str = "\
# About the file.

# How many.
replicas: 1
image:
  # Where
  # it is.
  tag: \"\"
# What it may use.
resources:
  requests:
    cpu: 10m
    memory: 64Mi
# Whose.
owner: {}
";

    #[test]
    fn each_value_has_a_line() {
        let expected = "\
| value | default | description |
|---|---|---|
| `replicas` | `1` | How many. |
| `image.tag` | `\"\"` | Where it is. |
| `resources` | `{requests: {cpu: 10m, memory: 64Mi}}` | What it may use. |
| `owner` | `{}` | Whose. |
";
        assert_eq!(table(YAML).unwrap(), expected);
    }

    #[test]
    fn value_without_a_comment_is_refused() {
        assert!(table("a: 1\n").is_err());
        assert!(table("a:\n  # Good.\n  b: 1\n  c: 2\n").is_err());
    }
}
