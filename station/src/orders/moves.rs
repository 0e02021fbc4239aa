//! Pausing, resuming and closing orders: what may follow what, and that it is durable before it is shown.

use factory_proto::ids::{OrderId, Serial};

use super::{OrderError, Orders, reconcile::Unsettled};
use crate::{
    books::Order,
    commands::Turn,
    record::{OrderMoved, OrderState, Record, RunId},
    signer::Signer,
};

/// As many as are named in a refusal.
const NAMED: usize = 5;

impl OrderState {
    /// Whether an order that is in this state may be moved to another one, or to the same for another reason.
    pub fn may_become(self, _: Self) -> bool {
        self != Self::Closed
    }
}

impl Orders {
    /// Pauses or resumes an order, durably. The same command once more changes nothing.
    ///
    /// # Errors
    /// It is not there, or closed.
    pub async fn pause_or_resume(&self, turn: &Turn, moved: OrderMoved) -> Result<Order, OrderError> {
        let _alone = self.opening.lock().await;
        if let Some(order) = self.moved_before(turn, &moved).await? {
            return Ok(order);
        }
        self.moving(&moved)?;
        self.keep_move(turn, moved).await
    }

    /// Closes an order for good, durably. The same command once more changes nothing.
    ///
    /// # Errors
    /// As of [`Orders::pause_or_resume`]; units of it are in nests, or not accounted for, which is asked of the signer
    /// unless it is to be closed even then.
    pub async fn close(&self, turn: &Turn, moved: OrderMoved, signer: &Signer) -> Result<Order, OrderError> {
        let _alone = self.opening.lock().await;
        if let Some(order) = self.moved_before(turn, &moved).await? {
            return Ok(order);
        }
        self.moving(&moved)?;
        // From here on no unit of it is started, and if it is not closed after all, they are again.
        let _shut = self.shut(&moved.order)?;
        if !moved.even_if_open {
            let unsettled = self.reconcile_patiently(&moved.order, signer).await?.unsettled;
            refuse_open(&moved.order, unsettled.iter().filter(|it| it.hinders_closing()))?;
        }
        self.keep_move(turn, moved).await
    }

    /// The order, if the command was carried out before.
    async fn moved_before(&self, turn: &Turn, moved: &OrderMoved) -> Result<Option<Order>, OrderError> {
        let order = self.get(&moved.order)?;
        if turn.is_again() {
            return Ok(Some(order));
        }
        // The station died between what the command did and the note that it was carried out.
        if order.moved.as_ref().is_some_and(|last| last.command == moved.command) {
            turn.commit(None).await?;
            return Ok(Some(order));
        }
        Ok(None)
    }

    /// Whether it may be.
    fn moving(&self, moved: &OrderMoved) -> Result<(), OrderError> {
        let order = self.get(&moved.order)?;
        if order.state().may_become(moved.to) {
            return Ok(());
        }
        Err(OrderError::Closed { order: moved.order.clone(), reason: order.reason().to_owned() })
    }

    async fn keep_move(&self, turn: &Turn, moved: OrderMoved) -> Result<Order, OrderError> {
        // A run of it is durable before this, or not begun.
        let _alone = self.moving.write().await;
        turn.commit(Some(Record::OrderMoved(moved.clone()))).await?;
        let mut state = self.lock();
        if let Some(order) = state.orders.get_mut(&moved.order) {
            order.moved = Some(moved.clone());
        }
        drop(state);
        self.get(&moved.order)
    }

    /// Keeps an order from starting units for as long as what comes back is there.
    fn shut(&self, order: &OrderId) -> Result<Shut, OrderError> {
        let mut state = self.lock();
        let mut inside: Vec<(Serial, RunId)> =
            state.running_of(order).map(|run| (run.serial.clone(), run.run)).collect();
        if inside.is_empty() {
            state.closing = Some(order.clone());
            return Ok(Shut(self.clone()));
        }
        inside.sort_unstable();
        let units: Vec<String> =
            inside.iter().take(NAMED).map(|(serial, run)| format!("{serial} (run {run})")).collect();
        Err(OrderError::UnitsInside { order: order.clone(), count: inside.len(), units: units.join(", ") })
    }
}

/// An order that starts no unit while it is being closed.
struct Shut(Orders);

impl Drop for Shut {
    fn drop(&mut self) {
        self.0.lock().closing = None;
    }
}

fn refuse_open<'a>(order: &OrderId, open: impl Iterator<Item = &'a Unsettled>) -> Result<(), OrderError> {
    let open: Vec<_> = open.collect();
    if open.is_empty() {
        return Ok(());
    }
    let named: Vec<String> = open.iter().take(NAMED).map(|unit| unit.to_string()).collect();
    Err(OrderError::OpenUnits { order: order.clone(), count: open.len(), units: named.join("; ") })
}

/// A move by a command that a test made up.
#[cfg(test)]
pub(crate) fn moved(order: &OrderId, number: u128, to: OrderState) -> OrderMoved {
    OrderMoved {
        command: uuid::Uuid::from_u128(number),
        order: order.clone(),
        to,
        reason: format!("reason {number}"),
        even_if_open: false,
        at: std::time::SystemTime::UNIX_EPOCH,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{books::Books, record::OrderOpened};

    proptest! {
        #[test]
        fn an_order_is_as_it_was_moved_last_and_what_is_closed_stays_closed(
            moves in prop::collection::vec(
                prop::sample::select(&[OrderState::Open, OrderState::Paused, OrderState::Closed][..]), 0..12,
            )
        ) {
            let order: OrderId = "WO-1".parse().unwrap();
            let mut books = Books::default();
            books.learn(Record::OrderOpened(OrderOpened {
                order: order.clone(),
                recipe: "sensor".parse().unwrap(),
                recipe_digest: [0; 32],
                quantity: 1,
                units: None,
                quota: None,
            })).unwrap();
            for (number, to) in (1..).zip(&moves) {
                books.learn(Record::OrderMoved(moved(&order, number, *to))).unwrap();
            }
            let end = moves.iter().position(|to| *to == OrderState::Closed).or(moves.len().checked_sub(1));
            let (state, reason) = match end {
                Some(end) => (moves[end], format!("reason {}", end + 1)),
                None => (OrderState::Open, String::new()),
            };
            prop_assert_eq!((books.orders[&order].state(), books.orders[&order].reason()), (state, &*reason));
        }
    }
}
