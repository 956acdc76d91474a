//! What every command that talks to a cluster has at hand.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use dfs_client::{Client, ClientBuilder, GetOptions};
use dfs_types::{Attributes, Clock as _, DfsPath, FileTime, SystemClock};

use crate::error::{Error, Result, blocking};
use crate::global::Global;
use crate::output::Output;

/// How the cluster is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ClusterTarget {
    /// At the coordinators that are named.
    Coordinators,
    /// Through its Kubernetes.
    #[cfg(feature = "kube")]
    Kube(dfs_kube::Target),
}

/// A command under way.
pub(crate) type CommandFuture = Pin<Box<dyn Future<Output = Result<()>>>>;

/// Runs a command line, the name of the program first, within this process.
pub(crate) type RunCommand = fn(Vec<OsString>, Output) -> CommandFuture;

/// A client, and where results go.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) out: Output,
}

impl Context {
    /// Makes ready to talk to the coordinators that are named; nothing is dialled yet.
    pub(crate) fn new(global: &Global, out: Output) -> Result<Self> {
        let client = Self::client(global).coordinators(global.coordinator.iter().cloned());
        Ok(Self { client: client.connect_lazy()?, out })
    }

    /// Makes ready to talk to a cluster in a Kubernetes, which is looked for.
    #[cfg(feature = "kube")]
    pub(crate) async fn in_kubernetes(
        global: &Global,
        target: dfs_kube::Target,
        out: Output,
    ) -> Result<Self> {
        let client = global.kube.connect(target, Self::client(global)).await?;
        Ok(Self { client: client.connect_lazy()?, out })
    }

    fn client(global: &Global) -> ClientBuilder {
        Client::builder()
            .deadline(Duration::from_secs(global.timeout))
            .location(rustix::system::uname().nodename().to_string_lossy(), "")
    }

    /// Writes bytes of a file to stdout, to its end without a length.
    pub(crate) async fn write_to_stdout(
        &self,
        path: &DfsPath,
        offset: u64,
        length: Option<u64>,
    ) -> Result<()> {
        let failed = |error: &io::Error| Error::local("write to", "stdout".as_ref(), error);
        // The runtime's stdout would copy every byte once more.
        let stdout = io::stdout().as_fd().try_clone_to_owned().map_err(|e| failed(&e))?;
        let stdout = Arc::new(File::from(stdout));
        let options = GetOptions::default().offset(offset).length(length);
        let mut reader = self.client.get(path, options).await?;
        while let Some(bytes) = reader.next().await? {
            let stdout = stdout.clone();
            match blocking(move || (&*stdout).write_all(&bytes)).await? {
                Ok(()) => {}
                // Whoever reads has seen enough.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
                Err(error) => return Err(failed(&error)),
            }
        }
        Ok(())
    }

    /// Attributes of something the user makes by hand.
    pub(crate) fn own_attributes() -> Attributes {
        Attributes {
            mode: 0o644,
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            mtime: FileTime::from(SystemClock.now()),
        }
    }

    /// Collects what goes wrong with each of several things.
    pub(crate) fn failures(&self) -> Failures {
        Failures { out: self.out, first: None, count: 0 }
    }
}

/// Several things are tried even when one of them fails: each failure is told at once, and the
/// command ends with the code of the first.
#[derive(Debug)]
pub(crate) struct Failures {
    out: Output,
    first: Option<Error>,
    count: u64,
}

impl Failures {
    /// Takes the result of one of them.
    pub(crate) fn note(&mut self, result: Result<()>) {
        let Err(error) = result else { return };
        self.count += 1;
        self.out.error(&error);
        self.first.get_or_insert_with(|| error.reported());
    }

    /// How many failed.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Takes the first failure out, if any.
    pub(crate) fn take(&mut self) -> Result<()> {
        self.first.take().map_or(Ok(()), Err)
    }

    /// The first failure, if any.
    pub(crate) fn into_result(self) -> Result<()> {
        self.first.map_or(Ok(()), Err)
    }
}
