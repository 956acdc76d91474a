//! `dfs metadata`: migrating and checking stores without a coordinator.

use std::path::Path;
use std::sync::Arc;

use clap::{Args, Subcommand};
use dfs_engines::OpenError;
use dfs_metadata::check::Report;
use dfs_metadata::engine::{Engine, EngineError};
use dfs_metadata::migrate::{Migrated, Progress};
use dfs_types::{ErrorCode, counted, with_causes};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use crate::error::{Error, Result, blocking};
use crate::output::Output;

/// Arguments of `dfs metadata`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dfs metadata migrate --from redb:///var/lib/dfs/metadata --to etcd://a:2379/dfs
  dfs metadata check redb:///var/lib/dfs/metadata")]
pub(crate) struct MetadataArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Migrate the metadata of a stopped cluster to another engine or location
    Migrate(MigrateArgs),
    /// Check a metadata store, without changing anything
    Check(CheckArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Stop every coordinator first. The target must be empty, or hold an unfinished migration of the same
source, which is then completed. At the end every key is compared. Start the coordinators on the
target only: it has the next incarnation, and a datanode that has seen it refuses the source from
then on. To go back, migrate back. Uploads in progress start over.

Examples:
  dfs metadata migrate --from redb:///var/lib/dfs/metadata --to etcd://a:2379,b:2379,c:2379/dfs
  dfs metadata migrate --from etcd://a:2379/dfs --to redb:///var/lib/dfs/metadata")]
struct MigrateArgs {
    /// Source store; only its lease epoch is changed.
    #[arg(long, value_name = "URL")]
    from: String,
    /// Target store.
    #[arg(long, value_name = "URL")]
    to: String,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Reads every record at one snapshot and compares related ones. A store in etcd can be checked while
coordinators run; a redb store can be open in only one process at a time. Exits with 0 when there
are no problems, 1 when there are some, 3 when there is no store.

Examples:
  dfs metadata check redb:///var/lib/dfs/metadata
  dfs metadata check etcd://a:2379/dfs --json | jq .problems")]
struct CheckArgs {
    /// Location of the metadata.
    #[arg(env = "DFS_METADATA", value_name = "URL")]
    url: String,
}

pub(crate) async fn run(args: MetadataArgs, out: Output) -> Result<()> {
    match args.action {
        Action::Migrate(args) => migrate(args, out).await,
        Action::Check(args) => check(args, out).await,
    }
}

async fn open(url: &str) -> Result<Arc<dyn Engine>> {
    dfs_engines::open(url).await.map_err(|error| failed_to_open(&error))
}

fn failed_to_open(error: &OpenError) -> Error {
    let shown = Error::new(error.code(), with_causes(error));
    match error {
        OpenError::Engine { source: EngineError::InUse(_), .. } => {
            shown.hint("a coordinator is using it: stop it first")
        }
        OpenError::Engine { source: EngineError::Damaged(_), .. } => {
            shown.hint("`dfs doctor --offline` says what to do")
        }
        _ => shown,
    }
}

/// Opens an existing store: a wrong path must not leave an empty one behind.
async fn open_existing(url: &str) -> Result<Arc<dyn Engine>> {
    if let Some(folder) = url.strip_prefix("redb://").map(|path| Path::new(path).to_owned()) {
        let shown = folder.display().to_string();
        if !blocking(move || folder.is_dir()).await? {
            let message = format_args!("there is no metadata store in {shown}");
            return Err(Error::new(ErrorCode::NotFound, message));
        }
    }
    open(url).await
}

async fn migrate(args: MigrateArgs, out: Output) -> Result<()> {
    let source = open_existing(&args.from).await?;
    let target = open(&args.to).await?;
    let bar = Keys::start(out);
    let observe = |progress| match progress {
        Progress::Migrated(keys) => bar.show("migrated", keys),
        Progress::Verified(keys) => bar.show("verified", keys),
    };
    let migrated = dfs_metadata::migrate::migrate(&*source, &*target, &observe).await;
    bar.finish();
    let Migrated { cluster, incarnation, keys, bytes, checksum, written, is_resumed } =
        migrated.map_err(|error| Error::new(error.code(), with_causes(&error)))?;
    if out.is_json {
        out.json(&json!({
            "cluster": cluster.to_string(),
            "incarnation": incarnation.0,
            "keys": keys,
            "bytes": bytes,
            "sha256": checksum.to_string(),
            "written": written,
            "resumed": is_resumed,
        }));
        return Ok(());
    }
    let resumed = if is_resumed { " (resumed an earlier migration)" } else { "" };
    out.line(format_args!("migrated and verified cluster {cluster}{resumed}"));
    out.line(format_args!("keys {keys}, bytes {bytes}, sha256 {checksum}"));
    out.line(format_args!(
        "the target has incarnation {incarnation}: start coordinators on it alone"
    ));
    Ok(())
}

async fn check(args: CheckArgs, out: Output) -> Result<()> {
    let url = &args.url;
    let opened = dfs_engines::open_unchanged(url).await.map_err(|error| failed_to_open(&error))?;
    let none =
        || Error::new(ErrorCode::NotFound, format_args!("there is no metadata store at {url}"));
    let engine = opened.ok_or_else(none)?;
    let bar = Keys::start(out);
    let report = dfs_metadata::check::check(&*engine, &|keys| bar.show("checked", keys)).await;
    bar.finish();
    let report = report.map_err(|error| {
        let shown = Error::new(error.start_code(), with_causes(&error));
        match error {
            dfs_metadata::Error::Engine(EngineError::Compacted(_)) => {
                shown.hint("the check took longer than the engine keeps old revisions; try again")
            }
            _ => shown,
        }
    })?;
    if out.is_json {
        out.json(&document(&report));
    } else {
        show(&report, out);
    }
    if report.is_clean() {
        return Ok(());
    }
    Err(Error::new(ErrorCode::Corrupt, counted(report.problem_count, "problem")).reported())
}

fn show(report: &Report, out: Output) {
    for problem in &report.problems {
        out.line(format_args!("{}: {}: {}", problem.kind.name(), problem.key, problem.what));
    }
    let shown = report.problems.len() as u64;
    if shown < report.problem_count {
        let more = counted(report.problem_count - shown, "problem");
        out.line(format_args!("and {more} that are not shown"));
    }
    for (count, what) in counts(report) {
        out.line(format_args!("{count:>12} {what}"));
    }
    match report.problem_count {
        0 => out.line("no problems"),
        count => out.line(counted(count, "problem")),
    }
}

fn counts(report: &Report) -> [(u64, &'static str); 13] {
    [
        (report.keys, "keys"),
        (report.bytes, "bytes"),
        (report.files, "files"),
        (report.directories, "directories"),
        (report.symlinks, "symlinks"),
        (report.names, "names"),
        (report.unlinked, "unlinked"),
        (report.uploads, "uploads"),
        (report.extents, "extents"),
        (report.chunks, "chunks"),
        (report.tombstones, "tombstones"),
        (report.nodes, "nodes"),
        (report.answers, "answers"),
    ]
}

fn document(report: &Report) -> serde_json::Value {
    let problem = |problem: &dfs_metadata::check::Problem| json!({ "kind": problem.kind.name(), "key": problem.key, "what": problem.what });
    let counts = counts(report).into_iter().map(|(count, what)| (what.to_owned(), count.into()));
    let mut document: serde_json::Map<_, serde_json::Value> = counts.collect();
    document.insert("revision".to_owned(), report.revision.0.into());
    document.insert("problem_count".to_owned(), report.problem_count.into());
    document.insert("problems".to_owned(), report.problems.iter().map(problem).collect());
    document.into()
}

/// A progress line of the number of keys, on a terminal only.
struct Keys(ProgressBar);

impl Keys {
    fn start(out: Output) -> Self {
        let target = if out.wants_progress() {
            ProgressDrawTarget::stderr_with_hz(5)
        } else {
            ProgressDrawTarget::hidden()
        };
        let style = ProgressStyle::with_template("{prefix} {human_pos} keys, {per_sec}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        Self(ProgressBar::with_draw_target(None, target).with_style(style))
    }

    fn show(&self, what: &'static str, keys: u64) {
        self.0.set_prefix(what);
        self.0.set_position(keys);
    }

    fn finish(&self) {
        self.0.finish_and_clear();
    }
}
