//! Exit codes of the `dfs` command.

use dfs_types::ErrorCode;

/// Exit code of `dfs doctor` if something does not get well without a person.
pub(crate) const PERSON_NEEDED: u8 = 7;

/// Returns the exit code of a command that failed with `code`. Scripts depend on it: 1 a failure,
/// 2 a mistake in the command line, 3 not found, 4 in conflict with what exists, 5 try again,
/// 6 not permitted.
pub(crate) fn exit_code(code: ErrorCode) -> u8 {
    use ErrorCode as E;
    match code {
        E::Stale
        | E::NoSpace
        | E::QuotaExceeded
        | E::ChecksumMismatch
        | E::Corrupt
        | E::WrongCluster
        | E::UnsupportedVersion
        | E::Unimplemented
        | E::Internal => 1,
        E::InvalidArgument | E::NameTooLong => 2,
        E::NotFound => 3,
        E::AlreadyExists
        | E::NotEmpty
        | E::NotADirectory
        | E::IsADirectory
        | E::WouldCycle
        | E::CrossVolume => 4,
        E::Conflict | E::Busy | E::NotEnoughNodes | E::Unavailable | E::OutcomeUnknown => 5,
        E::Unauthenticated | E::PermissionDenied | E::ReadOnly => 6,
    }
}

/// Returns the exit code of a command ended by a signal, as shells report it.
pub(crate) fn exit_code_of_signal(signal: u8) -> u8 {
    128 + signal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retryable_codes_exit_with_try_again() {
        for code in ErrorCode::ALL {
            let may = code.is_retryable() || code.is_outcome_unknown();
            assert_eq!(may, exit_code(*code) == 5, "{code}");
            assert_ne!(exit_code(*code), PERSON_NEEDED, "{code}");
        }
    }

    #[test]
    fn page_of_faults_has_a_row_for_each_code_with_its_exit_code_and_no_other() {
        let page = include_str!("../../../docs/faults.md");
        let (_, section) = page.split_once("\n## Refusals\n").unwrap();
        let section = section.split("\n## ").next().unwrap();
        let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
        let rows = rows.map(|(code, rest)| (code, rest.split(' ').next().unwrap().to_owned()));
        let codes = ErrorCode::ALL.iter().map(|code| (code.name(), exit_code(*code).to_string()));
        assert_eq!(rows.collect::<Vec<_>>(), codes.collect::<Vec<_>>());
    }
}
