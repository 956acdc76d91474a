//! A metadata store without a coordinator: whether one could start on it, and if not, the next step.

use dfs_metadata::engine::EngineError;
use dfs_types::{ClusterId, with_causes};

use super::finding::{Code, Finding};

/// What was found when a store was opened without changing it.
pub(crate) enum StoreFacts {
    /// There is none at this place.
    Absent,
    /// It could not be opened.
    Closed(EngineError),
    /// It was opened, and this was found in it.
    Open(Result<Option<ClusterId>, dfs_metadata::Error>),
}

/// Returns what is wrong with a store; empty if a coordinator can start on it. `expected` is the cluster
/// that it should hold.
pub(crate) fn examine_store(
    url: &str,
    facts: &StoreFacts,
    expected: Option<ClusterId>,
) -> Vec<Finding> {
    let found = match facts {
        StoreFacts::Absent | StoreFacts::Open(Ok(None)) => Some(missing(url)),
        StoreFacts::Closed(error) => Some(engine(url, error)),
        StoreFacts::Open(Err(error)) => Some(metadata(url, error)),
        StoreFacts::Open(Ok(Some(cluster))) => {
            let other = expected.filter(|expected| expected != cluster);
            other.map(|expected| {
                let what = format!("the store at {url} holds cluster {cluster}, not {expected}");
                Finding::critical(Code::StoreOfOther, what)
                    .why("the coordinator is started with a wrong location, or volumes were mixed up")
                    .todo("give the coordinator the store of its own cluster; datanodes refuse this one")
            })
        }
    };
    // Nobody but a person repairs a store.
    found.into_iter().map(Finding::needs_person).collect()
}

fn missing(url: &str) -> Finding {
    Finding::critical(Code::StoreMissing, format!("there is no cluster in the store at {url}"))
        .why("a wrong location, a volume that is not mounted, or a cluster that was never created")
        .todo(
            "give the right location, or mount the volume; restore a backup if the store is gone. Only \
             for a new cluster: `dfs coordinator init`",
        )
}

fn damaged(url: &str, why: String) -> Finding {
    Finding::critical(Code::StoreDamaged, format!("the metadata store at {url} is damaged"))
        .why(why)
        .todo(
            "keep a copy of its files as they are, and start no coordinator on them; restore a backup \
             in their place, then `dfs fsck` and `dfs gc acknowledge`. Leave the disks of datanodes as \
             they are: file data is on them",
        )
}

fn newer(url: &str, why: String) -> Finding {
    Finding::critical(Code::StoreNewer, format!("a newer release wrote the store at {url}"))
        .why(why)
        .todo(
            "start the coordinators of the newer release; a finalized upgrade cannot be taken back",
        )
}

fn unavailable(url: &str, why: String) -> Finding {
    Finding::critical(Code::StoreUnavailable, format!("the store at {url} cannot be reached"))
        .why(why)
        .todo(
            "check the location, the permissions of this user, and the disk or etcd that holds it; \
             the kernel log shows errors of a disk",
        )
}

fn engine(url: &str, error: &EngineError) -> Finding {
    let why = error.to_string();
    match error {
        EngineError::InUse(_) => {
            Finding::critical(Code::StoreInUse, format!("the store at {url} is open in a process"))
                .why(why)
                .todo("it can be opened, then: `dfs doctor` asks the coordinator that uses it")
        }
        EngineError::Damaged(_) => damaged(url, why),
        EngineError::NewerFormat { .. } => newer(url, why),
        _ => unavailable(url, why),
    }
}

fn metadata(url: &str, error: &dfs_metadata::Error) -> Finding {
    use dfs_metadata::Error;
    let why = with_causes(error);
    match error {
        Error::Engine(error) => engine(url, error),
        Error::Damaged { .. } => damaged(url, why),
        Error::ReleaseTooOld { .. } | Error::NewerRecord { .. } => newer(url, why),
        Error::UnfinishedMigration(_) => Finding::critical(
            Code::StoreMissing,
            format!("the store at {url} is an unfinished copy"),
        )
        .why(why)
        .todo("finish it with `dfs metadata migrate`, or start the coordinator on its source"),
        _ => unavailable(url, why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_a_code_and_needs_a_person() {
        use dfs_metadata::Error;
        let closed = StoreFacts::Closed;
        let damaged = || "torn".to_owned();
        let (expected, other) = (ClusterId(1), ClusterId(2));
        for (facts, code) in [
            (StoreFacts::Absent, Code::StoreMissing),
            (StoreFacts::Open(Ok(None)), Code::StoreMissing),
            (StoreFacts::Open(Ok(Some(other))), Code::StoreOfOther),
            (StoreFacts::Open(Err(Error::UnfinishedMigration(other))), Code::StoreMissing),
            (
                StoreFacts::Open(Err(Error::Damaged { key: String::new(), what: "nothing" })),
                Code::StoreDamaged,
            ),
            (closed(EngineError::Damaged(damaged())), Code::StoreDamaged),
            (closed(EngineError::InUse(damaged())), Code::StoreInUse),
            (closed(EngineError::NewerFormat { found: 2, supported: 1 }), Code::StoreNewer),
            (closed(EngineError::Unavailable(damaged())), Code::StoreUnavailable),
        ] {
            let found = examine_store("redb:///m", &facts, Some(expected));
            assert_eq!((found[0].code, found[0].needs_person), (code, true));
            assert!(!found[0].todo.is_empty(), "{found:?}");
        }
        let open = StoreFacts::Open(Ok(Some(expected)));
        assert_eq!(examine_store("redb:///m", &open, Some(expected)), []);
        assert_eq!(examine_store("redb:///m", &open, None), []);
    }
}
