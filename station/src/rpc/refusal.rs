//! Why a call is refused, in the words of the wire: a status code, `google.rpc` details, and a reason that programs can
//! branch on. Owns which error is which refusal; a new error is a line in its `match`, a new reason a line in
//! `ErrorReason` of station.proto and one in [`terms`].

use std::{
    collections::HashMap,
    fmt::Display,
    io,
    time::{Duration, SystemTime},
};

use factory_journal::JournalError;
use factory_proto::{
    ids::{NestName, OrderId},
    station::ErrorReason,
};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, QuotaViolation, StatusExt as _};

use crate::{
    claims::ClaimError,
    commands::CommandError,
    golden::GoldenError,
    line::offline::OfflineError,
    nest::{HandError, StartError, choice::ChoiceError},
    orders::OrderError,
    recipe::RecipeError,
    record::{Mark, RunId, RunOpened, Seen},
    shelf::ShelfError,
    signer::SignerError,
    unit_list::UnitListError,
};

/// Whose reasons they are, for `google.rpc.ErrorInfo`.
pub const DOMAIN: &str = "factory.station.v1";

// A status goes out as HTTP/2 trailers, of which gRPC's own clients take 8 KiB, with the message in it twice: once as
// it is, percent-encoded, once among the details, in base64.
const LONGEST_MESSAGE: usize = 1000;
const LONGEST_VIOLATION: usize = 140;
const LONGEST_PATH: usize = 64;
const MOST_VIOLATIONS: usize = 16;

/// A refusal in the making.
#[derive(Debug)]
pub struct Refusal {
    reason: ErrorReason,
    about: HashMap<String, String>,
    violations: Vec<FieldViolation>,
}

/// An error of the station that has a refusal.
pub trait Refused: std::error::Error {
    /// Which one.
    fn refusal(&self) -> Refusal;
}

/// The refusal that an error is, for people and for programs.
pub fn refused<E: Refused>(error: E) -> Status {
    let text = factory_fixtures::fault::chain(&error);
    let refusal = error.refusal();
    if matches!(terms(refusal.reason).0, Code::Internal | Code::DataLoss) {
        tracing::error!(reason = text, "a call failed");
    }
    refusal.says(&text)
}

impl Refusal {
    /// For this reason.
    pub fn of(reason: ErrorReason) -> Self {
        Self { reason, about: HashMap::new(), violations: Vec::new() }
    }

    /// With what it is about, as in `serial`, `run`, `nest`, `order`, `recipe`.
    pub fn about(mut self, what: &str, which: impl Display) -> Self {
        self.about.insert(what.to_owned(), which.to_string());
        self
    }

    /// With where that was seen before.
    fn seen_in(self, order: Option<&OrderId>, run: &RunId, nest: &NestName, time: SystemTime) -> Self {
        let seen = order.into_iter().fold(self, |seen, order| seen.about("seen_order", order));
        seen.about("seen_run", run)
            .about("seen_nest", nest)
            .about("seen_time", humantime::format_rfc3339_seconds(time))
    }

    /// With where a unit was, as of this time in a run.
    fn in_run(self, RunOpened { order, run, nest, .. }: &RunOpened, time: SystemTime) -> Self {
        self.seen_in(order.as_ref(), run, nest, time)
    }

    /// Of fields of the request: their paths, and what is wrong with each.
    pub fn of_fields(complaints: Vec<(String, String)>) -> Status {
        let mut texts: Vec<String> =
            complaints.iter().take(MOST_VIOLATIONS).map(|(field, what)| format!("{field}: {what}")).collect();
        if complaints.len() > MOST_VIOLATIONS {
            texts.push(format!("and {} more", complaints.len() - MOST_VIOLATIONS));
        }
        let mut refusal = Self::of(ErrorReason::FieldInvalid);
        let violation = |(field, what): (String, String)| {
            FieldViolation::new(cut(&field, LONGEST_PATH), cut(&what, LONGEST_VIOLATION))
        };
        refusal.violations = complaints.into_iter().take(MOST_VIOLATIONS).map(violation).collect();
        refusal.says(&texts.join("; "))
    }

