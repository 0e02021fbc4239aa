//! Wire messages as commands: every complaint about every field at once.

use factory_journal::Sequence;
use factory_proto::{
    ids::{NestName, OrderId, RecipeName},
    station as messages,
};
use std::{fmt::Display, str::FromStr, time::SystemTime};
use tonic::Status;
use uuid::Uuid;

use crate::{
    nest::Start,
    recipe::template::Values,
    record::{RunId, UnitDisposed, UnitReleased},
    unit_list::UnitList,
};

const LARGEST_ORDER: u32 = 1_000_000;
const LARGEST_PAGE: u32 = 1000;
const LONGEST_REASON: usize = 200;

/// Collects what is wrong with a message.
#[derive(Default)]
struct Fields(Vec<String>);

impl Fields {
    fn parse<T: FromStr<Err: Display>>(&mut self, name: &str, text: &str) -> Option<T> {
        self.check(name, text.parse())
    }

    fn check<T>(&mut self, name: &str, value: Result<T, impl Display>) -> Option<T> {
        value.map_err(|error| self.0.push(format!("{name}: {error}"))).ok()
    }

    fn range(&mut self, name: &str, value: u32, low: u32, high: u32) -> Option<u32> {
        let within = (low..=high).contains(&value).then_some(value);
        self.check(name, within.ok_or_else(|| format!("is {value}, must be {low} to {high}")))
    }

    fn reason(&mut self, reason: String) -> Option<String> {
        let length = reason.chars().count();
        let short = (length <= LONGEST_REASON).then_some(reason);
        self.check(
            "reason",
            short.ok_or_else(|| format!("has {length} characters, at most {LONGEST_REASON} are allowed")),
        )
    }

    fn page(&mut self, size: u32, token: &str) -> Option<Page> {
        let from = match token {
            "" => Some(Sequence::START),
            token => {
                let from = token.parse::<u64>().ok().map(Sequence::from);
                self.check("page_token", from.ok_or("is not from an answer of this station"))
            }
        };
        let size = match size {
            0 => Some(100),
            size => self.range("page_size", size, 1, LARGEST_PAGE),
        };
        Some(Page { from: from?, size: usize::try_from(size?).ok()? })
    }

    /// The command, or INVALID_ARGUMENT with all complaints. A part is missing only after a complaint.
    fn finish<T>(self, command: Option<T>) -> Result<T, Status> {
        match command {
            Some(command) if self.0.is_empty() => Ok(command),
            _ => Err(Status::invalid_argument(self.0.join("; "))),
        }
    }
}

/// Open a work order.
pub struct OpenOrder {
    /// Its id.
    pub order: OrderId,
    /// What is to be made.
    pub recipe: RecipeName,
    /// How many.
    pub quantity: u32,
    /// As the brand owner signed it.
    pub signed: String,
    /// Its units; any may be made where there is none.
    pub units: Option<UnitList>,
}

impl TryFrom<messages::OpenWorkOrderRequest> for OpenOrder {
    type Error = Status;
    fn try_from(request: messages::OpenWorkOrderRequest) -> Result<Self, Status> {
        let mut fields = Fields::default();
        let command: Option<Uuid> = fields.parse("command_id", &request.command_id);
        let order = fields.parse("work_order", &request.work_order);
        let recipe = fields.parse("recipe", &request.recipe);
        let quantity = fields.range("quantity", request.quantity, 1, LARGEST_ORDER);
        let signed = (!request.signed_order.is_empty()).then_some(request.signed_order);
        let signed = fields.check("signed_order", signed.ok_or("is empty: give the brand owner's order"));
        let units = match request.unit_list {
            list if list.is_empty() => Some(None),
            list => fields.check("unit_list", UnitList::read(list)).map(Some),
        };
        let open = || {
            command?;
            let (order, recipe, quantity) = (order?, recipe?, quantity?);
            Some(Self { order, recipe, quantity, signed: signed?, units: units? })
        };
        fields.finish(open())
    }
}

