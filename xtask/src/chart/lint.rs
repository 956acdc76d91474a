//! What helm says of the chart.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use super::{CHART, helm, read, values};
use crate::process::output;

/// Values that must be refused, and why they would not do.
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

/// Both ends of the versions of Kubernetes that the chart is for.
const VERSIONS: [&str; 2] = ["1.29.0", "1.35.0"];

/// Checks the chart with helm.
pub(crate) fn check(root: &Path) -> Result<()> {
    let chart = root.join(CHART);
    each_value_is_used(&chart)?;
    let helm = &helm::find(root)?;
    let mut samples: Vec<PathBuf> =
        fs::read_dir(chart.join("ci"))?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    samples.sort();
    ensure!(!samples.is_empty(), "charts/dfs/ci has no values to try");
    for sample in &samples {
        for version in VERSIONS {
            let lint = ["lint", "--strict", "--kube-version", version, "-f"];
            output(Command::new(helm).args(lint).arg(sample).arg(&chart))?;
            let once = render(helm, &chart, sample, version)?;
            let twice = render(helm, &chart, sample, version)?;
            ensure!(once == twice, "{} renders by chance", sample.display());
            roles_alone_where_namespaces_are_named(&once)?;
            no_right_is_wider_than_its_use(&once)?;
        }
    }
    for (value, word) in WRONG {
        let Err(error) =
            output(Command::new(helm).arg("template").arg(&chart).args(["--set", value]))
        else {
            bail!("the chart takes --set {value}");
        };
        let text = format!("{error:#}");
        ensure!(text.contains(word), "--set {value} is refused for another reason: {text}");
    }
    Ok(())
}

fn render(helm: &Path, chart: &Path, sample: &Path, version: &str) -> Result<String> {
    let template = ["template", "release", "--namespace=home", "--kube-version", version, "-f"];
    let rendered = output(Command::new(helm).args(template).arg(sample).arg(chart))?;
    String::from_utf8(rendered).context("helm renders no text")
}

/// An operator that serves some namespaces has no rights outside of them.
fn roles_alone_where_namespaces_are_named(rendered: &str) -> Result<()> {
    if rendered.contains("name: WATCH_NAMESPACES") {
        ensure!(!rendered.contains("kind: ClusterRole"), "watchNamespaces leaves a ClusterRole");
    }
    ensure!(!rendered.contains("['*']") && !rendered.contains("[\"*\"]"), "a rule has a star");
    Ok(())
}

/// What no rule of any role may grant, and what goes with the roles.
fn no_right_is_wider_than_its_use(rendered: &str) -> Result<()> {
    // C27: who may do these may do anything.
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
    // C30: who serves all namespaces adds to the roles that Kubernetes has.
    if rendered.contains("kind: ClusterRole\n") {
        for role in ["view", "edit"] {
            let label = format!("rbac.authorization.k8s.io/aggregate-to-{role}: \"true\"");
            ensure!(rendered.contains(&label), "nothing is added to the role {role}");
        }
    }
    Ok(())
}

/// A value that no template looks at is a promise that nobody keeps.
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

/// By its whole path, or as `.key` where the template has gone into the group it is in.
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
    fn a_value_is_used_by_its_path_or_in_its_group() {
        let templates = "{{ .Values.a.b }} {{ with .Values.c }}{{ .d }}{{ end }}";
        assert!(is_used("a.b", templates));
        assert!(is_used("c.d", templates));
        assert!(!is_used("a", templates));
        assert!(!is_used("a.c", templates));
        assert!(!is_used("e.d", templates));
    }
}