    /// The status, with this text for people.
    pub fn says(self, text: &str) -> Status {
        let (code, again_after) = terms(self.reason);
        let text = cut(text, LONGEST_MESSAGE);
        let mut details = ErrorDetails::new();
        if code == Code::ResourceExhausted {
            let subject = self.about.iter().next().map(|(what, which)| format!("{what}:{which}"));
            let subject = subject.unwrap_or_else(|| "station".to_owned());
            details.set_quota_failure(vec![QuotaViolation::new(subject, cut(&text, LONGEST_VIOLATION))]);
        }
        details.set_error_info(name(self.reason), DOMAIN, self.about);
        if let Some(after) = again_after {
            details.set_retry_info(Some(after));
        }
        if !self.violations.is_empty() {
            details.set_bad_request(self.violations);
        }
        Status::with_error_details(code, text, details)
    }
}

/// A reason as it stands in `google.rpc.ErrorInfo`: as in station.proto, without the enum's prefix.
pub fn name(reason: ErrorReason) -> &'static str {
    let name = reason.as_str_name();
    name.strip_prefix("ERROR_REASON_").unwrap_or(name)
}

/// The code of a reason, and after what time the same call may be tried again, where that may help.
pub fn terms(reason: ErrorReason) -> (Code, Option<Duration>) {
    use ErrorReason as R;
    let after = |seconds| Some(Duration::from_secs(seconds));
    match reason {
        R::Unspecified => (Code::Unknown, None),
        R::FieldInvalid => (Code::InvalidArgument, None),
        R::CommandIdReused => (Code::AlreadyExists, None),
        R::NestUnknown => (Code::NotFound, None),
        R::NestBusy => (Code::FailedPrecondition, after(5)),
        R::NestParked => (Code::FailedPrecondition, after(10)),
        R::NestOutOfOrder => (Code::Unavailable, None),
        R::RunUnknown => (Code::NotFound, None),
        R::OrderUnknown => (Code::NotFound, None),
        R::OrderDiffers => (Code::AlreadyExists, None),
        R::OrderFull => (Code::ResourceExhausted, None),
        R::OrderNotAsSigned => (Code::FailedPrecondition, None),
        R::OrderListUnusable => (Code::FailedPrecondition, None),
        R::RegistrationNotAttested => (Code::FailedPrecondition, None),
        R::UnitUnknown => (Code::NotFound, None),
        R::UnitPassed => (Code::FailedPrecondition, None),
        R::UnitRunning => (Code::FailedPrecondition, after(5)),
        R::UnitQuarantined => (Code::FailedPrecondition, None),
        R::UnitNotHeld => (Code::NotFound, None),
        R::UnitExhausted => (Code::FailedPrecondition, None),
        R::UnitScrapped => (Code::FailedPrecondition, None),
        R::UnitNotPassed => (Code::FailedPrecondition, None),
        R::UnitNotListed => (Code::FailedPrecondition, None),
        R::UnitValues => (Code::FailedPrecondition, None),
        R::UnitNotSupplied => (Code::FailedPrecondition, None),
        R::EndpointNameSeenBefore | R::DeviceKeySeenBefore | R::TagSeenBefore => {
            (Code::FailedPrecondition, None)
        }
        R::RecipeUnknown => (Code::NotFound, None),
        R::RecipeNotHeld => (Code::NotFound, None),
        R::RecipeUnusable => (Code::FailedPrecondition, None),
        R::SignerUnreachable => (Code::Unavailable, after(1)),
        R::SignerBusy => (Code::Unavailable, after(1)),
        R::SignerRefused => (Code::FailedPrecondition, None),
        R::SignerOtherLog => (Code::FailedPrecondition, None),
        R::JournalFull => (Code::ResourceExhausted, after(30)),
        R::JournalDamaged => (Code::DataLoss, None),
        R::JournalFailed => (Code::Internal, None),
        R::SequenceBeyondLog => (Code::OutOfRange, None),
        R::TooManyWatchers => (Code::ResourceExhausted, after(30)),
        R::RoleMissing | R::StationNotCertified => (Code::PermissionDenied, None),
        R::MethodUnknown => (Code::Unimplemented, None),
        R::MessageTooLarge => (Code::ResourceExhausted, None),
        R::StationNotReady => (Code::FailedPrecondition, None),
        R::ShuttingDown => (Code::Unavailable, after(5)),
        R::ControllerRefused => (Code::FailedPrecondition, None),
        R::InterlockNotServed => (Code::FailedPrecondition, None),
        R::OfflineBudgetExhausted => (Code::FailedPrecondition, after(10)),
        R::StartAborted => (Code::Aborted, None),
        R::AllowanceNotTaken => (Code::FailedPrecondition, None),
        R::GoldenUnitDue | R::UnitGolden | R::UnitNotGolden => (Code::FailedPrecondition, None),
        R::OrderPaused | R::OrderClosed | R::OrderUnitsOpen => (Code::FailedPrecondition, None),
        R::OrderUnitsInside | R::NoNestFree => (Code::FailedPrecondition, after(5)),
        R::NestParkedByHand | R::NestLeftPack | R::RecipeInUse => (Code::FailedPrecondition, None),
        R::RecipeRefused => (Code::InvalidArgument, None),
        R::RecipesFull => (Code::ResourceExhausted, None),
        R::StationBusy => (Code::ResourceExhausted, after(5)),
    }
}

