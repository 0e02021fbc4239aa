//! The work orders of this station: which are open, how many units passed, which units are in a nest now.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use data_encoding::HEXLOWER;
use factory_journal::JournalError;
use factory_proto::{
    disposition::Disposition,
    ids::{OrderId, RecipeName, Serial},
};

use tokio::{
    sync::{Notify, OwnedRwLockReadGuard},
    time::timeout,
};
pub(crate) mod moves;
pub mod reconcile;
pub mod tally;

use crate::{
    attestations::{Attestations, NotAttested},
    books::{Books, Order},
    claims::{Claimant, Claims},
    commands::{Turn, to_the_end},
    history::Past,
    recipe::{RecipeKey, template::Values},
    record::{
        OrderOpened, OrderState, Quarantine, Record, RunClosed, RunId, RunOpened, UnitDisposed, UnitReleased,
    },
    signer::{Ordered, Signer, SignerError},
    unit_list::{UnitList, UnitListError},
    units::Units,
};

/// A unit whose result is durable leaves its nest in a moment.
const SETTLES: Duration = Duration::from_secs(2);

/// Why an order or a unit of it is not taken.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// The same id with other contents.
    #[error("work order {0} is open already, with another recipe, quantity or list of units")]
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
        passed: u32,
        /// Units in nests.
        running: usize,
        /// Units ordered.
        quantity: u32,
    },
    /// The unit has its identity.
    #[error(
        "unit {} has passed already, for work order {}, in nest {} at {}, run {}",
        .0.opened.serial,
        .0.opened.order.as_ref().map_or("none", OrderId::as_str),
        .0.opened.nest,
        humantime::format_rfc3339_seconds(.0.ended),
        .0.opened.run
    )]
    Passed(Box<RunClosed>),
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
    /// The unit is set aside.
    #[error("unit {serial} is in quarantine: {}; {}; release it then", quarantine.reason, quarantine.remedy)]
    Quarantined {
        /// Which unit.
        serial: Serial,
        /// Why, and what can be done.
        quarantine: Quarantine,
    },
    /// The unit was destroyed.
    #[error("unit {0} was scrapped")]
    Scrapped(Serial),
    /// Only a good unit leaves the factory.
    #[error("unit {0} has not passed, and cannot be shipped")]
    NotPassed(Serial),
    /// No run was ever opened that was to make a product of it.
    #[error("this station has never begun to make unit {0}")]
    NeverSeen(Serial),
    /// The order's list does not have it.
    #[error("unit {serial} is not in the list of units that work order {order} was opened with")]
    NotListed {
        /// Which unit.
        serial: Serial,
        /// Which order.
        order: OrderId,
    },
    /// The start and the order's list give different values.
    #[error(
        "unit {serial} has the value {name} from its order's list already, and the start gives it another"
    )]
    OtherValue {
        /// Which unit.
        serial: Serial,
        /// Which value.
        name: String,
    },
    /// The order's list cannot be used.
    #[error(transparent)]
    UnitList(#[from] UnitListError),
    /// The signer does not follow the order, or could not be asked.
    #[error(transparent)]
    Signer(#[from] SignerError),
    /// Devices with certificates of its CA would be refused by their platform.
    #[error(transparent)]
    NotAttested(#[from] NotAttested),
    /// The signed order is for something else.
    #[error("signed_order is for {signed}, not for {wanted}")]
    OtherOrder {
        /// What it says.
        signed: String,
        /// What was to be opened.
        wanted: String,
    },
    /// It starts no units for the moment.
    #[error("work order {order} is paused: {reason}; resume it first")]
    Paused {
        /// Which.
        order: OrderId,
        /// Why.
        reason: String,
    },
    /// It starts no units any more.
    #[error("work order {order} was closed: {reason}; open another one")]
    Closed {
        /// Which.
        order: OrderId,
        /// Why.
        reason: String,
    },
    /// It is being closed, which may take a while.
    #[error("work order {0} is being closed; see what comes of it")]
    Closing(OrderId),
    /// Units of it are being made.
    #[error(
        "work order {order} cannot be closed: {count} of its units are in nests: {units}; wait for them, or abort them"
    )]
    UnitsInside {
        /// Which.
        order: OrderId,
        /// How many.
        count: usize,
        /// The first of them.
        units: String,
    },
    /// Units of it are not accounted for.
    #[error(
        "work order {order} has {count} units that are not accounted for: {units}; say what became of them, or close it \
         even if they are open"
    )]
    OpenUnits {
        /// Which.
        order: OrderId,
        /// How many.
        count: usize,
        /// The first of them.
        units: String,
    },
    /// The books of one order at a time.
    #[error("the books of a work order are being made already; ask again when that is done")]
    Reconciling,
    /// It failed, and was tested again as often as may be.
    #[error(
        "unit {serial} failed, and was tested again {retests} times without being changed, as often as its recipe allows; \
         have an engineer see to it and release it"
    )]
    Exhausted {
        /// Which unit.
        serial: Serial,
        /// How often.
        retests: u32,
    },
    /// There is nothing to release.
    #[error(
        "unit {0} is not in quarantine at this station, and its last run did not fail: nothing keeps it from a start"
    )]
    NothingToRelease(Serial),
    /// Nothing more can be made durable.
    #[error("the journal took nothing more")]
    Journal(#[from] JournalError),
}

