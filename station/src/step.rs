//! What may be done to a unit, and how each step is done: deadline, retry, span, event and record, once.
//!
//! A step itself knows nothing of these. It says what it found, or what is wrong.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    str::FromStr,
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};

use factory_fixtures::{
    console::Console,
    fault::{Fault, FaultKind},
    fcc::FccError,
    tag::ndef::NdefError,
};
use factory_journal::{Journal, JournalError, Sequence};
use factory_proto::{ids::OrderId, outcome::Outcome};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, info, info_span, warn};

use crate::{
    events::{Events, What},
    recipe::{
        Recipe, UnitError,
        bundle::{Credentials, CredentialsError},
        template::Unit,
    },
    record::{Findings, Record, RunOpened, StepEnded, StepPassed, StepStarted, Stopped},
    rig::Rig,
    signer::{Signer, SignerError},
    units::Units,
};

mod boot;
mod factory;
mod flash;
mod identity;
pub(crate) mod look;
mod provision;
mod self_test;
mod tag;

pub(crate) use factory::Factory;
pub(crate) use flash::chip;

/// The steps, in the order in which a unit goes through them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// The firmware goes into flash.
    Flash,
    /// The firmware starts and says who it is.
    Boot,
    /// The firmware measures, the recipe judges.
    SelfTest,
    /// The device makes a key and gets its certificate.
    Identity,
    /// The device gets its bundle, checks it, and closes its factory code.
    Provision,
    /// The tag gets the enrolment id.
    Tag,
}

/// What repeating a step would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// It may be done again at any time, and broken off.
    Repeatable,
    /// It counts once; whether it was done can be looked up.
    OnceCheckable,
    /// It cannot be taken back.
    Irreversible,
}

impl Step {
    /// All of them, in their order.
    pub const ALL: [Step; 6] =
        [Step::Flash, Step::Boot, Step::SelfTest, Step::Identity, Step::Provision, Step::Tag];

    /// The step after those up to `done`; `None` when there is none left.
    pub fn following(done: Option<Self>) -> Option<Self> {
        let next = done.map_or(0, |done| done as usize + 1);
        Self::ALL.get(next).copied()
    }

    /// Its name in recipes, records and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Flash => "flash",
            Self::Boot => "boot",
            Self::SelfTest => "self-test",
            Self::Identity => "identity",
            Self::Provision => "provision",
            Self::Tag => "tag",
        }
    }

    /// What repeating it would do.
    pub fn repeat(self) -> Repeat {
        match self {
            Self::Flash | Self::Boot | Self::SelfTest => Repeat::Repeatable,
            Self::Identity | Self::Tag => Repeat::OnceCheckable,
            Self::Provision => Repeat::Irreversible,
        }
    }

    /// Whether it needs a board and the fixture alone, and gives the board nothing of its own.
    pub fn proves_the_fixture(self) -> bool {
        matches!(self, Self::Flash | Self::Boot | Self::SelfTest)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Step {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|step| step.name() == text)
            .ok_or_else(|| format!("no step is called {text:?}"))
    }
}

/// All that a step may use.
pub struct StepContext<'a> {
    /// The unit's run.
    pub run: &'a RunOpened,
    /// What its product needs.
    pub recipe: &'a Recipe,
    /// The instruments of its nest.
    pub rig: &'a mut Rig,
    /// The unit's serial line, from boot on.
    pub console: Option<Console>,
    /// The conversation with its factory code, while that runs.
    pub(crate) factory: Option<Factory>,
    /// What the unit has been given for itself, until it is in the device.
    pub(crate) credentials: Option<Credentials>,
    /// Who signs.
    pub signer: &'a Signer,
    /// The truth.
    pub journal: &'a Journal<Record>,
    /// What the truth says of this and earlier runs.
    pub units: &'a Units,
    /// Who watches.
    pub events: &'a Events,
    /// What was found out so far.
    pub findings: Findings,
    /// The step that passed last, until that is journalled: it goes out with the next record.
    pub passed: Option<Step>,
}

impl<'a> StepContext<'a> {
    /// Makes a record durable, and with it, before it, that the last step passed.
    pub(crate) async fn journal(&mut self, record: Record) -> Result<Sequence, JournalError> {
        let run = self.run.run;
        let passed = self.passed.take().map(|step| {
            let findings = self.findings.clone();
            Record::StepPassed(Box::new(StepPassed { run, step, findings }))
        });
        self.journal.append_all(passed.into_iter().chain([record]).collect()).await
    }

