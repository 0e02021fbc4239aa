//! The store in a SQLite file: the embedded default. Durable at each commit (WAL, `synchronous = FULL`); any number
//! of processes on one machine may have it open.

use std::{fs::File, path::Path, time::Duration};

use anyhow::{Context as _, ensure};
use nix::fcntl::{Flock, FlockArg};
use rusqlite::{Connection, ErrorCode, Params, TransactionBehavior, params};

use super::{Batch, Database, Kept, Show, StoreError, row::utc};

/// Another process may be writing, or bringing what was written into the file itself.
const PATIENCE: Duration = Duration::from_secs(30);
/// Each brings the tables from the version before to its own. Those that were released never change.
const MIGRATIONS: [&str; 2] = [include_str!("sqlite/1.sql"), include_str!("sqlite/2.sql")];

const INSERT_RESULT: &str = "INSERT INTO results (station, sequence, run, work_order, serial, nest, outcome, \
    failing_step, reason, started, ended, endpoint_name, enrolment_id, tag_uid, chip, recipe_sha256, flash_sha256, \
    firmware_version, station_version, quarantine, steps, measurements, fcc, own_values, message, golden) \
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, \
    ?23, ?24, ?25, ?26) ON CONFLICT DO NOTHING";
const INSERT_HEAD: &str = "INSERT INTO heads (station, sequence, log_id, first_sequence, last_sequence, \
    closed_runs, statement, message) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO NOTHING";
const SAME_RESULT: &str = "SELECT 1 FROM results WHERE station = ?1 AND sequence = ?2 AND run = ?3";
const SAME_HEAD: &str = "SELECT 1 FROM heads WHERE station = ?1 AND sequence = ?2 AND statement = ?3";

pub(super) struct Sqlite(Connection);

impl Sqlite {
    pub(super) fn open(file: &Path) -> anyhow::Result<Self> {
        let opening = || format!("the store {} could not be opened", file.display());
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // One at a time: SQLite does not wait for its turn where the journal's mode changes.
        let folder = File::open(folder).with_context(opening)?;
        let _turn =
            Flock::lock(folder, FlockArg::LockExclusive).map_err(|(_, error)| error).with_context(opening)?;
        Self::open_alone(file).with_context(opening)
    }

    fn open_alone(file: &Path) -> anyhow::Result<Self> {
        let mut connection = Connection::open(file)?;
        connection.busy_timeout(PATIENCE)?;
        // Before there is anything in it. A result has 3 KiB; of the usual 4 KiB pages it would leave a quarter empty.
        connection.pragma_update(None, "page_size", 16_384)?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.pragma_update(None, "synchronous", "full")?;
        // In KiB. The upper levels of the indices stay in memory.
        connection.pragma_update(None, "cache_size", -65_536)?;
        // In pages, 64 MiB. Those of an index change often: each goes into the file once for many changes.
        connection.pragma_update(None, "wal_autocheckpoint", 4_096)?;
        migrate(&mut connection)?;
        Ok(Self(connection))
    }

    fn show(&self, query: &str, show: &mut Show<'_>) -> anyhow::Result<()> {
        let mut statement = self.0.prepare(query)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            show(row.get(0)?, u64::try_from(row.get::<_, i64>(1)?)?, row.get_ref(2)?.as_blob()?)?;
        }
        Ok(())
    }
}

impl Database for Sqlite {
    fn keep(&mut self, batches: &[&Batch]) -> Result<Vec<Kept>, StoreError> {
        // At once a writer: one that has read before is refused when it wants to write after somebody else.
        let transaction =
            self.0.transaction_with_behavior(TransactionBehavior::Immediate).map_err(trouble)?;
        let kept: Result<Vec<Kept>, _> = batches.iter().map(|batch| insert(&transaction, batch)).collect();
        let kept = kept.map_err(trouble)?;
        transaction.commit().map_err(trouble)?;
        Ok(kept)
    }

    fn count(&mut self) -> anyhow::Result<(usize, usize)> {
        let counts = "SELECT (SELECT count(*) FROM results), (SELECT count(*) FROM heads)";
        let (results, heads): (i64, i64) =
            self.0.query_row(counts, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok((usize::try_from(results)?, usize::try_from(heads)?))
    }

    fn results(&mut self, show: &mut Show<'_>) -> anyhow::Result<()> {
        self.show("SELECT station, sequence, message FROM results ORDER BY arrival", show)
    }

    fn heads(&mut self, show: &mut Show<'_>) -> anyhow::Result<()> {
        self.show("SELECT station, last_sequence, message FROM heads ORDER BY arrival", show)
    }
}

fn insert(connection: &Connection, batch: &Batch) -> rusqlite::Result<Kept> {
    let mut kept = Kept::default();
    for row in &batch.results {
        let (started, ended) = (row.started.map(utc), row.ended.map(utc));
        #[rustfmt::skip]
        let columns = params![
            row.station, row.sequence, row.run, row.work_order, row.serial, row.nest, row.outcome,
            row.failing_step, row.reason, started, ended, row.endpoint_name, row.enrolment_id, row.tag_uid,
            row.chip, row.recipe_sha256, row.flash_sha256, row.firmware_version, row.station_version,
            row.quarantine, row.steps, row.measurements, row.fcc, row.own_values, row.message, row.golden,
        ];
        if is_new(connection, INSERT_RESULT, columns)? {
            kept.results += 1;
        } else if !is_there(connection, SAME_RESULT, params![row.station, row.sequence, row.run])? {
            kept.others.push(row.sequence);
        }
    }
    for row in &batch.heads {
        #[rustfmt::skip]
        let columns = params![
            row.station, row.sequence, row.log_id, row.first_sequence, row.last_sequence, row.closed_runs,
            row.statement, row.message,
        ];
        if is_new(connection, INSERT_HEAD, columns)? {
            kept.heads += 1;
        } else if !is_there(connection, SAME_HEAD, params![row.station, row.sequence, row.statement])? {
            kept.others.push(row.sequence);
        }
    }
    Ok(kept)
}

fn is_new(connection: &Connection, insert: &str, columns: impl Params) -> rusqlite::Result<bool> {
    Ok(connection.prepare_cached(insert)?.execute(columns)? > 0)
}

fn is_there(connection: &Connection, query: &str, key: impl Params) -> rusqlite::Result<bool> {
    connection.prepare_cached(query)?.exists(key)
}

fn migrate(connection: &mut Connection) -> anyhow::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let version = usize::try_from(version)?;
    ensure!(
        version <= MIGRATIONS.len(),
        "its tables are of version {version}, and this program knows {}: use a later program",
        MIGRATIONS.len()
    );
    for migration in &MIGRATIONS[version..] {
        transaction.execute_batch(migration)?;
    }
    transaction.pragma_update(None, "user_version", i64::try_from(MIGRATIONS.len())?)?;
    Ok(transaction.commit()?)
}

fn trouble(error: rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::ConstraintViolation | ErrorCode::TooBig | ErrorCode::TypeMismatch) => {
            StoreError::Refused(error.to_string())
        }
        _ => StoreError::Away(error.to_string()),
    }
}
