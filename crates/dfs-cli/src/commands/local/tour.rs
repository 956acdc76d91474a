//! The tour: a complete file system, shown on real files, with every byte checked.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dfs_client::Client;
use dfs_types::{ByteSize, ErrorCode, NodeState, counted};
use tokio::time::Instant;

use super::cluster::{Local, Plan};
use super::files::{Summary, generate, largest};
use crate::context::RunCommand;
use crate::error::{Error, Result, blocking};
use crate::output::Output;

/// Time limit for anything that the tour waits for.
const WAIT: Duration = Duration::from_mins(1);
/// Polling interval.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Runs the tour with the files at `path`, or with generated files.
pub(super) async fn run(path: Option<PathBuf>, command: RunCommand, out: Output) -> Result<()> {
    let folder = tempfile::Builder::new().prefix("dfs-demo-").tempdir();
    let folder = folder.map_err(|e| Error::local("use", &std::env::temp_dir(), &e))?;
    let source = if let Some(path) = path {
        path
    } else {
        let files = folder.path().join("files");
        let made = files.clone();
        let generated = blocking(move || generate(&made)).await?;
        generated.map_err(|error| Error::local("write", &files, &error))?;
        files
    };
    let original = summary(&source).await?;
    let plan = Plan {
        folder: folder.path().join("cluster"),
        coordinators: 1,
        metadata: None,
        datanodes: Some(3),
        replication_factor: Some(3),
        listen: "127.0.0.1:0".to_owned(),
        http_listen: "127.0.0.1:0".to_owned(),
        is_hasty: true,
    };
    out.say("1. a coordinator and three datanodes, on this machine");
    let local = Local::start(plan).await?;
    let coordinator = format!("http://{}", local.address());
    let client = Client::builder().coordinator(&coordinator).connect_lazy()?;
    let back = folder.path().join("back");
    let mut tour = Tour { local, client, coordinator, command, out, source, original, back };
    let result = tour.go().await;
    let stopped = tour.local.stop().await;
    result.and(stopped)?;
    out.say(
        "\nDone: every byte came back intact. `dfs local --data-dir DIR` runs a permanent one.",
    );
    Ok(())
}

struct Tour {
    local: Local,
    client: Client,
    coordinator: String,
    command: RunCommand,
    out: Output,
    source: PathBuf,
    original: Summary,
    /// Directory that files are read back to.
    back: PathBuf,
}

impl Tour {
    async fn go(&mut self) -> Result<()> {
        self.wait_for_nodes(3).await?;
        self.dfs(["status"]).await?;
        let entries = counted(self.original.len() as u64, "entry");
        let bytes = ByteSize(self.original.bytes);
        self.title(format_args!("2. store {entries}, {bytes}, three fsynced replicas each"));
        let source = self.source.clone().into_os_string();
        self.dfs(["put".into(), "-r".into(), source, "/tour".into()]).await?;
        self.dfs(["ls", "-l", "/tour"]).await?;
        let example = self.example().await?;

        self.title("3. where is the largest file stored?");
        self.explain(example.as_deref(), false).await?;

        self.title("4. one of the three datanodes crashes; everything is still readable");
        self.local.kill_datanode(0);
        self.compare("/tour").await?;

        self.title(
            "5. it stays down, and a fourth datanode joins: lost replicas are re-replicated",
        );
        self.local.add_datanode().await?;
        self.wait_for_repair().await?;
        self.explain(example.as_deref(), true).await?;
        self.dfs(["status"]).await?;

        self.title("6. the first datanode comes back");
        self.local.restart_datanode(0).await?;
        self.wait_for_nodes(4).await?;
        self.compare("/tour").await?;

        self.title("7. rename, equally fast for a large tree");
        self.dfs(["mv", "/tour", "/renamed"]).await?;
        self.compare("/renamed").await?;

        self.title("8. delete, and undelete");
        self.dfs(["rm", "-r", "/renamed"]).await?;
        self.dfs(["ls", "/"]).await?;
        self.dfs(["undelete", "/renamed"]).await?;
        self.compare("/renamed").await?;
        self.dfs(["rm", "-r", "--now", "/renamed"]).await
    }

