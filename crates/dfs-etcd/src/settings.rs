//! How to reach etcd.

use std::fmt;

/// How to reach etcd, and as whom.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The members, each `host:port`.
    pub members: Vec<String>,
    /// Without it connections are plain.
    pub tls: Option<Tls>,
    /// Without them calls carry no token.
    pub credentials: Option<Credentials>,
}

/// Whom to trust, and what to show. All of it PEM.
#[derive(Debug, Clone)]
pub struct Tls {
    /// Who must have signed the certificates of the members.
    pub authority: Vec<u8>,
    /// For members that ask who connects.
    pub identity: Option<Identity>,
}

/// A certificate and its private key, both PEM.
#[derive(Clone)]
pub struct Identity {
    /// The certificate, with those between it and its authority.
    pub certificate: Vec<u8>,
    /// The private key.
    pub key: Vec<u8>,
}

/// A user of etcd.
#[derive(Clone)]
pub struct Credentials {
    /// The name.
    pub user: String,
    /// The password.
    pub password: String,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}
