//! The work orders of this station: which are open, how many units passed, which units are in a nest now.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use data_encoding::HEXLOWER;
use factory_proto::ids::{OrderId, RecipeName, Serial};
use tokio::sync::Notify;

use crate::{
    attestations::Attestations,
    books::{Books, Order},
    claims::Claims,
    commands::{Turn, to_the_end},
    recipe::{RecipeKey, template::Values},
    record::{OrderOpened, OrderState, Quarantine, Record, RunOpened},
    signer::{Ordered, Signer},
    unit_list::UnitList,
    units::Units,
};

mod error;
mod fate;
pub(crate) mod moves;
mod place;
pub mod reconcile;
pub mod tally;

pub use error::OrderError;
pub use place::{HeldOpen, Place};

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
    /// What the runs in the nests began as.
    running: HashMap<Serial, RunOpened>,
    /// The order that is being closed.
    closing: Option<OrderId>,
}

impl State {
    /// The runs of an order that are in nests.
    fn running_of(&self, order: &OrderId) -> impl Iterator<Item = &RunOpened> {
        self.running.values().filter(move |run| run.order.as_ref() == Some(order))
    }

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

    /// A unit is set aside, as the journal says.
    pub fn quarantine(&self, serial: Serial, quarantine: Quarantine) {
        self.lock().quarantined.insert(serial, quarantine);
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