/// Which unit to start, and in which nest.
pub fn start(request: messages::StartUnitRequest) -> Result<(NestName, Start), Status> {
    let mut fields = Fields::default();
    let command = fields.parse("command_id", &request.command_id);
    let order = fields.parse("work_order", &request.work_order);
    let serial = fields.parse("serial", &request.serial);
    let nest = fields.parse("nest", &request.nest);
    let mut values = Values::default();
    for (name, value) in &request.values {
        fields.check("values", values.add(name, value));
    }
    let start = || {
        let run = RunId::of_command(command?);
        Some((nest?, Start { run, order: order?, serial: serial?, values }))
    };
    fields.finish(start())
}

/// Stop a run.
pub struct Abort {
    /// Which.
    pub run: RunId,
    /// Why.
    pub reason: String,
}

impl TryFrom<messages::AbortUnitRequest> for Abort {
    type Error = Status;
    fn try_from(request: messages::AbortUnitRequest) -> Result<Self, Status> {
        let mut fields = Fields::default();
        let command: Option<Uuid> = fields.parse("command_id", &request.command_id);
        let run = fields.parse("run_id", &request.run_id);
        let reason = fields.reason(request.reason);
        let abort = || {
            command?;
            Some(Self { run: run?, reason: reason? })
        };
        fields.finish(abort())
    }
}

/// The release of a quarantined unit.
pub fn release(request: messages::ReleaseUnitRequest) -> Result<UnitReleased, Status> {
    let mut fields = Fields::default();
    let command = fields.parse("command_id", &request.command_id);
    let serial = fields.parse("serial", &request.serial);
    if request.reason.trim().is_empty() {
        fields.check::<()>("reason", Err("must say what was done to the unit"));
    }
    let reason = fields.reason(request.reason);
    let release = || Some(UnitReleased { command: command?, serial: serial?, reason: reason? });
    fields.finish(release())
}

/// What became of a unit.
pub fn dispose(request: &messages::DisposeUnitRequest) -> Result<UnitDisposed, Status> {
    let mut fields = Fields::default();
    let command = fields.parse("command_id", &request.command_id);
    let serial = fields.parse("serial", &request.serial);
    let disposition = fields.check("disposition", request.disposition().try_into());
    let disposed = || Some(UnitDisposed { command: command?, serial: serial?, disposition: disposition? });
    fields.finish(disposed())
}

/// A page of runs.
pub struct List {
    /// Only of this order.
    pub order: Option<OrderId>,
    /// From this record on.
    pub from: Sequence,
    /// At most so many.
    pub size: usize,
}

impl TryFrom<messages::ListUnitsRequest> for List {
    type Error = Status;
    fn try_from(request: messages::ListUnitsRequest) -> Result<Self, Status> {
        let mut fields = Fields::default();
        let order = match request.work_order.as_str() {
            "" => Some(None),
            order => fields.parse("work_order", order).map(Some),
        };
        let page = fields.page(request.page_size, &request.page_token);
        let list = || {
            let (order, Page { from, size }) = (order?, page?);
            Some(Self { order, from, size })
        };
        fields.finish(list())
    }
}

/// Part of a list.
pub struct Page {
    /// From this record on.
    pub from: Sequence,
    /// At most so many.
    pub size: usize,
}

/// A page of audited calls.
pub struct ListAudit {
    /// Which part.
    pub page: Page,
    /// Only those kept since then.
    pub since: Option<SystemTime>,
}

impl TryFrom<messages::ListAuditRecordsRequest> for ListAudit {
    type Error = Status;
    fn try_from(request: messages::ListAuditRecordsRequest) -> Result<Self, Status> {
        let mut fields = Fields::default();
        let page = fields.page(request.page_size, &request.page_token);
        let since = request.since.map(SystemTime::try_from).transpose();
        let since = fields.check("since", since);
        let list = || Some(Self { page: page?, since: since? });
        fields.finish(list())
    }
}

/// The id of a run.
pub fn run_id(text: &str) -> Result<RunId, Status> {
    let mut fields = Fields::default();
    let run = fields.parse("run_id", text);
    fields.finish(run)
}