/// All work orders; cheap to clone.
#[derive(Clone)]
pub struct Orders {
    units: Units,
    claims: Claims,
    attestations: Attestations,
    state: Arc<Mutex<State>>,
    /// The lists that orders were opened with are kept there.
    lists: Arc<Path>,
    /// Told when a unit has left its nest.
    left: Arc<Notify>,
    // Held while an order is being opened or a unit released, so that two callers cannot do it in two ways.
    opening: Arc<tokio::sync::Mutex<()>>,
    // Written while an order is paused, resumed or closed; read while a run of one that starts units becomes durable.
    moving: Arc<tokio::sync::RwLock<()>>,
    // Held while the books of an order are made, which reads much.
    reconciling: Arc<tokio::sync::Mutex<()>>,
}

struct State {
    orders: BTreeMap<OrderId, Order>,
    lists: HashMap<OrderId, Arc<UnitList>>,
    quarantined: BTreeMap<Serial, Quarantine>,
    /// A golden unit is of no order.
    running: HashMap<Serial, (Option<OrderId>, RunId)>,
    /// The order that is being closed.
    closing: Option<OrderId>,
}

impl State {
    fn starts_units(&self, order: &OrderId) -> Result<(), OrderError> {
        let found = self.orders.get(order).ok_or_else(|| OrderError::Unknown(order.clone()))?;
        let reason = found.reason().to_owned();
        match found.state() {
            _ if self.closing.as_ref() == Some(order) => Err(OrderError::Closing(order.clone())),
            OrderState::Paused => Err(OrderError::Paused { order: order.clone(), reason }),
            OrderState::Closed => Err(OrderError::Closed { order: order.clone(), reason }),
            OrderState::Open => Ok(()),
        }
    }
}

