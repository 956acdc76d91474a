//! Code shared by the binaries that no domain crate needs: settings from files, logging, metrics,
//! the HTTP status server (`/metrics`, `/healthz`, `/readyz`), signals and clean shutdown, process
//! limits. Independent of files, chunks and gRPC.
//!
//! A role starts with [`load_settings`], [`init_logging`] and [`Shutdown::on_signals`], then runs
//! its service and a [`StatusServer`] concurrently; the same [`Shutdown`] ends both.

mod join_secret;
mod log_capture;
mod logging;
mod metrics;
mod open_files;
mod settings;
mod shutdown;
mod status_server;

pub use join_secret::JoinSecret;
pub use log_capture::LogCapture;
pub use logging::{LogError, LogFormat, init_logging};
pub use metrics::{
    Counter, Counters, Gauge, Gauges, Histogram, Histograms, Labels, Metrics, Series,
};
pub use open_files::raise_file_limit;
pub use settings::{SettingsError, load_settings, overlay};
pub use shutdown::{Shutdown, Trigger, within};
pub use status_server::{Readiness, StatusServer};
