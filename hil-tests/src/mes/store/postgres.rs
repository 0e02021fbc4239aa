//! The store in PostgreSQL: for any number of controllers beside each other. Durable at each commit
//! (`synchronous_commit = on`), as far as the server keeps its word (`fsync`).

use std::{collections::HashSet, error::Error, path::Path, sync::Once, time::Duration};

use anyhow::{Context as _, ensure};
use bytes::BytesMut;
use postgres::{
    Client, Config, NoTls, Row, Statement, Transaction,
    binary_copy::BinaryCopyInWriter,
    config::Host,
    error::SqlState,
    fallible_iterator::FallibleIterator as _,
    types::{IsNull, ToSql, Type, accepts, to_sql_checked},
};
use tracing::warn;

use super::{Batch, Database, HeadRow, Kept, ResultRow, Show, StoreError};

/// Each brings the tables from the version before to its own. Those that were released never change.
const MIGRATIONS: [&str; 2] = [include_str!("postgres/1.sql"), include_str!("postgres/2.sql")];
/// What controllers that start at the same time take turns by; drawn once.
const TURN: i64 = 0x6661_6374_6f72_7901;

/// Those of a result's row that a report brings, in the order in which they are given.
macro_rules! columns {
    () => {
        "station, sequence, run, work_order, serial, nest, outcome, failing_step, reason, started, ended, \
        endpoint_name, enrolment_id, tag_uid, chip, recipe_sha256, flash_sha256, firmware_version, station_version, \
        quarantine, steps, measurements, fcc, own_values, message, golden"
    };
}

const INSERT_RESULTS: &str = concat!(
    "INSERT INTO results (",
    columns!(),
    ") SELECT r.station, r.sequence, r.run, r.work_order, r.serial, r.nest, r.outcome, r.failing_step, r.reason, \
    r.started, r.ended, r.endpoint_name, r.enrolment_id, r.tag_uid, r.chip, r.recipe_sha256, r.flash_sha256, \
    r.firmware_version, r.station_version, r.quarantine, r.steps::jsonb, r.measurements::jsonb, r.fcc::jsonb, \
    r.own_values::jsonb, r.message, r.golden \
    FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], \
    $9::text[], $10::timestamptz[], $11::timestamptz[], $12::text[], $13::text[], $14::text[], $15::text[], \
    $16::text[], $17::text[], $18::text[], $19::text[], $20::text[], $21::text[], $22::text[], $23::text[], \
    $24::text[], $25::bytea[], $26::boolean[]) AS r (",
    columns!(),
    ") ON CONFLICT DO NOTHING RETURNING station, sequence"
);
const COPY_RESULTS: &str = concat!("COPY results (", columns!(), ") FROM STDIN BINARY");
#[rustfmt::skip]
const COPIED: [Type; 26] = [
    Type::TEXT, Type::INT8, Type::TEXT, Type::TEXT, Type::TEXT, Type::TEXT, Type::TEXT, Type::TEXT, Type::TEXT,
    Type::TIMESTAMPTZ, Type::TIMESTAMPTZ, Type::TEXT, Type::TEXT, Type::TEXT, Type::TEXT, Type::TEXT, Type::TEXT,
    Type::TEXT, Type::TEXT, Type::TEXT, Type::JSONB, Type::JSONB, Type::JSONB, Type::JSONB, Type::BYTEA,
    Type::BOOL,
];
const INSERT_HEADS: &str = "INSERT INTO heads (station, sequence, log_id, first_sequence, last_sequence, \
    closed_runs, statement, message) \
    SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[], \
    $7::bytea[], $8::bytea[]) \
    ON CONFLICT DO NOTHING RETURNING station, sequence";
const SAME_RESULT: &str = "SELECT 1 FROM results WHERE station = $1 AND sequence = $2 AND run = $3";
const SAME_HEAD: &str = "SELECT 1 FROM heads WHERE station = $1 AND sequence = $2 AND statement = $3";

