//! Where the reference controller keeps what it got: a SQLite file, or PostgreSQL.
//!
//! One row for each report under the key (station, sequence), so that a repetition changes nothing, whoever brings
//! it: any number of stations, and any number of controllers over one database. What comes from all stations while
//! a transaction is under way makes up the next one, and a caller has its answer only after the commit. Knows
//! nothing of gRPC.

use std::{
    fmt,
    path::PathBuf,
    str::FromStr,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
};

use anyhow::Context as _;
use factory_proto::station::{SignedHead, Unit};
use prost::Message as _;
use tokio::sync::oneshot;

pub mod export;
mod postgres;
mod row;
mod sqlite;

pub use row::{HeadRow, ResultRow, Unfit};

/// Reports that go into one transaction, at most; more than one window of each of fifty stations.
const TRANSACTION: usize = 2_000;

/// Where a store is: `sqlite:FILE`, or the `postgres://` address of a database.
#[derive(Clone)]
pub enum Place {
    /// A file, made if it is not there.
    Sqlite(PathBuf),
    /// A database that is there; its tables are made.
    Postgres(Box<::postgres::Config>),
}

/// Why something could not be kept.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The database will say so each time.
    #[error("the database refuses it: {0}")]
    Refused(String),
    /// The database is away, full or busy: nothing is wrong with what it was given.
    #[error("the database could not keep it; see that it runs and has room: {0}")]
    Away(String),
}

/// Reports of one station, kept together or not at all.
#[derive(Debug, Default)]
pub struct Batch {
    /// Results of units.
    pub results: Vec<ResultRow>,
    /// Signed heads of the station's log.
    pub heads: Vec<HeadRow>,
}

/// What became of a batch.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Results that are new.
    pub results: usize,
    /// Heads that are new.
    pub heads: usize,
    /// Sequence numbers under which something else is kept: never taken.
    pub others: Vec<i64>,
}

/// A result as it was kept.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredResult {
    /// The station's name.
    pub station: String,
    /// Its number for the report.
    pub sequence: u64,
    /// The result.
    pub unit: Unit,
}

/// A head as it was kept.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredHead {
    /// The station's name.
    pub station: String,
    /// The last record of the log that it covers.
    pub last_sequence: u64,
    /// The head.
    pub head: SignedHead,
}

/// What both databases can do. Blocking; each connection has a thread of its own.
trait Database {
    /// Makes a transaction of these batches: all of them, or none.
    fn keep(&mut self, batches: &[&Batch]) -> Result<Vec<Kept>, StoreError>;

    /// How many results and heads there are.
    fn count(&mut self) -> anyhow::Result<(usize, usize)>;

    /// Shows all results in the order in which they were kept: station, sequence, message.
    fn results(&mut self, show: &mut Show<'_>) -> anyhow::Result<()>;

    /// Shows all heads in the order in which they were kept: station, last record, message.
    fn heads(&mut self, show: &mut Show<'_>) -> anyhow::Result<()>;
}

type Show<'a> = dyn FnMut(String, u64, &[u8]) -> anyhow::Result<()> + 'a;

/// A batch, and who is told what became of it.
type Order = (Batch, Box<dyn FnOnce(Result<Kept, StoreError>) + Send>);

/// An open store. Clones are the same one.
#[derive(Clone)]
pub struct Store {
    place: Place,
    orders: mpsc::Sender<Order>,
}

impl FromStr for Place {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        if let Some(file) = text.strip_prefix("sqlite:") {
            anyhow::ensure!(!file.is_empty(), "sqlite: needs a file, as in sqlite:results.db");
            return Ok(Self::Sqlite(file.into()));
        }
        anyhow::ensure!(
            text.starts_with("postgres://") || text.starts_with("postgresql://"),
            "a store is sqlite:FILE or postgres://USER@HOST/DATABASE"
        );
        Ok(Self::Postgres(Box::new(postgres::config(text)?)))
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(file) => write!(f, "sqlite:{}", file.display()),
            // Without the password, if it has one.
            Self::Postgres(config) => {
                write!(f, "database {} at {:?}", config.get_dbname().unwrap_or_default(), config.get_hosts())
            }
        }
    }
}

impl Place {
    /// Gives the password that PostgreSQL asks for.
    ///
    /// # Errors
    /// A file has none.
    pub fn set_password(&mut self, password: &str) -> anyhow::Result<()> {
        match self {
            Self::Sqlite(_) => anyhow::bail!("a SQLite file has no password"),
            Self::Postgres(config) => config.password(password),
        };
        Ok(())
    }

    fn open(&self) -> anyhow::Result<Box<dyn Database>> {
        Ok(match self {
            Self::Sqlite(file) => Box::new(sqlite::Sqlite::open(file)?),
            Self::Postgres(config) => Box::new(postgres::Postgres::open(config)?),
        })
    }

