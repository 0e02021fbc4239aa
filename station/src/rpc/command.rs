//! Wire messages as commands: every complaint about every field at once.

use factory_journal::Sequence;
use factory_proto::{
    ids::{NestName, OrderId, RecipeName, Serial},
    outcome::Outcome,
    station::{self as messages, EventKind},
};
use prost_types::Timestamp;
use std::{fmt::Display, str::FromStr, time::SystemTime};
use tonic::Status;
use uuid::Uuid;

use super::{
    page::ListDigest,
    refusal::Refusal,
    watch::{Filter, Wanted},
};
use crate::{
    commands::{Command, Contents},
    listing::Selection,
    recipe::{RecipeKey, template::Values},
    record::{
        NestAct, NestCommanded, OrderMoved, OrderState, RegistrationAttested, RunId, UnitDisposed,
        UnitReleased,
    },
    unit_list::UnitList,
    yields::survey::Asked,
};

const LARGEST_ORDER: u32 = 1_000_000;
const LARGEST_PAGE: u32 = 1000;
const LONGEST_REASON: usize = 200;
/// Of a person.
const LONGEST_NAME: usize = 64;
const MOST_NESTS: usize = 1000;

/// Collects what is wrong with a message.
#[derive(Default)]
struct Fields(Vec<(String, String)>);

impl Fields {
    fn parse<T: FromStr<Err: Display>>(&mut self, name: &str, text: &str) -> Option<T> {
        self.check(name, text.parse())
    }

    fn check<T>(&mut self, name: &str, value: Result<T, impl Display>) -> Option<T> {
        value.map_err(|error| self.0.push((name.to_owned(), error.to_string()))).ok()
    }

    /// What may be left empty.
    fn optional<T: FromStr<Err: Display>>(&mut self, name: &str, text: &str) -> Option<Option<T>> {
        if text.is_empty() { Some(None) } else { self.parse(name, text).map(Some) }
    }

    fn time(&mut self, name: &str, time: Option<&Timestamp>) -> Option<Option<SystemTime>> {
        let Some(time) = time else { return Some(None) };
        let time = SystemTime::try_from(*time).ok().filter(|time| *time >= SystemTime::UNIX_EPOCH);
        self.check(name, time.ok_or("is no time since 1970")).map(Some)
    }

    fn range(&mut self, name: &str, value: u32, low: u32, high: u32) -> Option<u32> {
        let within = (low..=high).contains(&value).then_some(value);
        self.check(name, within.ok_or_else(|| format!("is {value}, must be {low} to {high}")))
    }

    fn digest(&mut self, bytes: &[u8]) -> Option<[u8; 32]> {
        let length = bytes.len();
        self.check("recipe_digest", bytes.try_into().map_err(|_| format!("has {length} bytes, must have 32")))
    }

    /// A reason that must be there.
    fn given_reason(&mut self, reason: String) -> Option<String> {
        if reason.trim().is_empty() {
            return self.check("reason", Err("must say why"));
        }
        self.reason(reason)
    }

    /// The command that a call brings.
    fn command<C: factory_proto::command::Command>(&mut self, request: &mut C) -> Option<Command> {
        let id: Option<Uuid> = self.parse("command_id", &request.id().clone());
        Some(Contents::of(request).command(id?))
    }

    fn reason(&mut self, reason: String) -> Option<String> {
        self.short("reason", reason)
    }