impl Refused for StartError {
    fn refusal(&self) -> Refusal {
        use ErrorReason as R;
        match self {
            Self::Busy { nest, run } => Refusal::of(R::NestBusy).about("nest", nest).about("run", run),
            Self::Reused => Refusal::of(R::CommandIdReused),
            Self::OutOfOrder(nest) => Refusal::of(R::NestOutOfOrder).about("nest", nest),
            Self::Parked { nest, .. } => Refusal::of(R::NestParked).about("nest", nest),
            Self::ByHand { nest, .. } => Refusal::of(R::NestParkedByHand).about("nest", nest),
            Self::LeftPack { nest, .. } => Refusal::of(R::NestLeftPack).about("nest", nest),
            Self::NoneFree(_) => Refusal::of(R::NoNestFree),
            Self::GoldenDue { nest, .. } => Refusal::of(R::GoldenUnitDue).about("nest", nest),
            Self::NoneProven(_) => Refusal::of(R::GoldenUnitDue),
            Self::Golden(error) => error.refusal(),
            Self::NoRoom(_) => Refusal::of(R::JournalFull),
            Self::Draining => Refusal::of(R::ShuttingDown),
            Self::Order(error) => error.refusal(),
            Self::Recipe(error) => error.refusal(),
            Self::Unit(_) => Refusal::of(R::UnitValues),
            Self::Credentials(_) => Refusal::of(R::UnitNotSupplied),
            Self::Claim(error) => error.refusal(),
            Self::Refused { serial, controller, .. } => {
                Refusal::of(R::ControllerRefused).about("serial", serial).about("controller", controller)
            }
            Self::NotServed { controller } => {
                Refusal::of(R::InterlockNotServed).about("controller", controller)
            }
            Self::NoLeave { .. } => Refusal::of(R::OfflineBudgetExhausted),
            Self::Aborted(_) => Refusal::of(R::StartAborted),
            Self::Journal(error) => error.refusal(),
        }
    }
}

impl Refused for GoldenError {
    fn refusal(&self) -> Refusal {
        use ErrorReason as R;
        match self {
            Self::Golden(serial) => Refusal::of(R::UnitGolden).about("serial", serial),
            Self::NotNamed(serial) | Self::Product(serial) => {
                Refusal::of(R::UnitNotGolden).about("serial", serial)
            }
            Self::Journal(error) => error.refusal(),
        }
    }
}

impl Refused for ClaimError {
    fn refusal(&self) -> Refusal {
        match self {
            Self::Taken(seen) => {
                let Seen { mark, serial, order, run, nest, time } = &**seen;
                Refusal::of(seen_before(mark))
                    .about("value", mark.value())
                    .about("seen_serial", serial)
                    .seen_in(Some(order), run, nest, *time)
            }
            Self::Journal(error) => error.refusal(),
        }
    }
}