    /// Connections that write. SQLite has one writer at a time, whatever one does; in PostgreSQL one
    /// transaction is put together while another one waits for the disk.
    fn writers(&self) -> usize {
        match self {
            Self::Sqlite(_) => 1,
            Self::Postgres(_) => 2,
        }
    }
}

impl Store {
    /// Opens a store, and makes or renews its tables.
    ///
    /// # Errors
    /// It cannot be reached, is none of ours, or was made by a later version.
    pub fn open(place: Place) -> anyhow::Result<Self> {
        let (orders, taken) = mpsc::channel();
        let taken = Arc::new(Mutex::new(taken));
        for _ in 0..place.writers() {
            let (place, taken) = (place.clone(), taken.clone());
            let (opened, opening) = mpsc::channel();
            thread::Builder::new().name("store".to_owned()).spawn(move || match place.open() {
                Ok(database) => {
                    // Nobody waits when this fails.
                    let _ = opened.send(Ok(()));
                    write(database, &taken);
                }
                Err(error) => {
                    let _ = opened.send(Err(error));
                }
            })?;
            opening.recv().context("the store's thread ended")??;
        }
        Ok(Self { place, orders })
    }

    /// Keeps a batch; ready once it is durable. `count` learns what is kept, also if nobody waits any more.
    ///
    /// # Errors
    /// Nothing of the batch is kept, or nobody knows: it may be given again.
    pub async fn keep(
        &self,
        batch: Batch,
        count: impl FnOnce(&Kept) + Send + 'static,
    ) -> Result<Kept, StoreError> {
        let (answer, kept) = oneshot::channel();
        let gone = || StoreError::Away("its thread has ended".to_owned());
        let tell = move |kept: Result<Kept, StoreError>| {
            if let Ok(kept) = &kept {
                count(kept);
            }
            // Whoever asked may be gone; then the station asks again.
            let _ = answer.send(kept);
        };
        self.orders.send((batch, Box::new(tell))).map_err(|_| gone())?;
        kept.await.map_err(|_| gone())?
    }

    /// How many results and heads there are.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn count(&self) -> anyhow::Result<(usize, usize)> {
        self.read(|database| database.count())
    }

    /// Shows each result, in the order in which they were kept.
    ///
    /// # Errors
    /// The database cannot be read, or `show` failed.
    pub fn results(
        &self,
        mut show: impl FnMut(StoredResult) -> anyhow::Result<()> + Send,
    ) -> anyhow::Result<()> {
        self.read(|database| {
            database.results(&mut |station, sequence, message| {
                show(StoredResult { station, sequence, unit: Unit::decode(message)? })
            })
        })
    }

    /// Shows each head, in the order in which they were kept.
    ///
    /// # Errors
    /// The database cannot be read, or `show` failed.
    pub fn heads(&self, mut show: impl FnMut(StoredHead) -> anyhow::Result<()> + Send) -> anyhow::Result<()> {
        self.read(|database| {
            database.heads(&mut |station, last_sequence, message| {
                show(StoredHead { station, last_sequence, head: SignedHead::decode(message)? })
            })
        })
    }

    /// Reads over a connection of its own, so that nobody waits who writes.
    fn read<T: Send>(
        &self,
        read: impl FnOnce(&mut dyn Database) -> anyhow::Result<T> + Send,
    ) -> anyhow::Result<T> {
        // In a thread, since the caller may be one of a runtime, where PostgreSQL's client cannot block.
        let read = || read(&mut *self.place.open()?);
        thread::scope(|scope| scope.spawn(read).join().map_err(|_| anyhow::anyhow!("reading panicked"))?)
    }
}

/// Writes what waits until nobody is left who could order.
fn write(mut database: Box<dyn Database>, taken: &Mutex<mpsc::Receiver<Order>>) {
    loop {
        let orders = {
            let taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
            let Ok(first) = taken.recv() else { return };
            let mut length = first.0.len();
            let mut orders = vec![first];
            while length < TRANSACTION {
                let Ok(next) = taken.try_recv() else { break };
                length += next.0.len();
                orders.push(next);
            }
            orders
        };
        let batches: Vec<&Batch> = orders.iter().map(|(batch, _)| batch).collect();
        let kept: Vec<_> = match database.keep(&batches) {
            Ok(kept) => kept.into_iter().map(Ok).collect(),
            // One of them is at fault; the others need not suffer.
            Err(StoreError::Refused(_)) if batches.len() > 1 => batches
                .iter()
                .map(|batch| database.keep(&[batch]).map(|kept| kept.into_iter().next().unwrap_or_default()))
                .collect(),
            Err(error) => vec![Err(error); batches.len()],
        };
        for ((_, tell), kept) in orders.into_iter().zip(kept) {
            tell(kept);
        }
    }
}

impl Batch {
    fn len(&self) -> usize {
        self.results.len() + self.heads.len()
    }
}