    /// What people say.
    fn short(&mut self, name: &str, text: String) -> Option<String> {
        let length = text.chars().count();
        let short = (length <= LONGEST_REASON).then_some(text);
        self.check(
            name,
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
        let size = self.page_size(size);
        Some(Page { from: from?, size: size? })
    }

    fn page_size(&mut self, size: u32) -> Option<usize> {
        let size = match size {
            0 => Some(100),
            size => self.range("page_size", size, 1, LARGEST_PAGE),
        };
        usize::try_from(size?).ok()
    }

    /// The command, or INVALID_ARGUMENT with all complaints. A part is missing only after a complaint.
    fn finish<T>(self, command: Option<T>) -> Result<T, Status> {
        match command {
            Some(command) if self.0.is_empty() => Ok(command),
            _ => Err(Refusal::of_fields(self.0)),
        }
    }
}

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

/// Start a unit.
pub struct StartUnit {
    /// The command.
    pub command: Command,
    /// In which nest, if that was said.
    pub nest: Option<NestName>,
    /// For which order.
    pub order: OrderId,
    /// Which board.
    pub serial: Serial,
    /// What it is given for itself.
    pub values: Values,
}

impl TryFrom<messages::StartUnitRequest> for StartUnit {
    type Error = Status;
    fn try_from(mut request: messages::StartUnitRequest) -> Result<Self, Status> {
        let mut fields = Fields::default();
        let command = fields.command(&mut request);
        let order = fields.parse("work_order", &request.work_order);
        let serial = fields.parse("serial", &request.serial);
        let nest = match request.nest.as_str() {
            "" => Some(None),
            nest => fields.parse("nest", nest).map(Some),
        };
        let mut values = Values::default();
        for (name, value) in &request.values {
            fields.check(&format!("values[{name:?}]"), values.add(name, value));
        }
        let start = || Some(Self { command: command?, nest: nest?, order: order?, serial: serial?, values });
        fields.finish(start())
    }
}

/// A golden unit is started, in which nest.
pub fn golden(mut request: messages::StartGoldenUnitRequest) -> Result<(Command, Serial, NestName), Status> {
    let mut fields = Fields::default();
    let command = fields.command(&mut request);
    let serial = fields.parse("serial", &request.serial);
    let nest = fields.parse("nest", &request.nest);
    let golden = || Some((command?, serial?, nest?));
    fields.finish(golden())
}

/// A nest is parked, by whom the request or else the connection says.
pub fn park(
    mut request: messages::ParkNestRequest,
    caller: String,
) -> Result<(Command, NestCommanded), Status> {
    let mut fields = Fields::default();
    let command = fields.command(&mut request);
    let reason = fields.given_reason(request.reason);
    let by = match request.by.trim() {
        "" => Some(caller),
        by if by.chars().count() <= LONGEST_NAME => Some(by.to_owned()),
        _ => fields.check("by", Err(format!("is longer than {LONGEST_NAME} characters"))),
    };
    commanded(fields, command, &request.nest, NestAct::Park, by, reason)
}

/// Something else is done with a nest.
pub fn nest<C: factory_proto::command::Command>(
    request: &mut C,
    nest: &str,
    act: NestAct,
    by: String,
) -> Result<(Command, NestCommanded), Status> {
    let mut fields = Fields::default();
    let command = fields.command(request);
    commanded(fields, command, nest, act, Some(by), Some(String::new()))
}

fn commanded(
    mut fields: Fields,
    command: Option<Command>,
    nest: &str,
    act: NestAct,
    by: Option<String>,
    reason: Option<String>,
) -> Result<(Command, NestCommanded), Status> {
    let nest = fields.parse("nest", nest);
    let commanded = || {
        let (command, nest, by, reason) = (command?, nest?, by?, reason?);
        let id = command.id;
        Some((command, NestCommanded { command: id, nest, act, by, reason, at: SystemTime::now() }))
    };
    fields.finish(commanded())
}

/// A recipe comes.
pub fn upload(mut start: messages::UploadRecipeStart) -> Result<(Command, RecipeName), Status> {
    let mut fields = Fields::default();
    let command = fields.command(&mut start);
    let recipe = fields.parse("recipe", &start.recipe);
    fields.finish(command.zip(recipe))
}

/// Something is done with a recipe.
pub fn recipe<C: factory_proto::command::Command>(
    request: &mut C,
    recipe: &str,
    digest: &[u8],
) -> Result<(Command, RecipeKey), Status> {
    let mut fields = Fields::default();
    let command = fields.command(request);
    let key = fields.parse("recipe", recipe).zip(fields.digest(digest));
    fields.finish(command.zip(key))
}

/// Stop a run.
pub struct Abort {
    /// The command.
    pub command: Command,
    /// Which.
    pub run: RunId,
    /// Why.
    pub reason: String,
}

impl TryFrom<messages::AbortUnitRequest> for Abort {
    type Error = Status;
    fn try_from(mut request: messages::AbortUnitRequest) -> Result<Self, Status> {
        let mut fields = Fields::default();
        let command = fields.command(&mut request);
        let run = fields.parse("run_id", &request.run_id);
        let reason = fields.reason(request.reason);
        let abort = || Some(Self { command: command?, run: run?, reason: reason? });
        fields.finish(abort())
    }
}

/// The release of a quarantined unit.
pub fn release(mut request: messages::ReleaseUnitRequest) -> Result<(Command, UnitReleased), Status> {
    let mut fields = Fields::default();
    let command = fields.command(&mut request);
    let serial = fields.parse("serial", &request.serial);
    if request.reason.trim().is_empty() {
        fields.check::<()>("reason", Err("must say what was done to the unit"));
    }
    let reason = fields.reason(request.reason);
    let reworked = request.reworked;
    let release = || {
        let command = command?;
        let released = UnitReleased { command: command.id, serial: serial?, reason: reason?, reworked };
        Some((command, released))
    };
    fields.finish(release())
}

/// What became of a unit.
pub fn dispose(mut request: messages::DisposeUnitRequest) -> Result<(Command, UnitDisposed), Status> {
    let mut fields = Fields::default();
    let command = fields.command(&mut request);
    let serial = fields.parse("serial", &request.serial);
    let disposition = fields.check("disposition", request.disposition().try_into());
    let disposed = || {
        let command = command?;
        let disposed = UnitDisposed { command: command.id, serial: serial?, disposition: disposition? };
        Some((command, disposed))
    };
    fields.finish(disposed())
}

/// A signed allowance, which is read where its key is.
pub fn allowance(mut request: messages::LoadOfflineBudgetRequest) -> Result<(Command, String), Status> {
    let mut fields = Fields::default();
    let command = fields.command(&mut request);
    let given = (!request.allowance.trim().is_empty()).then_some(request.allowance);
    let allowance = fields.check("allowance", given.ok_or("is empty: give what the MES signed"));
    fields.finish(command.zip(allowance))
}

/// A page of runs.
pub struct List {
    /// Of these.
    pub selection: Selection,
    /// Which list that is.
    pub digest: ListDigest,
    /// From this record on.
    pub from: Sequence,
    /// At most so many.
    pub size: usize,
}

impl TryFrom<messages::ListUnitsRequest> for List {
    type Error = Status;
    fn try_from(request: messages::ListUnitsRequest) -> Result<Self, Status> {
        let mut fields = Fields::default();
        let digest = ListDigest::of(&request);
        let from = match request.page_token.as_str() {
            "" => Some(Sequence::START),
            token => fields.check("page_token", digest.begins(token)),
        };
        let size = fields.page_size(request.page_size);
        let selection = selection(&mut fields, &request);
        let list = || Some(Self { selection: selection?, digest, from: from?, size: size? });
        fields.finish(list())
    }
}

fn selection(fields: &mut Fields, request: &messages::ListUnitsRequest) -> Option<Selection> {
    let order = fields.optional("work_order", &request.work_order);
    let serial = fields.optional("serial", &request.serial);
    let nest = fields.optional("nest", &request.nest);
    let mut outcomes = Vec::new();
    for (at, outcome) in request.outcomes.iter().enumerate().take(MOST_NESTS) {
        let known = messages::Outcome::try_from(*outcome).ok();
        let outcome: Option<Outcome> = known.and_then(|outcome| outcome.try_into().ok());
        outcomes.extend(fields.check(&format!("outcomes[{at}]"), outcome.ok_or("is no outcome")));
    }
    let ended = match messages::RunState::try_from(request.state) {
        Ok(messages::RunState::Unspecified) => Some(None),
        Ok(messages::RunState::Open) => Some(Some(false)),
        Ok(messages::RunState::Closed) => Some(Some(true)),
        Err(_) => fields.check("state", Err("is no state of a run")),
    };
    let started_from = fields.time("started_from", request.started_from.as_ref());
    let started_before = fields.time("started_before", request.started_before.as_ref());
    Some(Selection {
        order: order?,
        serial: serial?,
        nest: nest?,
        outcomes,
        ended: ended?,
        started_from: started_from?,
        started_before: started_before?,
    })
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

/// What is stated of a CA's registration.
pub fn attest(
    mut request: messages::AttestRegistrationRequest,
) -> Result<(Command, RegistrationAttested), Status> {
    let mut fields = Fields::default();
    let command = fields.command(&mut request);
    let ca_fingerprint = <[u8; 32]>::try_from(request.ca_fingerprint);
    let ca_fingerprint = fields.check(
        "ca_fingerprint",
        ca_fingerprint.map_err(|it| format!("has {} bytes, must have 32", it.len())),
    );
    let is_account =
        |text: &str| (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric());
    let account = Some(request.account_id).filter(|text| is_account(text));
    let account = fields.check("account_id", account.ok_or("must be 1 to 64 letters and digits"));
    if request.statement.trim().is_empty() {
        fields.check::<()>("statement", Err("must say how that is known"));
    }
    let statement = fields.short("statement", request.statement);
    let registered = request.registered;
    let time = SystemTime::now();
    let stated = || {
        let command = command?;
        let stated = RegistrationAttested {
            command: command.id,
            ca_fingerprint: ca_fingerprint?,
            account: account?,
            registered,
            statement: statement?,
            time,
        };
        Some((command, stated))
    };
    fields.finish(stated())
}

/// Which runs' yields.
pub fn yields(request: messages::GetYieldsRequest) -> Result<Asked, Status> {
    let mut fields = Fields::default();
    let order = fields.optional("work_order", &request.work_order);
    let nest = fields.optional("nest", &request.nest);
    let from = fields.time("ended_from", request.ended_from.as_ref());
    let to = fields.time("ended_before", request.ended_before.as_ref());
    if request.work_order.is_empty() && request.ended_from.is_none() {
        fields.check::<()>("ended_from", Err("is missing: give it, or a work_order"));
    }
    let asked = || Some(Asked { order: order?, nest: nest?, from: from?, to: to? });
    fields.finish(asked())
}

impl TryFrom<messages::WatchEventsRequest> for Wanted {
    type Error = Status;
    fn try_from(request: messages::WatchEventsRequest) -> Result<Self, Status> {
        let mut fields = Fields::default();
        let mut filter = Filter::default();
        if request.nests.len() > MOST_NESTS {
            let text = format!("are {}, at most {MOST_NESTS} are taken", request.nests.len());
            fields.check::<()>("nests", Err(text));
        }
        for (at, nest) in request.nests.iter().enumerate().take(MOST_NESTS) {
            filter.nests.extend(fields.parse::<NestName>(&format!("nests[{at}]"), nest));
        }
        filter.order = fields.optional("work_order", &request.work_order).flatten();
        for (at, kind) in request.kinds.iter().enumerate().take(MOST_NESTS) {
            let known = EventKind::try_from(*kind).ok().filter(|kind| *kind != EventKind::Unspecified);
            filter.kinds.extend(fields.check(&format!("kinds[{at}]"), known.ok_or("is no kind of event")));
        }
        let after = request.after_sequence.map(Sequence::from);
        fields.finish(Some(Self { after, filter }))
    }
}

/// The id of a run.
pub fn run_id(text: &str) -> Result<RunId, Status> {
    let mut fields = Fields::default();
    let run = fields.parse("run_id", text);
    fields.finish(run)
}
