//! Settings of a client.

use std::fmt;

/// Members and credentials.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The members, each `host:port`.
    pub members: Vec<String>,
    /// TLS settings; plain connections without.
    pub tls: Option<Tls>,
    /// User and password; calls carry no token without.
    pub credentials: Option<Credentials>,
}

/// TLS settings, all PEM.
#[derive(Debug, Clone)]
pub struct Tls {
    /// Authority that must have signed the members' certificates.
    pub authority: Vec<u8>,
    /// Certificate of the client, for members that require one.
    pub identity: Option<Identity>,
}

/// A certificate and its private key, both PEM.
#[derive(Clone)]
pub struct Identity {
    /// The certificate, with intermediate ones.
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
