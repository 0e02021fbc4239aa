//! What may be done to a unit, and how each step is done: deadline, retry, span, event and record, once.
//!
//! A step itself knows nothing of these. It says what it found, or what is wrong.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    str::FromStr,
    sync::{Arc, OnceLock},
    time::SystemTime,
};

use factory_fixtures::{
    console::Console,
    fault::{Fault, FaultKind},
    fcc::FccError,
    tag::ndef::NdefError,
};
use factory_journal::{Journal, JournalError};
use factory_proto::outcome::Outcome;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, info, info_span, warn};

use crate::{
    events::{Events, What},
    recipe::Recipe,
    record::{Findings, Record, RunOpened, StepEnded, StepStarted, Stopped},
    rig::Rig,
    signer::{Signer, SignerError},
};

mod boot;
mod flash;
mod identity;
mod provision;
mod self_test;
mod tag;

/// The name under which the device keeps the key that it makes.
pub(crate) const DEVICE_KEY: &str = "mbed.BootstrapDevicePrivateKey";

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
    Harmless,
    /// It counts once; whether it was done can be looked up.
    OnceCheckable,
    /// It cannot be taken back.
    Irreversible,
}

impl Step {
    /// All of them, in their order.
    pub const ALL: [Step; 6] =
        [Step::Flash, Step::Boot, Step::SelfTest, Step::Identity, Step::Provision, Step::Tag];

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
            Self::Flash | Self::Boot | Self::SelfTest => Repeat::Harmless,
            Self::Identity | Self::Tag => Repeat::OnceCheckable,
            Self::Provision => Repeat::Irreversible,
        }
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
    /// Who signs.
    pub signer: &'a Signer,
    /// The truth.
    pub journal: &'a Journal<Record>,
    /// Who watches.
    pub events: &'a Events,
    /// What was found out so far.
    pub findings: Findings,
}

impl StepContext<'_> {
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
    /// The recipe or the station cannot do this.
    #[error("{0}")]
    Station(String),
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
            // The line was lost, or we spoke out of turn: neither is the device's fault.
            Self::Fcc(FccError::Link(_) | FccError::Closed | FccError::OutOfTurn(_)) => Outcome::Error,
            Self::Product(_) | Self::Fcc(_) => Outcome::Fail,
            Self::Fault(fault) if fault.kind() == FaultKind::Product => Outcome::Fail,
            Self::Fault(_)
            | Self::Signer(_)
            | Self::Ndef(_)
            | Self::Station(_)
            | Self::Journal(_)
            | Self::Order(_) => Outcome::Error,
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

    fn ended(&self, step: Step, place: &str) -> Ended {
        let reason = self.reason.get().map_or("no reason given", String::as_str);
        let reason = format!("stopped {place} {step}: {reason}");
        Ended { outcome: Outcome::Aborted, stopped: Stopped { step: Some(step), reason } }
    }
}

/// Takes a unit through one step.
///
/// The step is journalled before it begins. Its deadline is the recipe's; when that passes, or when an abort
/// comes in a step that may be broken off, its future is dropped, and with it the instrument's process that
/// it waited for.
pub async fn perform(step: Step, ctx: &mut StepContext<'_>, stop: &Stop) -> Result<(), Ended> {
    let span = info_span!("step", step = step.name());
    async {
        let started = SystemTime::now();
        let ended = attempts(step, ctx, stop).await;
        let outcome = ended.as_ref().err().map_or(Outcome::Pass, |ended| ended.outcome);
        ctx.findings.steps.push(StepEnded { step, started, ended: SystemTime::now(), outcome });
        ctx.events.tell(ctx.run, What::StepEnded(step, outcome));
        match &ended {
            Ok(()) => info!(elapsed = ?started.elapsed().unwrap_or_default(), "step passed"),
            Err(ended) => warn!(%outcome, reason = ended.stopped.reason, "step did not pass"),
        }
        ended
    }
    .instrument(span)
    .await
}

async fn attempts(step: Step, ctx: &mut StepContext<'_>, stop: &Stop) -> Result<(), Ended> {
    let ended = |outcome, reason: String| Ended { outcome, stopped: Stopped { step: Some(step), reason } };
    if stop.abort.is_cancelled() {
        return Err(stop.ended(step, "before"));
    }
    let begun = Record::StepStarted(StepStarted { run: ctx.run.run, step });
    if let Err(error) = ctx.journal.append(begun).await {
        return Err(ended(Outcome::Error, explain(&StepError::Journal(error))));
    }
    ctx.events.tell(ctx.run, What::StepStarted(step));

    let deadline = ctx.recipe.deadline(step);
    let mut left = if step.repeat() == Repeat::Harmless { ctx.recipe.attempts.get() } else { 1 };
    loop {
        left -= 1;
        let broken_off = async {
            match step.repeat() {
                Repeat::Harmless => stop.abort.cancelled().await,
                Repeat::OnceCheckable | Repeat::Irreversible => stop.now.cancelled().await,
            }
        };
        let done = tokio::select! {
            done = timeout(deadline, act(step, ctx)) => done,
            () = broken_off => return Err(stop.ended(step, "in")),
        };
        match done {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) if left > 0 && error.is_transient() => {
                warn!(left, reason = explain(&error), "tried again with a fresh instrument");
            }
            Ok(Err(error)) => return Err(ended(error.outcome(), explain(&error))),
            Err(_) => {
                let reason = format!("did not end within {}", humantime::format_duration(deadline));
                return Err(ended(Outcome::Timeout, reason));
            }
        }
    }
}

fn act<'a>(
    step: Step,
    ctx: &'a mut StepContext<'_>,
) -> Pin<Box<dyn Future<Output = Result<(), StepError>> + Send + 'a>> {
    match step {
        Step::Flash => Box::pin(flash::flash(ctx)),
        Step::Boot => Box::pin(boot::boot(ctx)),
        Step::SelfTest => Box::pin(self_test::self_test(ctx)),
        Step::Identity => Box::pin(identity::identity(ctx)),
        Step::Provision => Box::pin(provision::provision(ctx)),
        Step::Tag => Box::pin(tag::tag(ctx)),
    }
}

fn explain(error: &StepError) -> String {
    factory_fixtures::fault::chain(error)
}