/// Why a unit may not have what is another unit's.
pub fn seen_before(mark: &Mark) -> ErrorReason {
    match mark {
        Mark::EndpointName(_) => ErrorReason::EndpointNameSeenBefore,
        Mark::DeviceKey(_) => ErrorReason::DeviceKeySeenBefore,
        Mark::Tag(_) => ErrorReason::TagSeenBefore,
    }
}

impl Refused for OfflineError {
    fn refusal(&self) -> Refusal {
        match self {
            Self::NoKey | Self::Allowance(_) | Self::NotTaken(_) => {
                Refusal::of(ErrorReason::AllowanceNotTaken)
            }
            Self::Journal(error) => error.refusal(),
        }
    }
}

impl Refused for OrderError {
    fn refusal(&self) -> Refusal {
        use ErrorReason as R;
        match self {
            Self::Differs(order) => Refusal::of(R::OrderDiffers).about("order", order),
            Self::Unknown(order) => Refusal::of(R::OrderUnknown).about("order", order),
            Self::Full { order, .. } => Refusal::of(R::OrderFull).about("order", order),
            Self::Passed(closed) => {
                let passed = Refusal::of(R::UnitPassed).about("serial", &closed.opened.serial);
                passed.in_run(&closed.opened, closed.ended)
            }
            Self::RunTaken(run) => Refusal::of(R::CommandIdReused).about("run", run),
            Self::Running(opened) => {
                let running = Refusal::of(R::UnitRunning).about("serial", &opened.serial);
                running.about("run", opened.run).in_run(opened, opened.started)
            }
            Self::Quarantined { serial, .. } => Refusal::of(R::UnitQuarantined).about("serial", serial),
            Self::Scrapped { serial, last } => {
                let scrapped = Refusal::of(R::UnitScrapped).about("serial", serial);
                last.iter().fold(scrapped, |scrapped, last| scrapped.in_run(last, last.started))
            }
            Self::NotPassed(serial) => Refusal::of(R::UnitNotPassed).about("serial", serial),
            Self::NeverSeen(serial) => Refusal::of(R::UnitUnknown).about("serial", serial),
            Self::NotListed { serial, order } => {
                Refusal::of(R::UnitNotListed).about("serial", serial).about("order", order)
            }
            Self::OtherValue { serial, name } => {
                Refusal::of(R::UnitValues).about("serial", serial).about("value", name)
            }
            Self::Paused { order, .. } => Refusal::of(R::OrderPaused).about("order", order),
            Self::Closed { order, .. } | Self::Closing(order) => {
                Refusal::of(R::OrderClosed).about("order", order)
            }
            Self::UnitsInside { order, .. } => Refusal::of(R::OrderUnitsInside).about("order", order),
            Self::OpenUnits { order, .. } => Refusal::of(R::OrderUnitsOpen).about("order", order),
            Self::Reconciling => Refusal::of(R::StationBusy),
            Self::UnitList(error) => error.refusal(),
            Self::Signer(error) => error.refusal(),
            Self::OtherOrder { .. } => Refusal::of(R::OrderNotAsSigned),
            Self::NothingToRelease(serial) => Refusal::of(R::UnitNotHeld).about("serial", serial),
            Self::Exhausted { serial, .. } => Refusal::of(R::UnitExhausted).about("serial", serial),
            Self::NotAttested(_) => Refusal::of(R::RegistrationNotAttested),
            Self::Journal(error) => error.refusal(),
        }
    }
}

impl Refused for ChoiceError {
    fn refusal(&self) -> Refusal {
        match self {
            Self::Command(error) => error.refusal(),
            Self::Start(error) => error.refusal(),
        }
    }
}

