//! The blocking side: one writer on a redb database, and the views it publishes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dfs_metadata::change_log::ChangeLog;
use dfs_metadata::engine::{Change, Commit, Effects, EngineError, Outcome};
use dfs_types::Revision;
use redb::{Builder, Database, ReadableDatabase, TableError, WriteTransaction};

use super::fault::{Fault, damaged};
use super::file::SharedBackend;
use super::records::{Changes, REVISION_KEY, STATE, View, encode};

const FORMAT_KEY: &str = "format";
/// Format that this release writes, and the newest it reads.
const FORMAT: u32 = 1;

/// State shared with the readers.
pub(super) struct Published {
    /// View of the last commit; `None` from a failure until the store is reopened.
    view: Mutex<Option<Arc<View>>>,
    changes: ChangeLog,
}

impl Published {
    pub(super) fn view(&self) -> Option<Arc<View>> {
        self.lock().clone()
    }

    pub(super) fn changes(&self) -> &ChangeLog {
        &self.changes
    }

    /// Reads from a view. A failure of the store withdraws the view, so that the next snapshot
    /// reopens the store.
    pub(super) fn read<T>(
        &self,
        view: &Arc<View>,
        work: impl FnOnce(&View) -> Result<T, Fault>,
    ) -> Result<T, EngineError> {
        let result = guarded(|| work(view));
        if matches!(result, Err(Fault::Store(_) | Fault::Panicked)) {
            let mut current = self.lock();
            if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, view)) {
                *current = None;
            }
        }
        Ok(result?)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<View>>> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Catches panics of redb, which some damage causes.
fn guarded<T>(work: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(Fault::Panicked))
}

/// The writer of a store.
pub(super) struct Store {
    backend: SharedBackend,
    cache_bytes: usize,
    /// `None` from a failure until it is reopened.
    database: Option<Database>,
    revision: Revision,
    published: Arc<Published>,
}

/// A batch in the tables, and its outcomes once it is durable.
struct Applied {
    outcomes: Vec<Outcome>,
    changes: Vec<Change>,
    revision: Revision,
}

impl Drop for Store {
    fn drop(&mut self) {
        self.close();
    }
}

impl Store {
    /// Opens the store in `backend`, or creates one when it is empty.
    pub(super) fn open(backend: SharedBackend, cache_bytes: usize) -> Result<Self, EngineError> {
        let (database, view) = guarded(|| open(&backend, cache_bytes))?;
        let revision = view.revision();
        let changes = ChangeLog::new(revision);
        let published = Arc::new(Published { view: Mutex::new(Some(Arc::new(view))), changes });
        Ok(Self { backend, cache_bytes, database: Some(database), revision, published })
    }

    pub(super) fn published(&self) -> Arc<Published> {
        self.published.clone()
    }

    /// Returns the view of the last commit; reopens a failed store.
    pub(super) fn view(&mut self) -> Result<Arc<View>, EngineError> {
        if let (Some(_), Some(view)) = (&self.database, self.published.view()) {
            return Ok(view);
        }
        let before = self.revision;
        let view = self.reopen()?;
        if view.revision() > before {
            // A commit of unknown outcome took effect without being reported to watches.
            self.published.changes.restart(view.revision());
        }
        Ok(view)
    }

    fn reopen(&mut self) -> Result<Arc<View>, EngineError> {
        self.close();
        let (database, view) = guarded(|| open(&self.backend, self.cache_bytes))?;
        if view.revision() < self.revision {
            let (found, last) = (view.revision(), self.revision);
            return Err(EngineError::Damaged(format!(
                "it fell back to revision {found}, although {last} was durable"
            )));
        }
        let view = Arc::new(view);
        self.revision = view.revision();
        self.database = Some(database);
        *self.published.lock() = Some(view.clone());
        Ok(view)
    }

    fn close(&mut self) {
        *self.published.lock() = None;
        // Closing may write, and panic on damage like any other call.
        let database = self.database.take();
        let _ = guarded(|| {
            drop(database);
            Ok(())
        });
    }