    fn title(&self, text: impl std::fmt::Display) {
        self.out.say(format_args!("\n{text}"));
    }

    /// Runs a command as typed by the user.
    async fn dfs<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Result<()> {
        let words: Vec<OsString> = words.into_iter().map(|word| word.as_ref().to_owned()).collect();
        let shown: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
        self.out.say(format_args!("   $ dfs {}", shown.join(" ")));
        let start = ["dfs", "--coordinator", &self.coordinator].map(OsString::from);
        (self.command)(start.into_iter().chain(words).collect(), self.out).await
    }

    /// Gets everything and compares each file, directory and symlink with the original.
    async fn compare(&self, path: &str) -> Result<()> {
        let back = self.back.clone().into_os_string();
        self.dfs(["get".into(), "-r".into(), path.into(), back]).await?;
        let found = summary(&self.back).await?;
        let back = self.back.clone();
        blocking(move || std::fs::remove_dir_all(&back).or_else(|_| std::fs::remove_file(&back)))
            .await?
            .map_err(|error| Error::local("remove", &self.back, &error))?;
        match self.original.difference(&found) {
            None => {
                self.out.say(format_args!(
                    "   {}, {}: all identical, by sha256",
                    counted(found.len() as u64, "entry"),
                    ByteSize(found.bytes)
                ));
                Ok(())
            }
            Some(path) => Err(Error::new(
                ErrorCode::Corrupt,
                format_args!("{} came back different: this is a bug in dfs", path.display()),
            )),
        }
    }

    async fn explain(&self, example: Option<&OsStr>, verifies: bool) -> Result<()> {
        let Some(example) = example else {
            self.out.say("   no files were stored");
            return Ok(());
        };
        let words = [Some(OsStr::new("explain")), verifies.then_some(OsStr::new("--verify"))];
        self.dfs(words.into_iter().flatten().chain([example])).await
    }

    /// Returns the path in dfs of the largest file, if there is one.
    async fn example(&self) -> Result<Option<OsString>> {
        let source = self.source.clone();
        let largest = blocking(move || largest(&source)).await?;
        let largest = largest.map_err(|error| Error::local("read", &self.source, &error))?;
        Ok(largest.map(|path| {
            let mut bytes = Path::new("/tour").join(path).into_os_string().into_vec();
            // A single file has nothing below it.
            if bytes.ends_with(b"/") {
                bytes.pop();
            }
            OsString::from_vec(bytes)
        }))
    }

    async fn wait_for_nodes(&self, count: usize) -> Result<()> {
        self.wait_for("the datanodes", |status| {
            let active = |node: &&dfs_client::NodeStatus| node.state == NodeState::Active;
            status.nodes.iter().filter(active).count() >= count
        })
        .await
    }

    async fn wait_for_repair(&self) -> Result<()> {
        let started = Instant::now();
        let crashed = self.local.node_id(0);
        self.wait_for("the repair", |status| {
            let is_lost = |node: &dfs_client::NodeStatus| {
                Some(node.id) == crashed && node.state == NodeState::Lost
            };
            let is_whole = status
                .replication
                .as_ref()
                .is_some_and(|counts| counts.under_replicated == 0 && counts.missing == 0);
            status.nodes.iter().any(is_lost) && is_whole
        })
        .await?;
        let seconds = started.elapsed().as_secs_f64();
        self.out.say(format_args!("   everything has three replicas again after {seconds:.1} s"));
        Ok(())
    }

    async fn wait_for(
        &self,
        what: &str,
        is_done: impl Fn(&dfs_client::ClusterStatus) -> bool,
    ) -> Result<()> {
        let deadline = Instant::now() + WAIT;
        loop {
            let status = self.client.admin().status().await?;
            if is_done(&status) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let message = format!("{what} took more than {WAIT:?}: {status:?}");
                return Err(Error::new(ErrorCode::Unavailable, message));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

async fn summary(top: &Path) -> Result<Summary> {
    let read = top.to_owned();
    let summary = blocking(move || Summary::of(&read)).await?;
    summary.map_err(|error| Error::local("read", top, &error))
}