/// An order that starts units, and goes on doing so until this is dropped.
pub struct HeldOpen(#[expect(dead_code, reason = "it is given back when dropped")] OwnedRwLockReadGuard<()>);

impl Orders {
    /// Goes on with what the journal's books say. The lists that orders were opened with lie in the folder `lists`.
    pub fn new(units: Units, attestations: Attestations, books: Books, lists: &Path) -> Self {
        let Books { orders, quarantined, .. } = books;
        let (lists_read, running) = (HashMap::new(), HashMap::new());
        let state = State { orders, lists: lists_read, quarantined, running, closing: None };
        let state = Arc::new(Mutex::new(state));
        let (lists, left) = (lists.into(), Arc::default());
        let (opening, moving, reconciling) = (Arc::default(), Arc::default(), Arc::default());
        let claims = Claims::new(units.clone());
        Self { units, claims, attestations, state, lists, left, opening, moving, reconciling }
    }

    /// Opens an order durably. An order that is open with the same contents is left as it is.
    /// The signer must follow it first: `signed` is how the brand owner signed it. `list` is the one whose digest
    /// `wanted` has. Its CA must be registered with `account`, or with any where that is absent. May be given up while the
    /// signer is asked; from then on it goes to its end.
    pub async fn open(
        &self,
        turn: Turn,
        mut wanted: OrderOpened,
        list: Option<UnitList>,
        signed: &str,
        signer: &Signer,
        account: Option<&str>,
    ) -> Result<Order, OrderError> {
        if turn.is_again() {
            return self.get(&wanted.order);
        }
        let ordered = signer.open_order(signed).await?;
        check_signed(&wanted, &ordered)?;
        self.attestations.check(&ordered.ca_fingerprint, account)?;
        wanted.quota = Some(ordered.quota);
        let (orders, alone) = (self.clone(), self.opening.clone().lock_owned().await);
        to_the_end(async move {
            let opened = orders.open_signed(&turn, wanted, list).await;
            drop(alone);
            opened
        })
        .await
    }

    async fn open_signed(
        &self,
        turn: &Turn,
        wanted: OrderOpened,
        list: Option<UnitList>,
    ) -> Result<Order, OrderError> {
        let known = self.lock().orders.get(&wanted.order).cloned();
        match known {
            Some(known) if !known.opened.is_same(&wanted) => Err(OrderError::Differs(wanted.order)),
            Some(known) => {
                turn.commit(None).await?;
                Ok(known)
            }
            None => {
                // Kept first: an order whose list is lost takes no units.
                if let Some(list) = &list {
                    list.keep(&self.lists, &wanted.order)?;
                }
                turn.commit(Some(Record::OrderOpened(wanted.clone()))).await?;
                let order = Order { opened: wanted, passed: 0, moved: None };
                let mut state = self.lock();
                state.orders.insert(order.opened.order.clone(), order.clone());
                if let Some(list) = list {
                    state.lists.insert(order.opened.order.clone(), Arc::new(list));
                }
                Ok(order)
            }
        }
    }

    /// Who has which endpoint name, key and tag.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// An order.
    ///
    /// # Errors
    /// It was never opened here.
    pub fn get(&self, order: &OrderId) -> Result<Order, OrderError> {
        self.lock().orders.get(order).cloned().ok_or_else(|| OrderError::Unknown(order.clone()))
    }

    /// The recipe of an order, and the digest that it was opened with.
    pub fn recipe(&self, order: &OrderId) -> Result<(RecipeName, [u8; 32]), OrderError> {
        let state = self.lock();
        let known = state.orders.get(order).ok_or_else(|| OrderError::Unknown(order.clone()))?;
        Ok((known.opened.recipe.clone(), known.opened.recipe_digest))
    }

    /// What a unit of an order is given for itself: what its list says, and what is `added`.
    ///
    /// # Errors
    /// The order has a list, and the unit is not in it; or the two say different things.
    pub fn values(&self, order: &OrderId, serial: &Serial, added: Values) -> Result<Values, OrderError> {
        let Some(list) = self.unit_list(order)? else { return Ok(added) };
        let listed = list.values(serial);
        let mut values = listed
            .ok_or_else(|| OrderError::NotListed { serial: serial.clone(), order: order.clone() })?
            .clone();
        for (name, value) in added.iter() {
            // Anything but the same again.
            if values.get(name).is_some_and(|listed| listed != value) {
                return Err(OrderError::OtherValue { serial: serial.clone(), name: name.to_owned() });
            }
            // What is there already is the same, and whatever else is wrong with it was said before.
            let _ = values.add(name, value);
        }
        Ok(values)
    }

    /// The list that an order was opened with, read again where the station was restarted since.
    fn unit_list(&self, order: &OrderId) -> Result<Option<Arc<UnitList>>, OrderError> {
        let mut state = self.lock();
        if let Some(list) = state.lists.get(order) {
            return Ok(Some(list.clone()));
        }
        let known = state.orders.get(order).ok_or_else(|| OrderError::Unknown(order.clone()))?;
        let Some(digest) = known.opened.units else { return Ok(None) };
        let list = Arc::new(UnitList::kept(&self.lists, order, &digest)?);
        state.lists.insert(order.clone(), list.clone());
        Ok(Some(list))
    }

    /// Takes a place in the order for a new run, until the place is dropped or kept. A golden unit, which is of no order,
    /// is only kept from being in two nests.
    pub fn reserve(&self, run: &RunOpened) -> Result<Place, OrderError> {
        let state = self.lock();
        if let Some(order) = &run.order {
            state.starts_units(order)?;
        }
        self.place(state, run)
    }

    /// Keeps an order as it is for as long as what comes back is there, if it starts units; a golden unit is of none.
    ///
    /// # Errors
    /// It does not any more: it was moved since the run's place was taken.
    pub async fn hold_open(&self, order: Option<&OrderId>) -> Result<HeldOpen, OrderError> {
        let held = self.moving.clone().read_owned().await;
        if let Some(order) = order {
            self.lock().starts_units(order)?;
        }
        Ok(HeldOpen(held))
    }

    /// Takes a place for a run that was begun before, also in an order that starts no more units.
    pub fn take_up(&self, run: &RunOpened) -> Result<Place, OrderError> {
        self.place(self.lock(), run)
    }

    fn place(&self, mut state: MutexGuard<'_, State>, run: &RunOpened) -> Result<Place, OrderError> {
        if state.running.values().any(|(_, other)| *other == run.run) {
            return Err(OrderError::RunTaken(run.run));
        }
        if let Some((_, other)) = state.running.get(&run.serial) {
            return Err(OrderError::Running { serial: run.serial.clone(), run: *other });
        }
        if let Some(order) = &run.order {
            self.check_place(&state, order, &run.serial)?;
        }
        state.running.insert(run.serial.clone(), (run.order.clone(), run.run));
        let (state, left) = (self.state.clone(), self.left.clone());
        let claims = Arc::new(self.claims.of_run(run));
        Ok(Place { state, left, claims, order: run.order.clone(), serial: run.serial.clone() })
    }

    /// Whether the order has a place left, and the unit may take it.
    fn check_place(&self, state: &State, id: &OrderId, serial: &Serial) -> Result<(), OrderError> {
        let order = state.orders.get(id).ok_or_else(|| OrderError::Unknown(id.clone()))?;
        let (passed, quantity) = (order.passed, order.opened.quantity);
        // Asked while nobody else can take or leave a place: a run that has just passed is in the index.
        if let Some(passed) = self.units.passed(serial)? {
            return Err(OrderError::Passed(Box::new(passed)));
        }
        if self.units.disposition(serial)?.is_some_and(|it| it.disposition == Disposition::Scrapped) {
            return Err(OrderError::Scrapped(serial.clone()));
        }
        if let Some(quarantine) = state.quarantined.get(serial) {
            return Err(OrderError::Quarantined { serial: serial.clone(), quarantine: quarantine.clone() });
        }
        let running = state.running.values().filter(|(order, _)| order.as_ref() == Some(id)).count();
        if passed as usize + running >= quantity as usize {
            return Err(OrderError::Full { order: id.clone(), passed, running, quantity });
        }
        Ok(())
    }

    /// A unit is set aside, as the journal says.
    pub fn quarantine(&self, serial: Serial, quarantine: Quarantine) {
        self.lock().quarantined.insert(serial, quarantine);
    }

    /// Says whether a unit may be tested again: it did not fail, or was not tested `limit` times since.
    ///
    /// # Errors
    /// [`OrderError::Exhausted`]
    pub fn check_retests(&self, serial: &Serial, limit: u32) -> Result<(), OrderError> {
        let history = self.units.history(serial, None)?;
        if history.is_exhausted(limit) {
            return Err(OrderError::Exhausted { serial: serial.clone(), retests: history.retests });
        }
        Ok(())
    }

    /// Lets a unit be started again that was set aside or failed, durably. The same command once more changes nothing.
    pub async fn release(&self, turn: &Turn, released: UnitReleased) -> Result<(), OrderError> {
        self.settled(&released.serial).await?;
        let _alone = self.opening.lock().await;
        if self.units.was_released(&released.serial, released.command)? {
            turn.commit(None).await?;
            return Ok(());
        }
        let failed = self.units.history(&released.serial, None)?.past == Past::Failed;
        if !failed && !self.lock().quarantined.contains_key(&released.serial) {
            return Err(OrderError::NothingToRelease(released.serial));
        }
        turn.commit(Some(Record::UnitReleased(released.clone()))).await?;
        self.lock().quarantined.remove(&released.serial);
        Ok(())
    }

    /// Keeps what became of a unit, and tells the signer first. The same command once more changes nothing.
    pub async fn dispose(
        &self,
        turn: &Turn,
        disposed: UnitDisposed,
        signer: &Signer,
    ) -> Result<(), OrderError> {
        self.settled(&disposed.serial).await?;
        let _alone = self.opening.lock().await;
        let UnitDisposed { command, serial, disposition } = &disposed;
        let before = self.units.disposition(serial)?;
        if before.as_ref().is_some_and(|before| before.command == *command) {
            turn.commit(None).await?;
            return Ok(());
        }
        if before.is_some_and(|before| before.disposition == Disposition::Scrapped) {
            return Err(OrderError::Scrapped(serial.clone()));
        }
        if let Some((_, run)) = self.lock().running.get(serial) {
            return Err(OrderError::Running { serial: serial.clone(), run: *run });
        }
        if !self.units.is_known(serial)? {
            // Nor of a golden unit: it stays with its fixture.
            return Err(OrderError::NeverSeen(serial.clone()));
        }
        if *disposition == Disposition::Shipped && self.units.passed(serial)?.is_none() {
            return Err(OrderError::NotPassed(serial.clone()));
        }
        // A unit that failed before it had an identity is none of the signer's.
        if let Some(issuance) = signer.known_of(&self.units.issuances(serial)?).await?.live {
            signer.dispose(issuance, *disposition).await?;
        }
        turn.commit(Some(Record::UnitDisposed(disposed))).await?;
        Ok(())
    }

    /// Waits while a unit has its result, and has not left its nest: a watcher may be told of the one before the other.
    async fn settled(&self, serial: &Serial) -> Result<(), OrderError> {
        let settles = async {
            loop {
                let left = self.left.notified();
                let run = self.lock().running.get(serial).map(|(_, run)| *run);
                match run {
                    Some(run) if self.units.find(run)?.is_some_and(|unit| unit.closed.is_some()) => {
                        left.await;
                    }
                    _ => return Ok(()),
                }
            }
        };
        timeout(SETTLES, settles).await.unwrap_or(Ok(()))
    }

    /// The orders that were opened with a recipe and are not closed, by their ids.
    pub fn using(&self, (name, digest): &RecipeKey) -> Vec<OrderId> {
        let state = self.lock();
        let uses = |order: &&Order| {
            let opened = &order.opened;
            order.state() != OrderState::Closed && (&opened.recipe, &opened.recipe_digest) == (name, digest)
        };
        state.orders.values().filter(uses).map(|order| order.opened.order.clone()).collect()
    }

    /// All orders, by their ids.
    pub fn list(&self) -> Vec<Order> {
        self.lock().orders.values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// What was signed is what is to be opened.
fn check_signed(wanted: &OrderOpened, signed: &Ordered) -> Result<(), OrderError> {
    let other = |signed: String, wanted: String| Err(OrderError::OtherOrder { signed, wanted });
    if signed.order != wanted.order.as_str() {
        return other(format!("work order {}", signed.order), wanted.order.to_string());
    }
    if signed.recipe_digest != wanted.recipe_digest {
        let (signed, digest) =
            (HEXLOWER.encode(&signed.recipe_digest), HEXLOWER.encode(&wanted.recipe_digest));
        return other(
            format!("a recipe with SHA-256 {signed}"),
            format!("{} as it is here, with {digest}", wanted.recipe),
        );
    }
    if wanted.quantity > signed.quota.quantity {
        return other(format!("{} units", signed.quota.quantity), wanted.quantity.to_string());
    }
    Ok(())
}

// No step under this lock can fail half-way, so what a panicking holder left behind is whole.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A unit's place in its order while it is in a nest; given back when dropped.
pub struct Place {
    state: Arc<Mutex<State>>,
    left: Arc<Notify>,
    order: Option<OrderId>,
    claims: Arc<Claimant>,
    serial: Serial,
}

impl Place {
    /// What the unit may claim by, as long as it is there.
    pub fn claims(&self) -> &Arc<Claimant> {
        &self.claims
    }

    /// The unit passed: the place is taken for good.
    pub fn keep(self) {
        if let Some(order) = &self.order
            && let Some(order) = lock(&self.state).orders.get_mut(order)
        {
            order.passed += 1;
        }
    }

    /// The unit is set aside: it is not taken again before it is released.
    pub fn quarantine(self, quarantine: Quarantine) {
        lock(&self.state).quarantined.insert(self.serial.clone(), quarantine);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.state).running.remove(&self.serial);
        self.left.notify_waiters();
    }
}
