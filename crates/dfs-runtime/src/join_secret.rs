//! The secret of a cluster, as a setting of its servers.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The secret that lets a datanode join a cluster. Never printed.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JoinSecret(String);

impl JoinSecret {
    /// Wraps a secret.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// Returns whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the secret itself, to be sent to a coordinator.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Compares in constant time with `offered`.
    pub fn matches(&self, offered: &str) -> bool {
        let (own, offered) = (self.0.as_bytes(), offered.as_bytes());
        // The length is not secret; the loop does not stop at the first difference.
        let difference = own.iter().zip(offered).fold(0, |all, (a, b)| all | (a ^ b));
        own.len() == offered.len() && !own.is_empty() && std::hint::black_box(difference) == 0
    }
}

impl fmt::Debug for JoinSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_empty() { "JoinSecret(not set)" } else { "JoinSecret(..)" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_secret_matches_and_an_empty_one_never() {
        let secret = JoinSecret::new("secret");
        assert!(secret.matches("secret"));
        for offered in ["", "secre", "secrets", "Secret"] {
            assert!(!secret.matches(offered), "{offered}");
        }
        assert!(!JoinSecret::default().matches(""));
        assert_eq!(format!("{secret:?}"), "JoinSecret(..)");
    }
}