impl Refused for HandError {
    fn refusal(&self) -> Refusal {
        use ErrorReason as R;
        match self {
            Self::Busy { nest, run } => Refusal::of(R::NestBusy).about("nest", nest).about("run", run),
            Self::OutOfOrder(nest) => Refusal::of(R::NestOutOfOrder).about("nest", nest),
            Self::Dark { nest, .. } => Refusal::of(R::NestParked).about("nest", nest),
            Self::Draining => Refusal::of(R::ShuttingDown),
            Self::Story(_) => Refusal::of(R::JournalFailed),
            Self::Journal(error) => error.refusal(),
        }
    }
}

impl Refused for ShelfError {
    fn refusal(&self) -> Refusal {
        use ErrorReason as R;
        match self {
            Self::Refused(_) => Refusal::of(R::RecipeRefused),
            Self::Uploading => Refusal::of(R::StationBusy),
            Self::Full => Refusal::of(R::RecipesFull),
            Self::Recipe(error) => error.refusal(),
            Self::FromFolder(name) | Self::Active(name) | Self::InUse { name, .. } => {
                Refusal::of(R::RecipeInUse).about("recipe", name)
            }
            Self::Command(error) => error.refusal(),
            Self::Disk { .. } => Refusal::of(R::JournalFailed),
            Self::Journal(error) => error.refusal(),
        }
    }
}

impl Refused for UnitListError {
    fn refusal(&self) -> Refusal {
        match self {
            Self::TooLong(_)
            | Self::Refused(_)
            | Self::Unreadable { .. }
            | Self::Changed(_)
            | Self::Unwritable { .. } => Refusal::of(ErrorReason::OrderListUnusable),
        }
    }
}

impl Refused for RecipeError {
    fn refusal(&self) -> Refusal {
        use ErrorReason as R;
        match self {
            Self::Unknown(recipe) => Refusal::of(R::RecipeUnknown).about("recipe", recipe),
            Self::NotHeld { name, .. } => Refusal::of(R::RecipeNotHeld).about("recipe", name),
            Self::NoneActive(recipe) => Refusal::of(R::RecipeUnusable).about("recipe", recipe),
            Self::Broken { name, .. } => Refusal::of(R::RecipeUnusable).about("recipe", name),
            Self::Unreadable { .. } | Self::FileName { .. } | Self::Refused(_) => {
                Refusal::of(R::RecipeUnusable)
            }
        }
    }
}

impl Refused for SignerError {
    fn refusal(&self) -> Refusal {
        use ErrorReason as R;
        match self {
            Self::Unreachable { .. } => Refusal::of(R::SignerUnreachable),
            Self::TooMuch(_) => Refusal::of(R::SignerBusy),
            Self::Refused(_) | Self::Strange(_) => Refusal::of(R::SignerRefused),
            Self::OtherHead { .. } => Refusal::of(R::SignerOtherLog),
        }
    }
}

impl Refused for CommandError {
    fn refusal(&self) -> Refusal {
        match self {
            Self::Reused { id, .. } => Refusal::of(ErrorReason::CommandIdReused).about("command", id),
            Self::Journal(error) => error.refusal(),
        }
    }
}

impl Refused for JournalError {
    fn refusal(&self) -> Refusal {
        use ErrorReason as R;
        Refusal::of(match self {
            Self::Full { .. } => R::JournalFull,
            Self::Damaged { .. } | Self::Lost { .. } | Self::Decode { .. } | Self::Newer { .. } => {
                R::JournalDamaged
            }
            // A segment was taken away, most likely to an archive elsewhere.
            Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => R::JournalDamaged,
            Self::Closed => R::ShuttingDown,
            Self::Io { .. }
            | Self::Locked { .. }
            | Self::TooLarge { .. }
            | Self::Encode { .. }
            | Self::Poisoned { .. }
            | Self::Index { .. }
            | Self::AheadOfLog { .. }
            | Self::Nothing { .. }
            | Self::Occupied { .. }
            | Self::BadExport { .. } => R::JournalFailed,
        })
    }
}

/// At most so many bytes of a text, whole characters.
fn cut(text: &str, longest: usize) -> String {
    if text.len() <= longest {
        return text.to_owned();
    }
    // Of characters of up to four bytes each.
    let end = (0..=longest - 3).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
    format!("{}…", &text[..end])
}

#[cfg(test)]
mod tests;