/// How to reach a database, from its address.
pub(super) fn config(address: &str) -> anyhow::Result<Config> {
    let mut config: Config = address.parse().context("the address of the store cannot be read")?;
    ensure!(
        config.get_password().is_none(),
        "others see a password in a command line: put it into a file, and name that with --password-file"
    );
    for host in config.get_hosts() {
        ensure!(
            is_here(host),
            "{host:?} is across a network, and this program speaks with PostgreSQL without TLS: name its socket's \
             folder (postgres:///DATABASE?host=/run/postgresql), or a tunnel's end on 127.0.0.1"
        );
    }
    config.application_name("reference-controller");
    config.connect_timeout(Duration::from_secs(5));
    Ok(config)
}

fn is_here(host: &Host) -> bool {
    match host {
        Host::Unix(folder) => folder.starts_with(Path::new("/")),
        Host::Tcp(name) => {
            name == "localhost" || name.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
        }
    }
}

pub(super) struct Postgres {
    config: Config,
    /// `None` after it was lost.
    session: Option<Session>,
}

/// A connection with what was prepared over it.
struct Session {
    client: Client,
    insert_results: Statement,
    insert_heads: Statement,
    same_result: Statement,
    same_head: Statement,
}

impl Postgres {
    pub(super) fn open(config: &Config) -> anyhow::Result<Self> {
        let connecting = || format!("the store, {:?}, could not be opened", config.get_hosts());
        let mut client = connect(config).with_context(connecting)?;
        migrate(&mut client).with_context(connecting)?;
        let fsync: String = client.query_one("SHOW fsync", &[])?.get(0);
        if fsync != "on" {
            static SAID: Once = Once::new();
            SAID.call_once(|| {
                warn!("the server has fsync switched off: what it keeps is lost when power is")
            });
        }
        let session = Session::over(client).with_context(connecting)?;
        Ok(Self { config: config.clone(), session: Some(session) })
    }

    /// The connection; a new one if the last was lost.
    fn session(&mut self) -> Result<&mut Session, postgres::Error> {
        let session = match self.session.take() {
            Some(session) if !session.client.is_closed() => session,
            _ => Session::over(connect(&self.config)?)?,
        };
        Ok(self.session.insert(session))
    }

    fn show(&mut self, query: &str, show: &mut Show<'_>) -> anyhow::Result<()> {
        let none: [&str; 0] = [];
        let mut rows = self.session()?.client.query_raw(query, none)?;
        while let Some(row) = rows.next()? {
            show(row.get(0), u64::try_from(row.get::<_, i64>(1))?, row.get(2))?;
        }
        Ok(())
    }
}

impl Database for Postgres {
    fn keep(&mut self, batches: &[&Batch]) -> Result<Vec<Kept>, StoreError> {
        const TRIES: usize = 3;
        let mut tries = 0;
        loop {
            tries += 1;
            let error = match self.session().map_err(|error| trouble(&error))?.keep(batches) {
                Ok(kept) => return Ok(kept),
                Err(error) => error,
            };
            if error.as_db_error().is_none() {
                self.session = None;
            }
            // Nobody knows whether a transaction was kept whose answer is lost; once more does no harm.
            if tries == TRIES || !passes(&error) {
                return Err(trouble(&error));
            }
        }
    }

    fn count(&mut self) -> anyhow::Result<(usize, usize)> {
        let counts = "SELECT (SELECT count(*) FROM results), (SELECT count(*) FROM heads)";
        let row = self.session()?.client.query_one(counts, &[])?;
        Ok((usize::try_from(row.get::<_, i64>(0))?, usize::try_from(row.get::<_, i64>(1))?))
    }

    fn results(&mut self, show: &mut Show<'_>) -> anyhow::Result<()> {
        self.show("SELECT station, sequence, message FROM results ORDER BY arrival", show)
    }

    fn heads(&mut self, show: &mut Show<'_>) -> anyhow::Result<()> {
        self.show("SELECT station, last_sequence, message FROM heads ORDER BY arrival", show)
    }
}

fn connect(config: &Config) -> Result<Client, postgres::Error> {
    let mut client = config.connect(NoTls)?;
    // The rows of a transaction pass through memory, not through a file.
    client.batch_execute(
        "SET synchronous_commit = on; SET client_min_messages = warning; SET work_mem = '64MB'",
    )?;
    Ok(client)
}

