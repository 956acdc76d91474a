//! Debian packages required by the tests.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::process::{output, run};

/// `diff` and `find` compare trees that went through dfs; `ps` lists processes; `setpriv` (from
/// util-linux) makes the processes of a test end with the test. `mount` and the XFS programs
/// simulate power cuts; `strace` shows the system calls. Tests start `etcd` themselves.
const PACKAGES: [&str; 8] = [
    "diffutils",
    "etcd-server",
    "findutils",
    "mount",
    "procps",
    "strace",
    "util-linux",
    "xfsprogs",
];

/// Installs missing packages if run as root on Debian, otherwise reports what to install. Other
/// systems are assumed to have the programs.
pub(super) fn check(_root: &Path) -> Result<()> {
    if output(Command::new("dpkg-query").arg("--version")).is_err() {
        return Ok(());
    }
    let missing: Vec<&str> =
        PACKAGES.into_iter().filter(|package| !is_installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if output(Command::new("id").arg("-u"))?.trim_ascii() != b"0" {
        bail!("tests need more programs: apt-get install {}", missing.join(" "));
    }
    run(Command::new("apt-get").args(["update", "--quiet"]))?;
    run(Command::new("apt-get")
        .args(["install", "--quiet", "--yes", "--no-install-recommends"])
        .args(missing)
        .env("DEBIAN_FRONTEND", "noninteractive")
        // Like a system that is not up yet: services of installed packages are not started.
        .env("RUNLEVEL", "1"))
}

fn is_installed(package: &str) -> bool {
    output(Command::new("dpkg-query").args(["--show", "--showformat=${db:Status-Status}", package]))
        .is_ok_and(|status| status == b"installed")
}
