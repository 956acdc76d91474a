//! The Debian packages that tests need.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::process::{output, run};

/// `diff` and `find` compare trees that went through dfs; `ps` looks at processes; `setpriv` (of
/// util-linux) ends the processes of a test with it. `mount` and the programs of XFS cut the power
/// of disks; `strace` sees which system calls are made. Tests start `etcd` themselves.
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

/// Installs what is missing where this runs as root on Debian, and says what to install where it
/// does not. Other systems are trusted to have the programs.
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
        // Of a system that is not up yet: services that come with a package are not started.
        .env("RUNLEVEL", "1"))
}

fn is_installed(package: &str) -> bool {
    output(Command::new("dpkg-query").args(["--show", "--showformat=${db:Status-Status}", package]))
        .is_ok_and(|status| status == b"installed")
}
