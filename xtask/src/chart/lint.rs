//! Checks of the chart with helm.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use super::{CHART, helm, read, values};
use crate::process::output;

/// Values that must be refused, with a word of the reason.
const WRONG: [(&str, &str); 8] = [
    ("nosuch=1", "nosuch"),
    ("image.nosuch=1", "nosuch"),
    ("replicas=two", "replicas"),
    ("replicas=0", "replicas"),
    ("image.tag=latest", "tag"),
    ("image.digest=sha256:1", "digest"),
    ("log.format=xml", "format"),
    ("watchNamespaces={A_B}", "watchNamespaces"),
];

/// The oldest and newest supported version of Kubernetes.
const VERSIONS: [&str; 2] = ["1.29.0", "1.35.0"];

/// Checks the chart with helm.
pub(crate) fn check(root: &Path) -> Result<()> {
    let chart = root.join(CHART);
    each_value_is_used(&chart)?;
    let helm = &helm::find(root)?;
    let mut samples: Vec<PathBuf> =
        fs::read_dir(chart.join("ci"))?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    samples.sort();
    ensure!(!samples.is_empty(), "charts/dfs/ci contains no values");
    for sample in &samples {
        for version in VERSIONS {
            let lint = ["lint", "--strict", "--kube-version", version, "-f"];
            output(Command::new(helm).args(lint).arg(sample).arg(&chart))?;
            let once = render(helm, &chart, sample, version)?;
            let twice = render(helm, &chart, sample, version)?;
            ensure!(once == twice, "{} renders differently each time", sample.display());
            only_roles_for_named_namespaces(&once)?;
            no_permission_is_too_broad(&once)?;
        }
    }
    for (value, word) in WRONG {
        let Err(error) =
            output(Command::new(helm).arg("template").arg(&chart).args(["--set", value]))
        else {
            bail!("the chart accepts --set {value}");
        };
        let text = format!("{error:#}");
        ensure!(text.contains(word), "--set {value} is refused for another reason: {text}");
    }
    Ok(())
}

fn render(helm: &Path, chart: &Path, sample: &Path, version: &str) -> Result<String> {
    let template = ["template", "release", "--namespace=home", "--kube-version", version, "-f"];
    let rendered = output(Command::new(helm).args(template).arg(sample).arg(chart))?;
    String::from_utf8(rendered).context("helm did not render text")
}

/// An operator of some namespaces has no permissions outside them.
fn only_roles_for_named_namespaces(rendered: &str) -> Result<()> {
    if rendered.contains("name: WATCH_NAMESPACES") {
        ensure!(!rendered.contains("kind: ClusterRole"), "watchNamespaces leaves a ClusterRole");
    }
    ensure!(!rendered.contains("['*']") && !rendered.contains("[\"*\"]"), "a rule has a star");
    Ok(())
}

/// Permissions that no role may grant, and rules about the roles.
fn no_permission_is_too_broad(rendered: &str) -> Result<()> {
    // C27: these would allow anything.
    for word in ["pods/exec", "escalate", "impersonate", "resources: [nodes", "[roles"] {
        ensure!(!rendered.contains(word), "a rule has {word}");
    }
    // C26, C31: Secrets are read by name, and definitions are not changed.
    for (resource, forbidden) in [
        ("resources: [secrets]", ["list", "watch", "patch", "update"]),
        ("resources: [customresourcedefinitions]", ["list", "patch", "update", "delete"]),
    ] {
        for (at, _) in rendered.match_indices(resource) {
            let verbs = rendered[at..].lines().find(|line| line.contains("verbs:"));
            let verbs = verbs.context("a rule without verbs")?;
            let wide = forbidden.iter().find(|verb| verbs.contains(**verb));
            ensure!(wide.is_none(), "{resource} has {verbs}");
        }
    }
    // C30: an operator of all namespaces extends the standard roles of Kubernetes.
    if rendered.contains("kind: ClusterRole\n") {
        for role in ["view", "edit"] {
            let label = format!("rbac.authorization.k8s.io/aggregate-to-{role}: \"true\"");
            ensure!(rendered.contains(&label), "the role {role} is not extended");
        }
    }
    Ok(())
}

/// A value that no template uses has no effect.
fn each_value_is_used(chart: &Path) -> Result<()> {
    let mut templates = String::new();
    for folder in ["templates", "templates/tests"] {
        for entry in fs::read_dir(chart.join(folder))? {
            let path = entry?.path();
            if path.is_file() {
                templates.push_str(&read(&path)?);
            }
        }
    }
    let unused = values::paths(&read(&chart.join("values.yaml"))?)?;
    let unused: Vec<String> =
        unused.into_iter().filter(|path| !is_used(path, &templates)).collect();
    ensure!(unused.is_empty(), "no template uses these values: {}", unused.join(", "));
    Ok(())
}

/// Matches the whole path, or `.key` if the template is within its group.
fn is_used(path: &str, templates: &str) -> bool {
    let names = |text: &str, name: &str| {
        text.match_indices(name).any(|(at, _)| {
            let next = text[at + name.len()..].chars().next();
            !next.is_some_and(|c| c.is_alphanumeric() || c == '.')
        })
    };
    if names(templates, &format!(".Values.{path}")) {
        return true;
    }
    path.rsplit_once('.').is_some_and(|(group, key)| {
        names(templates, &format!("with .Values.{group}")) && names(templates, &format!(" .{key}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_is_used_by_its_path_or_within_its_group() {
        let templates = "{{ .Values.a.b }} {{ with .Values.c }}{{ .d }}{{ end }}";
        assert!(is_used("a.b", templates));
        assert!(is_used("c.d", templates));
        assert!(!is_used("a", templates));
        assert!(!is_used("a.c", templates));
        assert!(!is_used("e.d", templates));
    }
}