impl Session {
    fn over(mut client: Client) -> Result<Self, postgres::Error> {
        Ok(Self {
            insert_results: client.prepare(INSERT_RESULTS)?,
            insert_heads: client.prepare(INSERT_HEADS)?,
            same_result: client.prepare(SAME_RESULT)?,
            same_head: client.prepare(SAME_HEAD)?,
            client,
        })
    }

    fn keep(&mut self, batches: &[&Batch]) -> Result<Vec<Kept>, postgres::Error> {
        // Nearly always all of them are new, and COPY takes two thirds of the server's time (48 to 58 µs a result,
        // where INSERT took 74 to 82); but it brings all or nothing.
        match self.keep_by(copy_results, batches) {
            Err(error) if error.code() == Some(&SqlState::UNIQUE_VIOLATION) => {
                self.keep_by(insert_results, batches)
            }
            kept => kept,
        }
    }

    fn keep_by(&mut self, bring: Bring, batches: &[&Batch]) -> Result<Vec<Kept>, postgres::Error> {
        let mut results: Vec<&ResultRow> = batches.iter().flat_map(|batch| &batch.results).collect();
        let mut heads: Vec<&HeadRow> = batches.iter().flat_map(|batch| &batch.heads).collect();
        // Two controllers that have the same reports never wait for each other in a circle.
        results.sort_by(|a, b| (&a.station, a.sequence).cmp(&(&b.station, b.sequence)));
        heads.sort_by(|a, b| (&a.station, a.sequence).cmp(&(&b.station, b.sequence)));

        let mut transaction = self.client.transaction()?;
        let mut new_results = New::All;
        if !results.is_empty() {
            new_results = bring(&mut transaction, &self.insert_results, &results)?;
        }
        let mut new_heads = New::All;
        if !heads.is_empty() {
            new_heads = New::of(insert_heads(&mut transaction, &self.insert_heads, &heads)?);
        }
        let mut kept = Vec::with_capacity(batches.len());
        for batch in batches {
            let mut of_batch = Kept::default();
            for row in &batch.results {
                if new_results.take(&row.station, row.sequence) {
                    of_batch.results += 1;
                } else if transaction
                    .query_opt(&self.same_result, &[&row.station, &row.sequence, &row.run])?
                    .is_none()
                {
                    of_batch.others.push(row.sequence);
                }
            }
            for row in &batch.heads {
                if new_heads.take(&row.station, row.sequence) {
                    of_batch.heads += 1;
                } else if transaction
                    .query_opt(&self.same_head, &[&row.station, &row.sequence, &row.statement])?
                    .is_none()
                {
                    of_batch.others.push(row.sequence);
                }
            }
            kept.push(of_batch);
        }
        transaction.commit()?;
        Ok(kept)
    }
}

/// A way to bring rows into the database.
type Bring = fn(&mut Transaction<'_>, &Statement, &[&ResultRow]) -> Result<New, postgres::Error>;

/// Brings them all, or fails when one of them is there.
fn copy_results(
    transaction: &mut Transaction<'_>,
    _: &Statement,
    rows: &[&ResultRow],
) -> Result<New, postgres::Error> {
    let mut writer = BinaryCopyInWriter::new(transaction.copy_in(COPY_RESULTS)?, &COPIED);
    for row in rows {
        let [steps, measurements, fcc, own_values] =
            [&row.steps, &row.measurements, &row.fcc, &row.own_values].map(|text| Json(text));
        #[rustfmt::skip]
        let columns: [&(dyn ToSql + Sync); 26] = [
            &row.station, &row.sequence, &row.run, &row.work_order, &row.serial, &row.nest, &row.outcome,
            &row.failing_step, &row.reason, &row.started, &row.ended, &row.endpoint_name, &row.enrolment_id,
            &row.tag_uid, &row.chip, &row.recipe_sha256, &row.flash_sha256, &row.firmware_version,
            &row.station_version, &row.quarantine, &steps, &measurements, &fcc, &own_values, &row.message,
            &row.golden,
        ];
        writer.write(&columns)?;
    }
    writer.finish()?;
    Ok(New::All)
}

/// A text that is JSON, as `jsonb` takes it: version 1, and the text.
#[derive(Debug)]
struct Json<'a>(&'a str);

