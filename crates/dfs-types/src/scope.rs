//! Scopes: what a caller may access.

/// Levels of access. Each includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// Reading names, attributes and bytes, and the state of the cluster.
    Read,
    /// Changing names, attributes and bytes.
    Write,
    /// Changing the cluster, and everything that background work does.
    Admin,
}

impl Access {
    /// Returns the name of the level, for messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "Read",
            Self::Write => "Write",
            Self::Admin => "Admin",
        }
    }
}

/// The caller lacks access.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not allowed: the caller has no {} access", .needed.name())]
pub struct Denied {
    /// The access that the call needs.
    pub needed: Access,
}

/// The part of the cluster that a call may use. Every method that reads or changes metadata takes
/// one, so that a call without a caller does not compile.
///
/// A scope comes from a caller authenticated by the gate ([`Self::of_caller`]), or belongs to the
/// cluster itself ([`Self::internal`]). A test of `dfs-transport` lists the files that may use
/// either constructor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    access: Option<Access>,
}

impl Scope {
    /// Returns the scope of the cluster's own work, which has no caller.
    pub const fn internal() -> &'static Self {
        &Self { access: Some(Access::Admin) }
    }

    /// Returns the scope of an authenticated caller with this access to everything, or with none.
    /// Only for the gate.
    pub const fn of_caller(access: Option<Access>) -> Self {
        Self { access }
    }

    /// Refuses a call that needs more access than this scope has.
    pub fn require(&self, needed: Access) -> Result<(), Denied> {
        if self.access >= Some(needed) { Ok(()) } else { Err(Denied { needed }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_level_includes_those_before_it() {
        let levels = [Access::Read, Access::Write, Access::Admin];
        for granted in levels {
            for needed in levels {
                let allowed = Scope::of_caller(Some(granted)).require(needed);
                assert_eq!(allowed.is_ok(), needed <= granted, "{granted:?} for {needed:?}");
            }
        }
        for needed in levels {
            assert_eq!(Scope::of_caller(None).require(needed), Err(Denied { needed }));
            assert_eq!(Scope::internal().require(needed), Ok(()));
        }
    }
}
