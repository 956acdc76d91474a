//! The Helm chart: generated parts, and checks with helm.

mod helm;
mod lint;
mod values;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

pub(crate) use lint::check as lint;

const CHART: &str = "charts/dfs";
/// Marks around the generated part of an otherwise handwritten file.
const BEGIN: &str = "<!-- generated: values -->\n";
const END: &str = "<!-- end -->\n";

/// Writes the generated files.
pub(crate) fn generate(root: &Path) -> Result<()> {
    for (path, text) in outputs(root)? {
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Fails if a committed file is outdated.
pub(crate) fn check(root: &Path) -> Result<()> {
    for (path, text) in outputs(root)? {
        if fs::read_to_string(&path).unwrap_or_default() != text {
            bail!("{} is out of date: run cargo xtask generate", path.display());
        }
    }
    Ok(())
}

/// Returns each generated file with its content.
fn outputs(root: &Path) -> Result<Vec<(PathBuf, String)>> {
    let chart = root.join(CHART);
    let readme = chart.join("README.md");
    let text = read(&readme)?;
    let table = values::table(&read(&chart.join("values.yaml"))?)?;
    let mut outputs = vec![(readme, between(&text, &table).context("README.md of the chart")?)];
    for entry in fs::read_dir(root.join("crds")).context("cannot list crds/")? {
        let path = entry?.path();
        let name = path.file_name().context("a file without a name")?.to_string_lossy();
        let template = chart.join("templates").join(format!("crd-{name}"));
        outputs.push((template, crd_template(&read(&path)?)?));
    }
    Ok(outputs)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Replaces the text between the marks.
fn between(text: &str, generated: &str) -> Result<String> {
    let (before, rest) = text.split_once(BEGIN).context("the start mark is missing")?;
    let (_, after) = rest.split_once(END).context("the end mark is missing")?;
    Ok(format!("{before}{BEGIN}\n{generated}\n{END}{after}"))
}

/// Returns a CRD as a template: unlike those in `crds/` of a chart, helm upgrades templates, and the
/// resource policy keeps helm from deleting the CRD.
fn crd_template(crd: &str) -> Result<String> {
    let (before, after) = crd.split_once("metadata:\n").context("the CRD has no metadata")?;
    ensure!(!after.starts_with("  annotations:"), "the CRD has annotations of its own");
    // Descriptions are not templates.
    let quoted = |text: &str| text.replace("{{", "{{ \"{{\" }}");
    Ok(format!(
        "{{{{- /* Generated from crds/: cargo xtask generate. */}}}}\n\
         {{{{- if .Values.crds.install }}}}\n\
         {}metadata:\n  annotations:\n    helm.sh/resource-policy: keep\n{}{{{{- end }}}}\n",
        quoted(before),
        quoted(after)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crd_is_kept_and_its_braces_are_escaped() {
        let crd = "kind: CustomResourceDefinition\nmetadata:\n  name: a.b\nspec: \"{{ x }}\"\n";
        let template = crd_template(crd).unwrap();
        let expected = "{{- if .Values.crds.install }}\nkind: CustomResourceDefinition\n\
            metadata:\n  annotations:\n    helm.sh/resource-policy: keep\n  name: a.b\n\
            spec: \"{{ \"{{\" }} x }}\"\n{{- end }}\n";
        assert!(template.ends_with(expected), "{template}");
        assert!(crd_template("kind: x\n").is_err());
    }

    #[test]
    fn only_text_between_the_marks_changes() {
        let text = format!("a\n{BEGIN}old\n{END}z\n");
        let new = between(&text, "new").unwrap();
        assert_eq!(new, format!("a\n{BEGIN}\nnew\n{END}z\n"));
        assert_eq!(between(&new, "new").unwrap(), new);
        assert!(between("a\n", "new").is_err());
    }
}
