//! The work orders of this station: which are open, how many units passed, which units are in a nest now.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use factory_journal::{Journal, JournalError, Sequence};
use factory_proto::{
    ids::{OrderId, RecipeName, Serial},
    outcome::Outcome,
};

use crate::record::{OrderOpened, Record, RunId, RunOpened};

/// Why an order or a unit of it is not taken.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// The same id with other contents.
    #[error("work order {0} is open already, with another recipe or quantity")]
    Differs(OrderId),
    /// Never opened here.
    #[error("work order {0} is not open at this station; open it first")]
    Unknown(OrderId),
    /// As many units as were ordered have passed or are being made.
    #[error("work order {order} is full: {passed} of {quantity} passed, {running} in the nests")]
    Full {
        /// Which.
        order: OrderId,
        /// Units that passed.
        passed: usize,
        /// Units in nests.
        running: usize,
        /// Units ordered.
        quantity: u32,
    },
    /// The unit has its identity.
    #[error("unit {0} has passed already")]
    Passed(Serial),
    /// The command that started this run is being carried out in another nest.
    #[error("run {0} is in another nest already; a new command needs a new id")]
    RunTaken(RunId),
    /// The unit lies in another nest.
    #[error("unit {serial} is in a nest already, as run {run}")]
    Running {
        /// Which unit.
        serial: Serial,
        /// Its run.
        run: RunId,
    },
    /// Nothing more can be made durable.
    #[error("the journal took nothing more")]
    Journal(#[from] JournalError),
}

/// A work order and how far it has come.
#[derive(Debug, Clone)]
pub struct Order {
    /// As it was opened.
    pub opened: OrderOpened,
    /// Units that passed.
    pub passed: usize,
}

/// All work orders; cheap to clone.
#[derive(Clone)]
pub struct Orders {
    journal: Arc<Journal<Record>>,
    books: Arc<Mutex<Books>>,
    // Held while an order is being opened, so that two callers cannot open one id in two ways.
    opening: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Default)]
struct Books {
    orders: BTreeMap<OrderId, OrderOpened>,
    passed: HashMap<OrderId, HashSet<Serial>>,
    running: HashMap<Serial, (OrderId, RunId)>,
}

impl Orders {
    /// Reads what the journal says of orders and results.
    pub fn recover(journal: Arc<Journal<Record>>) -> Result<Self, JournalError> {
        let mut books = Books::default();
        for entry in journal.read(Sequence::START) {
            match entry?.record {
                Record::OrderOpened(opened) => {
                    books.orders.insert(opened.order.clone(), opened);
                }
                Record::RunClosed(closed) if closed.outcome == Outcome::Pass => {
                    books.pass(closed.opened.order, closed.opened.serial);
                }
                _ => {}
            }
        }
        Ok(Self { journal, books: Arc::new(Mutex::new(books)), opening: Arc::default() })
    }

    /// Opens an order durably. An order that is open with the same contents is left as it is.
    pub async fn open(&self, wanted: OrderOpened) -> Result<Order, OrderError> {
        let _alone = self.opening.lock().await;
        let known = self.lock().orders.get(&wanted.order).cloned();
        match known {
            Some(known) if known != wanted => return Err(OrderError::Differs(wanted.order)),
            Some(_) => {}
            None => {
                self.journal.append(Record::OrderOpened(wanted.clone())).await?;
                self.lock().orders.insert(wanted.order.clone(), wanted.clone());
            }
        }
        Ok(self.lock().order(wanted))
    }

    /// The recipe of an order, and the digest that it was opened with.
    pub fn recipe(&self, order: &OrderId) -> Result<(RecipeName, [u8; 32]), OrderError> {
        let books = self.lock();
        let opened = books.orders.get(order).ok_or_else(|| OrderError::Unknown(order.clone()))?;
        Ok((opened.recipe.clone(), opened.recipe_digest))
    }

    /// Takes a place in the order for a run, until the place is dropped or kept.
    pub fn reserve(&self, run: &RunOpened) -> Result<Place, OrderError> {
        let mut books = self.lock();
        let opened = books.orders.get(&run.order).ok_or_else(|| OrderError::Unknown(run.order.clone()))?;
        let quantity = opened.quantity;
        if books.running.values().any(|(_, other)| *other == run.run) {
            return Err(OrderError::RunTaken(run.run));
        }
        if let Some((_, other)) = books.running.get(&run.serial) {
            return Err(OrderError::Running { serial: run.serial.clone(), run: *other });
        }
        if books.passed.values().any(|passed| passed.contains(&run.serial)) {
            return Err(OrderError::Passed(run.serial.clone()));
        }
        let passed = books.passed.get(&run.order).map_or(0, HashSet::len);
        let running = books.running.values().filter(|(order, _)| *order == run.order).count();
        if passed + running >= quantity as usize {
            return Err(OrderError::Full { order: run.order.clone(), passed, running, quantity });
        }
        books.running.insert(run.serial.clone(), (run.order.clone(), run.run));
        Ok(Place { books: self.books.clone(), order: run.order.clone(), serial: run.serial.clone() })
    }

    /// All orders, by their ids.
    pub fn list(&self) -> Vec<Order> {
        let books = self.lock();
        books.orders.values().map(|opened| books.order(opened.clone())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Books> {
        lock(&self.books)
    }
}

impl Books {
    fn pass(&mut self, order: OrderId, serial: Serial) {
        self.passed.entry(order).or_default().insert(serial);
    }

    fn order(&self, opened: OrderOpened) -> Order {
        let passed = self.passed.get(&opened.order).map_or(0, HashSet::len);
        Order { opened, passed }
    }
}

// No step under this lock can fail half-way, so what a panicking holder left behind is whole.
fn lock(books: &Mutex<Books>) -> MutexGuard<'_, Books> {
    books.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A unit's place in its order while it is in a nest; given back when dropped.
pub struct Place {
    books: Arc<Mutex<Books>>,
    order: OrderId,
    serial: Serial,
}

impl Place {
    /// The unit passed: the place is taken for good.
    pub fn keep(self) {
        lock(&self.books).pass(self.order.clone(), self.serial.clone());
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.books).running.remove(&self.serial);
    }
}