    /// What differs from unit to unit of an order.
    pub(crate) fn unit(&self) -> Result<Unit<'a>, StepError> {
        let order = self.order()?;
        let (product, serial, values) = (&self.recipe.name, &self.run.serial, &self.run.values);
        Ok(Unit { product, order, serial, values })
    }

    /// The unit's order. A golden unit has none, and gets nothing that needs one.
    pub(crate) fn order(&self) -> Result<&'a OrderId, StepError> {
        let none = || StepError::Station("a unit that belongs to no order gets no identity".to_owned());
        self.run.order.as_ref().ok_or_else(none)
    }

    /// The serial line of a unit that was booted.
    pub(crate) fn console(&mut self) -> Result<&mut Console, StepError> {
        self.console.as_mut().ok_or(StepError::Order("boot"))
    }
}

/// Why a step did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The unit is not what it should be.
    #[error("{0}")]
    Product(String),
    /// An instrument could not do its part.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The device's factory code did not do what it should.
    #[error(transparent)]
    Fcc(#[from] FccError),
    /// No certificate.
    #[error(transparent)]
    Signer(#[from] SignerError),
    /// The recipe's tag cannot say this.
    #[error("the tag's message cannot be made")]
    Ndef(#[from] NdefError),
    /// The unit's own values do not do.
    #[error(transparent)]
    Unit(#[from] UnitError),
    /// The unit's credentials cannot be had.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The recipe or the station cannot do this.
    #[error("{0}")]
    Station(String),
    /// What is true of the unit cannot be established.
    #[error("{0}")]
    Unknown(String),
    /// Nothing more can be made durable.
    #[error("the journal took nothing more")]
    Journal(#[from] JournalError),
    /// Steps in another order than they were written for.
    #[error("this step comes after {0}, which was not done")]
    Order(&'static str),
}

impl StepError {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Fcc(FccError::Late(_)) => Outcome::Timeout,
            // The line was lost, or we spoke badly or out of turn: neither is the device's fault.
            Self::Fcc(
                FccError::Link(_)
                | FccError::Closed
                | FccError::OutOfTurn(_)
                | FccError::Unsendable(_)
                | FccError::Unreachable { .. },
            ) => Outcome::Error,
            Self::Product(_) | Self::Fcc(_) => Outcome::Fail,
            Self::Fault(fault) if fault.kind() == FaultKind::Product => Outcome::Fail,
            Self::Fault(_)
            | Self::Signer(_)
            | Self::Ndef(_)
            | Self::Unit(_)
            | Self::Credentials(_)
            | Self::Station(_)
            | Self::Unknown(_)
            | Self::Journal(_)
            | Self::Order(_) => Outcome::Error,
        }
    }

    /// What is known of the unit after this error, whatever the step.
    fn aftermath(&self) -> Option<Aftermath> {
        match self {
            Self::Unknown(_) => Some(Aftermath::Unknown),
            // What the device itself refused, or was never asked for, it did not do.
            Self::Fcc(FccError::Refused { .. } | FccError::Unsendable(_))
            | Self::Order(_)
            | Self::Unit(_)
            | Self::Credentials(_)
            | Self::Station(_) => Some(Aftermath::Known),
            _ => None,
        }
    }

    /// Whether the same may go well with a fresh instrument.
    fn is_transient(&self) -> bool {
        matches!(self, Self::Fault(fault) if fault.kind() == FaultKind::Instrument)
    }
}

/// How a run ended before its last step did.
#[derive(Debug)]
pub struct Ended {
    /// Never `PASS`.
    pub outcome: Outcome,
    /// Where and why.
    pub stopped: Stopped,
    /// What is known of the unit then.
    pub aftermath: Aftermath,
}

/// What is known of a unit whose run ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aftermath {
    /// Enough: it may be started again.
    Known,
    /// It may have been changed for good; looking at it may tell.
    Unsettled,
    /// Not enough, and looking does not help.
    Unknown,
}

/// How a run is ended from outside.
#[derive(Clone, Default)]
pub struct Stop {
    abort: CancellationToken,
    now: CancellationToken,
    reason: Arc<OnceLock<String>>,
}

impl Stop {
    /// At the next safe place. The first reason counts.
    pub fn abort(&self, reason: &str) {
        self.reason.get_or_init(|| reason.to_owned());
        self.abort.cancel();
    }

    /// At once, whatever the step does: the station's time is up.
    pub fn now(&self) {
        self.abort("the station was shut down");
        self.now.cancel();
    }

    /// Whether the station's time is up.
    pub fn is_now(&self) -> bool {
        self.now.is_cancelled()
    }

    fn ended(&self, step: Step, place: &str, aftermath: Aftermath) -> Ended {
        let reason = self.reason.get().map_or("no reason given", String::as_str);
        let reason = format!("stopped {place} {step}: {reason}");
        Ended { outcome: Outcome::Aborted, stopped: Stopped { step: Some(step), reason }, aftermath }
    }
}

/// What an act on a unit is bounded by.
pub(crate) struct Bounds {
    /// For whose sake it is done.
    pub step: Step,
    /// How long one attempt may take.
    pub deadline: Duration,
    /// How often it is tried when an instrument fails.
    pub attempts: u8,
    /// Decides whether an abort may break it off.
    pub repeat: Repeat,
}

/// Something that is done to a unit.
pub(crate) type Act<T> = for<'a, 'b> fn(
    &'a mut StepContext<'b>,
) -> Pin<Box<dyn Future<Output = Result<T, StepError>> + Send + 'a>>;

/// Takes a unit through one step.
///
/// The step is journalled before it begins. Its deadline is the recipe's; when that passes, or when an abort
/// comes in a step that may be broken off, its future is dropped, and with it the instrument's process that
/// it waited for.
pub async fn perform(step: Step, ctx: &mut StepContext<'_>, stop: &Stop) -> Result<(), Ended> {
    let span = info_span!("step", step = step.name());
    async {
        let started = SystemTime::now();
        let ended = begin(step, ctx, stop).await;
        let outcome = ended.as_ref().err().map_or(Outcome::Pass, |ended| ended.outcome);
        ctx.findings.steps.push(StepEnded { step, started, ended: SystemTime::now(), outcome });
        match &ended {
            Ok(()) => {
                ctx.passed = Some(step);
                info!(elapsed = ?started.elapsed().unwrap_or_default(), "step passed");
            }
            Err(ended) => {
                ctx.events.tell(ctx.run, What::StepStopped(step, outcome));
                warn!(%outcome, reason = ended.stopped.reason, "step did not pass");
            }
        }
        ended
    }
    .instrument(span)
    .await
}

async fn begin(step: Step, ctx: &mut StepContext<'_>, stop: &Stop) -> Result<(), Ended> {
    if stop.abort.is_cancelled() {
        return Err(stop.ended(step, "before", Aftermath::Known));
    }
    let begun = Record::StepStarted(StepStarted { run: ctx.run.run, step });
    if let Err(error) = ctx.journal(begun).await {
        return Err(failed(step, &StepError::Journal(error), Aftermath::Known));
    }
    let repeat = step.repeat();
    // The tag is read before it is written, each time.
    let again = repeat == Repeat::Repeatable || step == Step::Tag;
    let attempts = if again { ctx.recipe.attempts.get() } else { 1 };
    let bounds = Bounds { step, deadline: ctx.recipe.deadline(step), attempts, repeat };
    bounded(&bounds, ctx, stop, act(step)).await
}

/// Does something to a unit: within its deadline, as often as it may be tried.
pub(crate) async fn bounded<T>(
    bounds: &Bounds,
    ctx: &mut StepContext<'_>,
    stop: &Stop,
    act: Act<T>,
) -> Result<T, Ended> {
    let Bounds { step, deadline, attempts, repeat } = *bounds;
    let aftermath = if repeat == Repeat::Irreversible { Aftermath::Unsettled } else { Aftermath::Known };
    let mut left = attempts;
    loop {
        left -= 1;
        let broken_off = async {
            match repeat {
                Repeat::Repeatable => stop.abort.cancelled().await,
                Repeat::OnceCheckable | Repeat::Irreversible => stop.now.cancelled().await,
            }
        };
        let done = tokio::select! {
            done = timeout(deadline, act(ctx)) => done,
            () = broken_off => return Err(stop.ended(step, "in", aftermath)),
        };
        match done {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(error)) if left > 0 && error.is_transient() => {
                warn!(left, reason = explain(&error), "tried again with a fresh instrument");
            }
            Ok(Err(error)) => return Err(failed(step, &error, error.aftermath().unwrap_or(aftermath))),
            Err(_) => {
                let reason = format!("did not end within {}", humantime::format_duration(deadline));
                let stopped = Stopped { step: Some(step), reason };
                return Err(Ended { outcome: Outcome::Timeout, stopped, aftermath });
            }
        }
    }
}

/// How a run ends by an error.
pub(crate) fn failed(step: Step, error: &StepError, aftermath: Aftermath) -> Ended {
    let stopped = Stopped { step: Some(step), reason: explain(error) };
    Ended { outcome: error.outcome(), stopped, aftermath }
}

fn act(step: Step) -> Act<()> {
    match step {
        Step::Flash => |ctx| Box::pin(flash::flash(ctx)),
        Step::Boot => |ctx| Box::pin(boot::boot(ctx)),
        Step::SelfTest => |ctx| Box::pin(self_test::self_test(ctx)),
        Step::Identity => |ctx| Box::pin(identity::identity(ctx)),
        Step::Provision => |ctx| Box::pin(provision::provision(ctx)),
        Step::Tag => |ctx| Box::pin(tag::tag(ctx)),
    }
}

fn explain(error: &StepError) -> String {
    factory_fixtures::fault::chain(error)
}