    pub(super) fn commit_batch(&mut self, commits: &[Commit]) -> Result<Vec<Outcome>, EngineError> {
        self.view()?;
        let Some(database) = &self.database else {
            return Err(EngineError::Unavailable("the store is closed".to_owned()));
        };
        let before = self.revision;
        let mut applied = None;
        let result = guarded(|| {
            let mut transaction = database.begin_write()?;
            transaction.set_quick_repair(true);
            let batch = apply(&transaction, commits, before)?;
            if batch.revision == before {
                transaction.abort()?;
                applied = Some(batch);
                return Ok(None);
            }
            applied = Some(batch);
            transaction.commit()?;
            Ok(Some(View::new(database)?))
        });
        match result {
            Ok(view) => {
                if let Some(view) = view {
                    *self.published.lock() = Some(Arc::new(view));
                }
            }
            Err(fault @ Fault::Record(_)) => return Err(fault.into()),
            Err(fault) => self.settle(fault.into(), applied.as_ref())?,
        }
        let Some(batch) = applied else { return Ok(Vec::new()) };
        self.revision = batch.revision;
        self.published.changes.record(batch.changes);
        Ok(batch.outcomes)
    }

    /// Determines the outcome of a failed batch: `Ok` when it is durable after all.
    fn settle(&mut self, error: EngineError, batch: Option<&Applied>) -> Result<(), EngineError> {
        tracing::warn!(%error, "the metadata store failed; reopening it");
        let reopened = self.reopen();
        let Some(batch) = batch else { return Err(error) };
        match reopened {
            Ok(view) if view.revision() >= batch.revision => Ok(()),
            Ok(_) => Err(error),
            Err(reopening) => Err(EngineError::OutcomeUnknown(format!(
                "{error}; then the store could not be reopened: {reopening}"
            ))),
        }
    }
}

fn open(backend: &SharedBackend, cache_bytes: usize) -> Result<(Database, View), Fault> {
    let database =
        Builder::new().set_cache_size(cache_bytes).create_with_backend(backend.clone())?;
    let read = database.begin_read()?;
    match read.open_table(STATE) {
        Err(TableError::TableDoesNotExist(_)) if read.list_tables()?.next().is_none() => {
            initialise(&database)?;
        }
        Err(TableError::TableDoesNotExist(_)) => {
            return Err(damaged("the file is not a metadata store of dfs"));
        }
        Err(error) => return Err(error.into()),
        Ok(state) => {
            let format = state.get(FORMAT_KEY)?.map(|format| format.value());
            match format {
                Some(format) if format == u64::from(FORMAT) => {}
                Some(format) if format > u64::from(FORMAT) => {
                    return Err(Fault::Record(EngineError::NewerFormat {
                        found: u32::try_from(format).unwrap_or(u32::MAX),
                        supported: FORMAT,
                    }));
                }
                _ => return Err(damaged("its format is unreadable")),
            }
        }
    }
    drop(read);
    let view = View::new(&database)?;
    Ok((database, view))
}

fn initialise(database: &Database) -> Result<(), Fault> {
    let mut transaction = database.begin_write()?;
    transaction.set_quick_repair(true);
    {
        let mut state = transaction.open_table(STATE)?;
        state.insert(FORMAT_KEY, u64::from(FORMAT))?;
        state.insert(REVISION_KEY, 0)?;
    }
    transaction.commit()?;
    Ok(())
}

/// Judges and writes the commits in order, each on the state that the earlier ones left.
fn apply(
    transaction: &WriteTransaction,
    commits: &[Commit],
    before: Revision,
) -> Result<Applied, Fault> {
    let mut records = Changes::new(transaction)?;
    let mut batch = Applied { outcomes: Vec::new(), changes: Vec::new(), revision: before };
    for commit in commits {
        let failing = commit.first_failing(
            |key| Ok::<_, Fault>(records.get(key)?.map(|found| found.version)),
            |prefix| records.has_prefix(prefix),
        )?;
        let effects = match failing {
            Some(condition) => Err(condition),
            None => {
                commit.effects(|key| Ok::<_, Fault>(records.get(key)?.map(|found| found.value)))?
            }
        };
        let outcome = match effects {
            Err(condition) => Outcome::Conflict { condition },
            Ok(effects) => {
                write(&mut records, effects, &mut batch)?;
                Outcome::Committed(batch.revision)
            }
        };
        batch.outcomes.push(outcome);
    }
    if batch.revision != before {
        records.write()?;
        transaction.open_table(STATE)?.insert(REVISION_KEY, batch.revision.0)?;
    }
    Ok(batch)
}

fn write(records: &mut Changes<'_>, effects: Effects, batch: &mut Applied) -> Result<(), Fault> {
    if effects.is_empty() {
        return Ok(());
    }
    batch.revision = batch.revision.next();
    for (key, value) in effects {
        let existed = value.is_some() || records.get(&key)?.is_some();
        let record = value.as_ref().map(|value| encode(&key, batch.revision, value));
        records.set(key.clone(), record);
        if existed {
            batch.changes.push(Change { key, value, revision: batch.revision });
        }
    }
    Ok(())
}
