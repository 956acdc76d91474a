//! Logging to stderr: stdout is for data.

use std::io::{self, IsTerminal as _};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Human-readable.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Logging could not be set up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// Unknown format.
    #[error("{0:?} is not a log format: text and json are")]
    Format(String),
    /// Neither a level nor a filter.
    #[error(
        "{0:?} is not a log level: error, warn, info, debug, trace, or a filter such as \
         \"info,dfs_datanode=debug\""
    )]
    Level(String),
    /// Logging was already set up.
    #[error("logging is already set up")]
    Twice,
}

impl FromStr for LogFormat {
    type Err = LogError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(LogError::Format(text.to_owned())),
        }
    }
}

/// Starts logging to stderr, once per process. `level` is a level or a filter by module, like
/// `RUST_LOG` elsewhere. Each line shows its spans, and thereby the request id.
pub fn init_logging(level: &str, format: LogFormat) -> Result<(), LogError> {
    let subscriber = subscriber(level, format, io::stderr, io::stderr().is_terminal())?;
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError::Twice)
}

fn subscriber<W>(
    level: &str,
    format: LogFormat,
    writer: W,
    ansi: bool,
) -> Result<Box<dyn tracing::Subscriber + Send + Sync>, LogError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let wrong = || LogError::Level(level.to_owned());
    // An unknown level would be parsed as a module and silence everything else.
    let is_filter = level.contains(['=', ',']);
    if !is_filter && level != "off" && level.parse::<tracing::Level>().is_err() {
        return Err(wrong());
    }
    let filter = EnvFilter::builder().parse(level).map_err(|_| wrong())?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    Ok(match format {
        LogFormat::Text => Box::new(builder.with_ansi(ansi).finish()),
        LogFormat::Json => {
            Box::new(builder.json().flatten_event(true).with_current_span(false).finish())
        }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(level: &str, format: LogFormat) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = subscriber(level, format, move || writer.clone(), false).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            let _span = tracing::info_span!("request", id = "00ff").entered();
            tracing::info!(chunk = 7, "sealed");
            tracing::debug!("noise");
        });
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn text_lines_show_the_request() {
        let text = logged("info", LogFormat::Text);
        assert!(text.contains("request{id=\"00ff\"}") && text.contains("sealed chunk=7"), "{text}");
        assert!(!text.contains("noise"));
    }

    #[test]
    fn json_lines_show_the_request() {
        let text = logged("warn,dfs_runtime=debug", LogFormat::Json);
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["message"], "sealed");
        assert_eq!(lines[0]["chunk"], 7);
        assert_eq!(lines[0]["spans"][0]["id"], "00ff");
    }

    #[test]
    fn invalid_levels_are_refused() {
        for level in ["", "loud", "info,=", "dfs=loud"] {
            let error = subscriber(level, LogFormat::Text, io::sink, false).err();
            assert_eq!(error, Some(LogError::Level(level.to_owned())));
        }
        assert!("xml".parse::<LogFormat>().is_err());
        assert_eq!("json".parse(), Ok(LogFormat::Json));
    }
}
