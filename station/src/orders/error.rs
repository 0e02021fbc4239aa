//! Why an order, or a unit of one, is not taken. Which status that is on the wire, `rpc::refusal` says.

use factory_journal::JournalError;
use factory_proto::ids::{OrderId, Serial};

use crate::{
    attestations::NotAttested,
    record::{Quarantine, RunClosed, RunId, RunOpened},
    signer::SignerError,
    unit_list::UnitListError,
};

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
    #[error("unit {} has passed already, for {}", .0.opened.serial, .0.opened.place(.0.ended))]
    Passed(Box<RunClosed>),
    /// The command that started this run is being carried out in another nest.
    #[error("run {0} is in another nest already; a new command needs a new id")]
    RunTaken(RunId),
    /// The unit lies in another nest.
    #[error("unit {} is in a nest already, for {}", .0.serial, .0.place(.0.started))]
    Running(Box<RunOpened>),
    /// The unit is set aside.
    #[error("unit {serial} is in quarantine: {}; {}; release it then", quarantine.reason, quarantine.remedy)]
    Quarantined {
        /// Which unit.
        serial: Serial,
        /// Why, and what can be done.
        quarantine: Quarantine,
    },
    /// The unit was destroyed.
    #[error(
        "unit {serial} was scrapped{}",
        last.as_ref().map(|run| format!("; its last run was for {}", run.place(run.started))).unwrap_or_default()
    )]
    Scrapped {
        /// Which unit.
        serial: Serial,
        /// What its last run began as.
        last: Option<Box<RunOpened>>,
    },
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
