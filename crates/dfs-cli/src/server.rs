//! Code shared by the roles: settings, the join secret, listen addresses, readiness.

use std::fs;
use std::io::Read as _;
use std::net::IpAddr;
use std::path::Path;

use dfs_runtime::{Shutdown, load_settings, overlay, raise_file_limit};
use dfs_types::{ErrorCode, with_causes};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// Maximum length of a join secret in bytes.
const SECRET_LEN_MAX: u64 = 4_096;

/// Merges settings: flags over the settings file over the defaults.
pub(crate) fn settings<T>(config: Option<&Path>, flags: &impl Serialize) -> Result<T>
where
    T: Default + Serialize + DeserializeOwned,
{
    let below: T = load_settings(config).map_err(|error| Error::usage(with_causes(&error)))?;
    overlay(&below, flags).map_err(|error| Error::usage(with_causes(&error)))
}

/// Reads the join secret; surrounding white space is not part of it.
pub(crate) fn join_secret(file: &Path) -> Result<String> {
    let read = || {
        let mut text = String::new();
        fs::File::open(file)?.take(SECRET_LEN_MAX).read_to_string(&mut text)?;
        std::io::Result::Ok(text.trim().to_owned())
    };
    let secret = read().map_err(|error| Error::local("read the join secret in", file, &error))?;
    if secret.is_empty() {
        let file = file.display();
        return Err(Error::usage(format_args!("the join secret in {file} is empty"))
            .hint(format_args!("`openssl rand -hex 32 > {file}` creates one")));
    }
    Ok(secret)
}

/// Refuses plaintext connections from other machines unless explicitly allowed.
pub(crate) fn check_exposure(listen: &[&str], is_insecure: bool) -> Result<()> {
    let beyond = listen.iter().find(|address| !is_loopback(address));
    match beyond {
        Some(address) if !is_insecure => Err(Error::usage(format_args!(
            "{address} is reachable from other machines, and channels are not encrypted"
        ))
        .hint("listen on 127.0.0.1, or use --insecure in a trusted network")),
        _ => Ok(()),
    }
}

fn host(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

fn is_loopback(address: &str) -> bool {
    let host = host(address);
    address.is_empty()
        || host == "localhost"
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Returns true if the address is a wildcard: the server is reachable at every address of its
/// machine, so it is not one to advertise.
pub(crate) fn is_every_address(address: &str) -> bool {
    host(address).parse::<IpAddr>().is_ok_and(|address| address.is_unspecified())
}

/// Prepares the process, as the first step of every role.
pub(crate) fn prepare() -> Result<Shutdown> {
    if let Err(error) = raise_file_limit() {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
    Shutdown::on_signals().map_err(|error| {
        Error::new(ErrorCode::Internal, format_args!("cannot wait for signals: {error}"))
    })
}

/// Prints on stdout where a role listens, in one line that scripts can wait for.
pub(crate) fn say_ready(role: &str, grpc: &str, http: Option<String>) {
    use std::io::Write as _;
    let http = http.unwrap_or_else(|| "-".to_owned());
    let mut stdout = std::io::stdout().lock();
    drop(writeln!(stdout, "ready {role} grpc {grpc} http {http}"));
    drop(stdout.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_allowed_without_insecure() {
        for address in ["127.0.0.1:0", "localhost:7070", "[::1]:7070", "127.8.9.1:1", ""] {
            assert!(is_loopback(address), "{address}");
        }
        for address in ["0.0.0.0:7070", "[::]:7070", "10.0.0.1:1", "node-1:7080", ":7070"] {
            assert!(!is_loopback(address), "{address}");
            assert!(check_exposure(&["127.0.0.1:1", address], false).is_err());
            assert!(check_exposure(&[address], true).is_ok());
        }
        for address in ["0.0.0.0:7070", "[::]:7070"] {
            assert!(is_every_address(address), "{address}");
        }
        for address in ["127.0.0.1:0", "node-1:7080", "[::1]:1"] {
            assert!(!is_every_address(address), "{address}");
        }
    }

    #[test]
    fn white_space_around_a_secret_is_ignored() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        fs::write(&file, " word\n").unwrap();
        assert_eq!(join_secret(&file).unwrap(), "word");
        fs::write(&file, "\n").unwrap();
        assert_eq!(join_secret(&file).unwrap_err().code(), ErrorCode::InvalidArgument);
        fs::remove_file(&file).unwrap();
        assert_eq!(join_secret(&file).unwrap_err().code(), ErrorCode::NotFound);
    }
}