impl ToSql for Json<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.extend_from_slice(&[1]);
        out.extend_from_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }

    accepts!(JSONB);
    to_sql_checked!();
}

/// Brings those that are not there.
fn insert_results(
    transaction: &mut Transaction<'_>,
    insert: &Statement,
    rows: &[&ResultRow],
) -> Result<New, postgres::Error> {
    macro_rules! column {
        ($name:ident) => {
            &rows.iter().map(|row| &row.$name).collect::<Vec<_>>()
        };
    }
    #[rustfmt::skip]
    let columns: [&(dyn ToSql + Sync); 26] = [
        column!(station), column!(sequence), column!(run), column!(work_order), column!(serial), column!(nest),
        column!(outcome), column!(failing_step), column!(reason), column!(started), column!(ended),
        column!(endpoint_name), column!(enrolment_id), column!(tag_uid), column!(chip), column!(recipe_sha256),
        column!(flash_sha256), column!(firmware_version), column!(station_version), column!(quarantine),
        column!(steps), column!(measurements), column!(fcc), column!(own_values), column!(message),
        column!(golden),
    ];
    transaction.query(insert, &columns).map(New::of)
}

fn insert_heads(
    transaction: &mut Transaction<'_>,
    insert: &Statement,
    rows: &[&HeadRow],
) -> Result<Vec<Row>, postgres::Error> {
    macro_rules! column {
        ($name:ident) => {
            &rows.iter().map(|row| &row.$name).collect::<Vec<_>>()
        };
    }
    #[rustfmt::skip]
    let columns: [&(dyn ToSql + Sync); 8] = [
        column!(station), column!(sequence), column!(log_id), column!(first_sequence), column!(last_sequence),
        column!(closed_runs), column!(statement), column!(message),
    ];
    transaction.query(insert, &columns)
}

/// The keys that a transaction brought.
enum New {
    All,
    These(HashSet<(String, i64)>),
}

impl New {
    fn of(rows: Vec<Row>) -> Self {
        Self::These(rows.into_iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    /// Whether the key is new; only the first who asks brought it.
    fn take(&mut self, station: &str, sequence: i64) -> bool {
        match self {
            Self::All => true,
            Self::These(keys) => keys.remove(&(station.to_owned(), sequence)),
        }
    }
}

fn migrate(client: &mut Client) -> anyhow::Result<()> {
    let mut transaction = client.transaction()?;
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&TURN])?;
    transaction.batch_execute("CREATE TABLE IF NOT EXISTS schema_version (version bigint NOT NULL)")?;
    let version: i64 =
        transaction.query_one("SELECT coalesce(max(version), 0) FROM schema_version", &[])?.get(0);
    let version = usize::try_from(version)?;
    ensure!(
        version <= MIGRATIONS.len(),
        "its tables are of version {version}, and this program knows {}: use a later program",
        MIGRATIONS.len()
    );
    for (number, migration) in MIGRATIONS.iter().enumerate().skip(version) {
        transaction.batch_execute(migration)?;
        transaction.execute("INSERT INTO schema_version VALUES ($1)", &[&i64::try_from(number + 1)?])?;
    }
    Ok(transaction.commit()?)
}

/// Whether the same may well succeed at once: over a new connection, or after whoever was in the way.
fn passes(error: &postgres::Error) -> bool {
    error.as_db_error().is_none()
        || error.code().is_some_and(|code| {
            [SqlState::T_R_DEADLOCK_DETECTED, SqlState::T_R_SERIALIZATION_FAILURE, SqlState::ADMIN_SHUTDOWN]
                .contains(code)
        })
}

fn trouble(error: &postgres::Error) -> StoreError {
    // PostgreSQL's own words are in the source.
    let reason = error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"));
    // Data exceptions, integrity, limits (PostgreSQL, appendix A).
    let refused = error
        .code()
        .is_some_and(|code| ["22", "23", "54"].iter().any(|class| code.code().starts_with(class)));
    if refused { StoreError::Refused(reason) } else { StoreError::Away(reason) }
}

#[cfg(test)]
mod tests;
