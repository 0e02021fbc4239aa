//! What is asked of work orders: to open one, to move it, to make its books.

use std::time::SystemTime;

use factory_proto::{
    ids::{OrderId, RecipeName},
    station as messages,
};
use tonic::Status;

use super::fields::{Fields, LARGEST_PAGE};
use crate::{
    commands::Command,
    record::{OrderMoved, OrderState},
    unit_list::UnitList,
};

const LARGEST_ORDER: u32 = 1_000_000;

/// Open a work order.
pub struct OpenOrder {
    /// The command.
    pub command: Command,
    /// Its id.
    pub order: OrderId,
    /// What is to be made.
    pub recipe: RecipeName,
    /// SHA-256 of it, if that was said.
    pub digest: Option<[u8; 32]>,
    /// How many.
    pub quantity: u32,
    /// As the brand owner signed it.
    pub signed: String,
    /// Its units; any may be made where there is none.
    pub units: Option<UnitList>,
}

impl TryFrom<messages::OpenWorkOrderRequest> for OpenOrder {
    type Error = Status;
    fn try_from(mut request: messages::OpenWorkOrderRequest) -> Result<Self, Status> {
        let mut fields = Fields::default();
        let command = fields.command(&mut request);
        let order = fields.parse("work_order", &request.work_order);
        let recipe = fields.parse("recipe", &request.recipe);
        let digest = match &request.recipe_digest[..] {
            [] => Some(None),
            digest => fields.digest(digest).map(Some),
        };
        let quantity = fields.range("quantity", request.quantity, 1, LARGEST_ORDER);
        let signed = (!request.signed_order.is_empty()).then_some(request.signed_order);
        let signed = fields.check("signed_order", signed.ok_or("is empty: give the brand owner's order"));
        let units = match request.unit_list {
            list if list.is_empty() => Some(None),
            list => fields.check("unit_list", UnitList::read(list)).map(Some),
        };
        let open = || {
            let (command, order, recipe) = (command?, order?, recipe?);
            let (digest, quantity) = (digest?, quantity?);
            Some(Self { command, order, recipe, digest, quantity, signed: signed?, units: units? })
        };
        fields.finish(open())
    }
}

/// An order is paused.
pub fn pause(mut request: messages::PauseWorkOrderRequest) -> Result<(Command, OrderMoved), Status> {
    let mut fields = Fields::default();
    let command = fields.command(&mut request);
    moved(fields, command, &request.work_order, request.reason, OrderState::Paused, false)
}

/// An order is resumed.
pub fn resume(mut request: messages::ResumeWorkOrderRequest) -> Result<(Command, OrderMoved), Status> {
    let mut fields = Fields::default();
    let command = fields.command(&mut request);
    moved(fields, command, &request.work_order, request.reason, OrderState::Open, false)
}

/// An order is closed.
pub fn close(mut request: messages::CloseWorkOrderRequest) -> Result<(Command, OrderMoved), Status> {
    let mut fields = Fields::default();
    let command = fields.command(&mut request);
    let even_if_open = request.even_if_open;
    moved(fields, command, &request.work_order, request.reason, OrderState::Closed, even_if_open)
}

fn moved(
    mut fields: Fields,
    command: Option<Command>,
    order: &str,
    reason: String,
    to: OrderState,
    even_if_open: bool,
) -> Result<(Command, OrderMoved), Status> {
    let order = fields.parse("work_order", order);
    let reason = fields.given_reason(reason);
    let moved = || {
        let (command, order, reason) = (command?, order?, reason?);
        let id = command.id;
        let at = SystemTime::now();
        Some((command, OrderMoved { command: id, order, to, reason, even_if_open, at }))
    };
    fields.finish(moved())
}

/// The books of an order.
pub struct Reconcile {
    /// Which.
    pub order: OrderId,
    /// So many unsettled units are left out.
    pub from: usize,
    /// At most so many are wanted.
    pub size: usize,
}

impl TryFrom<messages::ReconcileWorkOrderRequest> for Reconcile {
    type Error = Status;
    fn try_from(request: messages::ReconcileWorkOrderRequest) -> Result<Self, Status> {
        let mut fields = Fields::default();
        let order = fields.parse("work_order", &request.work_order);
        let from = match request.page_token.as_str() {
            "" => Some(0),
            token => {
                fields.check("page_token", token.parse().map_err(|_| "is not from an answer of this station"))
            }
        };
        let size = match request.page_size {
            0 => Some(100),
            size => fields.range("page_size", size, 1, LARGEST_PAGE),
        };
        let asked = || Some(Self { order: order?, from: from?, size: usize::try_from(size?).ok()? });
        fields.finish(asked())
    }
}
