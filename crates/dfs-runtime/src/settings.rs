//! Settings: flag over `DFS_*` variable over YAML file over default.
//!
//! A role has one settings struct, with serde's `default` and `deny_unknown_fields`. The file is
//! parsed into it with [`load_settings`]; flags and variables (clap reads both) override it with
//! [`overlay`].

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Maximum length of a settings file in bytes.
const FILE_LEN_MAX: u64 = 1 << 20;

/// Loading the settings failed.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("cannot read the settings file {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The error.
        source: io::Error,
    },
    /// The file is not valid YAML, or contains invalid settings. Names key and position.
    #[error("{path}: {what}")]
    File {
        /// The file.
        path: PathBuf,
        /// The error, with line and column.
        what: String,
    },
    /// A flag or variable is not a valid setting.
    #[error("a flag or DFS_* variable does not fit: {0}")]
    Overlay(#[from] serde_json::Error),
}

/// Parses a YAML file into `T`. Absent settings have their default, as has everything without a
/// file. An unknown key is refused, with its position.
pub fn load_settings<T: Default + DeserializeOwned>(
    path: Option<&Path>,
) -> Result<T, SettingsError> {
    let Some(path) = path else { return Ok(T::default()) };
    let text =
        read(path).map_err(|source| SettingsError::Read { path: path.to_owned(), source })?;
    if text.lines().all(|line| matches!(line.trim_start().chars().next(), None | Some('#'))) {
        return Ok(T::default());
    }
    serde_saphyr::from_str(&text).map_err(|error| SettingsError::File {
        path: path.to_owned(),
        what: error.without_snippet().to_string(),
    })
}

fn read(path: &Path) -> io::Result<String> {
    if fs::metadata(path)?.len() > FILE_LEN_MAX {
        return Err(io::Error::other("the file is larger than 1 MiB"));
    }
    fs::read_to_string(path)
}

/// Overlays `above` on `below`. A field of `above` that is `None` keeps the one below; every other
/// field replaces the one of the same name. Maps are merged, lists replaced.
pub fn overlay<T>(below: &T, above: &impl Serialize) -> Result<T, SettingsError>
where
    T: Serialize + DeserializeOwned,
{
    let mut merged = serde_json::to_value(below)?;
    merge(&mut merged, serde_json::to_value(above)?);
    Ok(serde_json::from_value(merged)?)
}

fn merge(below: &mut Value, above: Value) {
    match (below, above) {
        (_, Value::Null) => {}
        (Value::Object(below), Value::Object(above)) => {
            for (key, value) in above {
                merge(below.entry(key).or_insert(Value::Null), value);
            }
        }
        (below, above) => *below = above,
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Settings {
        listen: String,
        copies: u8,
        limits: Limits,
        coordinators: Vec<String>,
    }

    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Limits {
        sessions: u32,
        streams: u32,
    }

    impl Default for Settings {
        fn default() -> Self {
            Self {
                listen: "127.0.0.1:7070".to_owned(),
                copies: 3,
                limits: Limits { sessions: 10, streams: 20 },
                coordinators: Vec::new(),
            }
        }
    }

    #[derive(Default, Serialize)]
    struct Flags {
        copies: Option<u8>,
        limits: FlagLimits,
        coordinators: Option<Vec<String>>,
    }

    #[derive(Default, Serialize)]
    struct FlagLimits {
        streams: Option<u32>,
    }

    fn load(text: &str) -> Result<Settings, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dfs.yaml");
        fs::write(&path, text).unwrap();
        load_settings(Some(&path))
            .map_err(|error| error.to_string().replace(&path.display().to_string(), "FILE"))
    }

    #[test]
    fn file_overrides_defaults() {
        let settings = load("copies: 2\nlimits:\n  sessions: 7\n").unwrap();
        assert_eq!(settings.copies, 2);
        assert_eq!(settings.listen, "127.0.0.1:7070");
        assert_eq!(settings.limits.sessions, 7);
    }

    #[test]
    fn missing_or_empty_file_leaves_defaults() {
        assert_eq!(load_settings::<Settings>(None).unwrap(), Settings::default());
        assert_eq!(load("").unwrap(), Settings::default());
        assert_eq!(load("# nothing\n\n").unwrap(), Settings::default());
    }

    #[test]
    fn flags_override_the_file() {
        let below = load("copies: 2\ncoordinators: [a, b]\nlimits: {sessions: 7}\n").unwrap();
        assert_eq!(overlay(&below, &Flags::default()).unwrap(), below);
        let flags = Flags {
            copies: Some(1),
            limits: FlagLimits { streams: Some(5) },
            coordinators: Some(vec!["c".to_owned()]),
        };
        let settings = overlay(&below, &flags).unwrap();
        assert_eq!((settings.copies, settings.limits.sessions, settings.limits.streams), (1, 7, 5));
        assert_eq!(settings.coordinators, ["c"]);
    }

    #[test]
    fn errors_name_key_and_position() {
        let error = load("copies: 2\ncopis: 3\n").unwrap_err();
        assert!(error.starts_with("FILE: ") && error.contains("copis"), "{error}");
        assert!(error.contains("line 2"), "{error}");
        let error = load("limits:\n  session: 3\n").unwrap_err();
        assert!(error.contains("session") && error.contains("line 2"), "{error}");
        let error = load("copies: many\n").unwrap_err();
        assert!(error.contains("line 1"), "{error}");
        assert!(load("copies: 1\ncopies: 2\n").is_err());
        let error = load_settings::<Settings>(Some(Path::new("/nowhere.yaml"))).unwrap_err();
        assert_eq!(error.to_string(), "cannot read the settings file /nowhere.yaml");
    }

    #[test]
    fn unknown_flag_is_refused() {
        let error = overlay(&Settings::default(), &serde_json::json!({"copis": 1})).unwrap_err();
        assert!(error.to_string().contains("copis"), "{error}");
    }
}
