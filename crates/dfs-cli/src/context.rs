//! State shared by all commands that talk to a cluster.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::pin::Pin;
use std::sync::Arc;

use dfs_client::{Client, ClientBuilder, GetOptions};
use dfs_types::{Attributes, Clock as _, DfsPath, FileTime, SystemClock};

use crate::error::{Error, Result, blocking};
use crate::global::Global;
use crate::output::Output;

/// Access to the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ClusterTarget {
    /// At the given coordinators.
    Coordinators,
    /// Through its Kubernetes API server.
    #[cfg(feature = "kube")]
    Kube(dfs_kube::Target),
}

/// A running command.
pub(crate) type CommandFuture = Pin<Box<dyn Future<Output = Result<()>>>>;

/// Runs a command line, starting with the program name, within this process.
pub(crate) type RunCommand = fn(Vec<OsString>, Output) -> CommandFuture;

/// The client, and the output.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) out: Output,
    /// One for each coordinator, if several were named.
    each: Vec<(String, Client)>,
}

impl Context {
    /// Prepares a client of the given coordinators; connects on the first call.
    pub(crate) fn new(global: &Global, out: Output) -> Result<Self> {
        let named = &global.coordinator;
        let client = Self::client(global).coordinators(named.iter().cloned()).connect_lazy()?;
        let each = named.iter().filter(|_| named.len() > 1).map(|address| {
            let client = Self::client(global).coordinator(address.clone()).connect_lazy()?;
            Ok::<_, Error>((address.clone(), client))
        });
        Ok(Self { client, out, each: each.collect::<Result<_>>()? })
    }

    /// Finds a cluster in Kubernetes and prepares a client of it.
    #[cfg(feature = "kube")]
    pub(crate) async fn in_kubernetes(
        global: &Global,
        target: dfs_kube::Target,
        out: Output,
    ) -> Result<Self> {
        let client = global.kube.connect(target, Self::client(global)).await?;
        Ok(Self { client: client.connect_lazy()?, out, each: Vec::new() })
    }

    /// Returns a client of each coordinator that was named; of any if not several were.
    pub(crate) fn coordinators(&self) -> Vec<(String, Client)> {
        if self.each.is_empty() {
            return vec![(String::new(), self.client.clone())];
        }
        self.each.clone()
    }

    fn client(global: &Global) -> ClientBuilder {
        Client::builder()
            .deadline(global.timeout)
            .location(rustix::system::uname().nodename().to_string_lossy(), "")
    }

    /// Writes bytes of a file to stdout; up to its end without a length.
    pub(crate) async fn write_to_stdout(
        &self,
        path: &DfsPath,
        offset: u64,
        length: Option<u64>,
    ) -> Result<()> {
        let failed = |error: &io::Error| Error::local("write to", "stdout".as_ref(), error);
        // The runtime's stdout would copy every byte again.
        let stdout = io::stdout().as_fd().try_clone_to_owned().map_err(|e| failed(&e))?;
        let stdout = Arc::new(File::from(stdout));
        let options = GetOptions::default().offset(offset).length(length);
        let mut reader = self.client.get(path, options).await?;
        while let Some(bytes) = reader.next().await? {
            let stdout = stdout.clone();
            match blocking(move || (&*stdout).write_all(&bytes)).await? {
                Ok(()) => {}
                // The reader has closed the pipe.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
                Err(error) => return Err(failed(&error)),
            }
        }
        Ok(())
    }

    /// Returns the attributes of entries created by the user.
    pub(crate) fn own_attributes() -> Attributes {
        Attributes {
            mode: 0o644,
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            mtime: FileTime::from(SystemClock.now()),
        }
    }

    /// Returns a collector of the failures of several operations.
    pub(crate) fn failures(&self) -> Failures {
        Failures { out: self.out, first: None, count: 0 }
    }
}

/// Failures of several operations, all of which are tried: each failure is reported at once, and
/// the command exits with the code of the first.
#[derive(Debug)]
pub(crate) struct Failures {
    out: Output,
    first: Option<Error>,
    count: u64,
}

impl Failures {
    /// Records the result of one operation.
    pub(crate) fn note(&mut self, result: Result<()>) {
        let Err(error) = result else { return };
        self.count += 1;
        self.out.error(&error);
        self.first.get_or_insert_with(|| error.reported());
    }

    /// Returns the number of failures.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Takes the first failure, if any.
    pub(crate) fn take(&mut self) -> Result<()> {
        self.first.take().map_or(Ok(()), Err)
    }

    /// Returns the first failure, if any.
    pub(crate) fn into_result(self) -> Result<()> {
        self.first.map_or(Ok(()), Err)
    }
}
