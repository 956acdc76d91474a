//! The namespace equals that of the model: a directory lists what certainly exists, nothing that
//! certainly does not, and nothing twice.

use std::collections::BTreeSet;

use crate::sim::model::Model;

/// Checks the paths that a complete listing of a directory returned.
pub(in crate::sim) fn check(
    model: &Model,
    directory: &str,
    listed: &[String],
) -> Result<(), String> {
    let found: BTreeSet<&String> = listed.iter().collect();
    if found.len() < listed.len() {
        return Err(format!("{directory} lists a name twice: {listed:?}"));
    }
    if let Some(path) = listed.iter().find(|path| model.certain(path) == Some(None)) {
        return Err(format!("{directory} lists {path}, which does not exist"));
    }
    let prefix = format!("{directory}/");
    let inside = model.paths().into_iter().filter(|path| path.starts_with(&prefix));
    for path in inside {
        if matches!(model.certain(&path), Some(Some(_))) && !found.contains(&path) {
            return Err(format!("{directory} does not list {path}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_superfluous_and_repeated_names_are_found() {
        let mut model = Model::default();
        model.begin(&[("/d/a", Some(1)), ("/d/b", Some(2))]);
        model.done(&[("/d/a", Some(1))]);
        let check = |listed: &[&str]| {
            let listed: Vec<_> = listed.iter().map(|path| (*path).to_owned()).collect();
            super::check(&model, "/d", &listed)
        };
        assert!(check(&["/d/a"]).is_ok());
        assert!(check(&["/d/a", "/d/b"]).is_ok(), "both outcomes of an open call are possible");
        assert!(check(&["/d/b"]).is_err());
        assert!(check(&["/d/a", "/d/c"]).is_err());
        assert!(check(&["/d/a", "/d/a"]).is_err());
    }
}
