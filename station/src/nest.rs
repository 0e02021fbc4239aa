//! One task per nest: its mailbox. Owns the nest's instruments while it is free, lends them to the worker
//! while a unit is in it, and takes none while one of them does not answer. Knows nothing of gRPC.

use std::{
    mem,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Instant, SystemTime},
};

use factory_journal::{Journal, JournalError};
use factory_proto::ids::{NestName, OrderId, Serial};
use tokio::{
    sync::{mpsc, oneshot},
    task::{JoinError, JoinHandle},
};
use tokio_util::task::TaskTracker;

use crate::{
    attestations::Attestations,
    books::OpenRun,
    claims::ClaimError,
    commands::{Commands, Turn},
    config::NestSettings,
    events::{Events, What},
    golden::{Golden, GoldenError, Standing},
    health,
    line::{Line, budget::Exhausted},
    orders::{HeldOpen, OrderError, Orders, Place},
    pack::Pack,
    phase::Phase,
    recipe::{
        Recipe, RecipeError, Recipes, UnitError,
        bundle::CredentialsError,
        template::{Unit, Values},
    },
    record::{AbortAsked, AllowedBy, Findings, NestCommanded, NestLeftPack, Record, RunId, RunOpened},
    results::Backlog,
    rig::Rig,
    signer::Signer,
    step::Stop,
    units::Units,
};
use ask::{Asking, Candidate, Reply};
use check::{Check, Health};

mod ask;
mod check;
pub mod choice;
mod golden;
mod hand;
mod leave;
mod left;
mod parking;
mod resume;
mod worker;

pub use hand::HandError;
pub use left::Left;

/// What all nests share.
#[derive(Clone)]
pub struct Shared {
    /// The truth.
    pub journal: Arc<Journal<Record>>,
    /// What the truth says of runs.
    pub units: Units,
    /// The open orders.
    pub orders: Orders,
    /// Which CAs are registered where.
    pub attestations: Attestations,
    /// Which units are golden, and what they have shown.
    pub golden: Golden,
    /// The commands that were carried out.
    pub commands: Commands,
    /// What products need.
    pub recipes: Arc<Recipes>,
    /// Who signs.
    pub signer: Signer,
    /// Who watches.
    pub events: Events,
    /// What waits for the controller.
    pub backlog: Backlog,
    /// Who lets units start.
    pub line: Line,
    /// Which nests fail more than others.
    pub pack: Pack,
}

/// A unit is to be started in a nest.
pub struct Start {
    /// The right to carry the command out.
    pub turn: Turn,
    /// The run, which follows from the command.
    pub run: RunId,
    /// Which board.
    pub serial: Serial,
    /// What for.
    pub purpose: Purpose,
}

/// What a unit is started for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    /// It becomes a product.
    Product {
        /// For which order.
        order: OrderId,
        /// What it is given for itself, beside what its order's list says.
        values: Values,
    },
    /// It proves the nest, being a golden unit.
    Golden,
}

/// Why a unit is not started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// One at a time.
    #[error("nest {nest} is busy with run {run}; wait until it is closed")]
    Busy {
        /// Which nest.
        nest: NestName,
        /// What is in it.
        run: RunId,
    },
    /// The same command with other contents.
    #[error("this command id started another unit, or in another nest; a new command needs a new id")]
    Reused,
    /// It broke down.
    #[error("nest {0} is out of order; its log says why; clear the nest, or restart the station")]
    OutOfOrder(NestName),
    /// Somebody has parked it.
    #[error("nest {nest} was parked by {by}: {reason}; enable it first")]
    ByHand {
        /// Which nest.
        nest: NestName,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// It fails more than it should.
    #[error("nest {nest} is parked: {reason}")]
    LeftPack {
        /// Which nest.
        nest: NestName,
        /// The figures, and what to do.
        reason: String,
    },
    /// No nest takes it.
    #[error("no nest takes a unit: {0}")]
    NoneFree(String),
    /// It must have a golden unit first.
    #[error("nest {nest} must have a golden unit first: {reason}")]
    GoldenDue {
        /// Which nest.
        nest: NestName,
        /// Why, and what to do.
        reason: String,
    },
    /// All nests must.
    #[error("every nest must have a golden unit first: {0}")]
    NoneProven(String),
    /// It is golden and should not be, or the other way round.
    #[error(transparent)]
    Golden(#[from] GoldenError),
    /// An instrument of it does not answer.
    #[error("nest {nest} is parked: {reason}; it comes back by itself when its instruments answer")]
    Parked {
        /// Which nest.
        nest: NestName,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// The journal's disk is full, or fails.
    #[error("{0}")]
    NoRoom(String),
    /// The station goes down.
    #[error("the station is shutting down; start the unit when it is up again")]
    Draining,
    /// The order does not take it.
    #[error(transparent)]
    Order(#[from] OrderError),
    /// The recipe cannot be used.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// The unit's own values do not do.
    #[error(transparent)]
    Unit(#[from] UnitError),
    /// What should lie ready for the unit does not.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// It would have what is another unit's.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// The line's controller says no.
    #[error(
        "the line's controller at {controller} refused unit {serial}: {}; when that is seen to, start it again",
        reasons.join("; ")
    )]
    Refused {
        /// Which unit.
        serial: Serial,
        /// The controller's address.
        controller: String,
        /// Its reasons.
        reasons: Vec<String>,
    },
    /// The line's controller is never asked.
    #[error(
        "the line's controller at {controller} does not serve ValidateUnit, and without its leave no unit starts here: \
         update it, or set `interlock.demanded = false` in the station file if units of this line need no leave"
    )]
    NotServed {
        /// Its address.
        controller: String,
    },
    /// Nobody can say yes.
    #[error("no controller of the line answers ({away}), and {exhausted}")]
    NoLeave {
        /// Of each controller why not.
        away: String,
        /// Why the station may not start it on its own.
        exhausted: Exhausted,
    },
    /// Somebody aborted it while the controller was asked; for good.
    #[error(
        "the start was aborted before the line's controller had answered: {0}; to start the unit all the same takes a new \
         command id"
    )]
    Aborted(String),
    /// Nothing more can be made durable.
    #[error("the journal took nothing more")]
    Journal(#[from] JournalError),
}

enum Mail {
    Start(Start, Reply),
    Abort(Turn, RunId, String, oneshot::Sender<Result<(), JournalError>>),
    Look(oneshot::Sender<Look>),
    Hand(Turn, NestCommanded, oneshot::Sender<Result<Look, HandError>>),
    Drain,
    StopNow,
}

/// A nest, looked at.
#[derive(Debug, Clone, Default)]
pub struct Look {
    /// The run that is in it.
    pub run: Option<RunId>,
    /// Why it takes no units: who has parked it, that it fails more than it should, or which of its instruments does not
    /// answer; and what to do.
    pub parked: Option<String>,
    /// How somebody has parked it.
    pub by_hand: Option<NestCommanded>,
    /// How it has left the pack.
    pub left_pack: Option<NestLeftPack>,
    /// How it stands to its golden unit.
    pub golden: Standing,
    /// Whether its instruments are at work on a unit.
    pub at_work: bool,
    /// Since when it is free; absent while a run is in it or its instruments are asked.
    pub free_since: Option<Instant>,
}

impl Look {
    /// What it would tell of its state.
    pub fn state(self) -> What {
        match self.parked {
            Some(reason) if !self.at_work => What::Parked { reason },
            _ => What::Nest { busy: self.run.is_some() },
        }
    }
}

/// A nest's address.
#[derive(Clone)]
pub struct Nest {
    name: NestName,
    mailbox: mpsc::Sender<Mail>,
}

impl Nest {
    /// Sets up a nest; its task ends after [`Nest::drain`]. A run that was `left` in it is ended before it takes
    /// another unit.
    pub fn open(
        settings: &NestSettings,
        program: &Path,
        shared: Shared,
        left: Option<Left>,
        by_hand: Option<NestCommanded>,
        left_pack: Option<NestLeftPack>,
        tasks: &TaskTracker,
    ) -> Self {
        let (mailbox, mail) = mpsc::channel(16);
        let name = settings.name.clone();
        let run = left.as_ref().map(|left| left.open.run.run);
        let mut keeper = Keeper {
            name: name.clone(),
            settings: settings.clone(),
            program: program.to_owned(),
            shared,
            state: State::Free(Box::new(Rig::new(settings, program))),
            health: Health::default(),
            by_hand,
            left_pack,
            left,
            free_since: Instant::now(),
            draining: false,
        };
        keeper.check(run);
        tasks.spawn(keeper.keep(mail));
        Self { name, mailbox }
    }

    /// Its name.
    pub fn name(&self) -> &NestName {
        &self.name
    }

    /// Starts a unit. When this returns, the run is durably accepted.
    pub async fn start(&self, start: Start) -> Result<RunId, StartError> {
        self.ask(|reply| Mail::Start(start, reply)).await.unwrap_or(Err(StartError::Draining))
    }

    /// Asks a run to stop at the next safe place, durably: after a crash it is not gone on with. Nothing happens when it is
    /// not in this nest any more.
    ///
    /// # Errors
    /// That it was asked for is not durable.
    pub async fn abort(&self, turn: Turn, run: RunId, reason: String) -> Result<(), JournalError> {
        let asked = self.ask(|reply| Mail::Abort(turn, run, reason, reply)).await;
        asked.unwrap_or(Err(JournalError::Closed))
    }

    /// What is in the nest, and whether it is parked.
    pub async fn look(&self) -> Look {
        self.ask(Mail::Look).await.unwrap_or_default()
    }

    /// Does by hand what the command says, durably; gives what the nest is like then.
    ///
    /// # Errors
    /// It cannot be done now, and nothing was changed; or the lamp does not blink.
    pub async fn command(&self, turn: Turn, command: NestCommanded) -> Result<Look, HandError> {
        self.ask(|reply| Mail::Hand(turn, command, reply)).await.unwrap_or(Err(HandError::Draining))
    }

    /// Takes no more units, and ends when the nest is empty.
    pub async fn drain(&self) {
        // A nest that is gone already is drained.
        let _ = self.mailbox.send(Mail::Drain).await;
    }

    /// Breaks off what is in the nest.
    pub async fn stop_now(&self) {
        let _ = self.mailbox.send(Mail::StopNow).await;
    }

    async fn ask<T>(&self, mail: impl FnOnce(oneshot::Sender<T>) -> Mail) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.mailbox.send(mail(reply)).await.ok()?;
        answer.await.ok()
    }
}

enum State {
    // Or parked, as its health says.
    Free(Box<Rig>),
    Checking(Check),
    // A unit waits for the controller's leave.
    Asking(Box<Asking>),
    // The instruments change hands, or were lost with a worker that panicked in this run.
    OutOfOrder(Option<RunId>),
    Busy { run: RunOpened, stop: Stop, work: JoinHandle<Box<Rig>> },
}

struct Keeper {
    name: NestName,
    settings: NestSettings,
    program: PathBuf,
    shared: Shared,
    state: State,
    health: Health,
    /// How somebody has parked it.
    by_hand: Option<NestCommanded>,
    /// How it has left the pack.
    left_pack: Option<NestLeftPack>,
    /// When the last unit left it.
    free_since: Instant,
    /// Waits for the instruments to answer.
    left: Option<Left>,
    draining: bool,
}

impl Keeper {
    async fn keep(mut self, mut mail: mpsc::Receiver<Mail>) {
        self.leave().await;
        loop {
            match &mut self.state {
                State::Free(_) | State::OutOfOrder(_) | State::Checking(_) if self.draining => return,
                State::OutOfOrder(_) => match mail.recv().await {
                    Some(mail) => self.read(mail).await,
                    None => return,
                },
                State::Free(_) => tokio::select! {
                    mail = mail.recv() => match mail {
                        Some(mail) => self.read(mail).await,
                        None => return,
                    },
                    () = self.health.due() => self.check(None),
                },
                State::Checking(check) => tokio::select! {
                    checked = check.done() => self.checked(checked).await,
                    Some(mail) = mail.recv() => self.read(mail).await,
                },
                State::Asking(_) if self.draining => self.break_off(StartError::Draining),
                State::Asking(asking) => tokio::select! {
                    answer = asking.done() => match answer {
                        Some(answer) => self.answered(answer).await,
                        None => self.break_off(StartError::Draining),
                    },
                    Some(mail) = mail.recv() => self.read(mail).await,
                },
                State::Busy { run, work, .. } => tokio::select! {
                    rig = work => match rig {
                        Ok(rig) => {
                            let run = run.clone();
                            self.leave().await;
                            self.empty(&run, rig);
                        }
                        Err(error) => self.break_down(&error),
                    },
                    Some(mail) = mail.recv() => self.read(mail).await,
                },
            }
        }
    }

    /// The worker panicked: a defect. What it did to the instruments nobody knows, and its run stays open in
    /// the journal, for recovery to close.
    fn break_down(&mut self, error: &JoinError) {
        tracing::error!(nest = %self.name, %error, "nest is out of order until it is cleared, or the station restarts");
        let lost = if let State::Busy { run, .. } = &self.state { Some(run.run) } else { None };
        self.state = State::OutOfOrder(lost);
    }

    /// Why it takes no units.
    fn parked(&self) -> Option<String> {
        let by_hand =
            self.by_hand.as_ref().map(|it| format!("parked by {}: {}; enable it", it.by, it.reason));
        let left_pack = self.left_pack.as_ref().map(ToString::to_string);
        let broken = matches!(self.state, State::OutOfOrder(_)).then(|| {
            "it is out of order; its log says why; clear the nest, or restart the station".to_owned()
        });
        let reasons: Vec<String> = [by_hand, left_pack, broken, self.health.parked().map(str::to_owned)]
            .into_iter()
            .flatten()
            .collect();
        (!reasons.is_empty()).then(|| reasons.join("; and "))
    }

    fn look(&self) -> Look {
        let run = match &self.state {
            State::Free(_) => self.left.as_ref().map(|left| left.open.run.run),
            State::OutOfOrder(lost) => lost.or(self.left.as_ref().map(|left| left.open.run.run)),
            State::Checking(check) => check.left,
            State::Asking(asking) => Some(asking.candidate.run.run),
            State::Busy { run, .. } => Some(run.run),
        };
        let is_free = matches!(self.state, State::Free(_)) && run.is_none();
        Look {
            run,
            parked: self.parked(),
            by_hand: self.by_hand.clone(),
            left_pack: self.left_pack.clone(),
            golden: self.shared.golden.standing(&self.name, SystemTime::now()),
            at_work: matches!(self.state, State::Busy { .. }),
            free_since: is_free.then_some(self.free_since),
        }
    }

    // An asker that went away does not want the answer.
    async fn read(&mut self, mail: Mail) {
        match mail {
            Mail::Start(start, reply) => self.start(start, reply).await,
            Mail::Abort(turn, run, reason, reply) => drop(reply.send(self.abort(turn, run, reason).await)),
            Mail::Look(reply) => drop(reply.send(self.look())),
            Mail::Hand(turn, command, reply) => self.by_hand(turn, command, reply).await,
            Mail::Drain => self.draining = true,
            Mail::StopNow => {
                if let State::Busy { stop, .. } = &self.state {
                    stop.now();
                }
            }
        }
    }

    /// Makes durable that a run is to stop, and has it stop; also where the journal takes nothing.
    async fn abort(&mut self, turn: Turn, wanted: RunId, reason: String) -> Result<(), JournalError> {
        let inside = match &self.state {
            State::Busy { run, .. } => Some(run),
            State::Asking(asking) => Some(&asking.candidate.run),
            State::Free(_) | State::Checking(_) | State::OutOfOrder(_) => {
                self.left.as_ref().map(|left| &left.open.run)
            }
        };
        let Some(RunOpened { order, serial, nest, .. }) = inside.filter(|run| run.run == wanted) else {
            return turn.commit(None).await.map(drop);
        };
        let (order, serial, nest) = (order.clone(), serial.clone(), nest.clone());
        let (reason_kept, time) = (reason.clone(), SystemTime::now());
        let asked = AbortAsked { run: wanted, order, serial, nest, reason: reason_kept, time };
        let durable = turn.commit(Some(Record::AbortAsked(asked))).await;
        match (&self.state, &mut self.left) {
            (State::Busy { stop, .. }, _) => stop.abort(&reason),
            (State::Asking(_), _) => self.break_off(StartError::Aborted(reason)),
            // It stops when its instruments answer.
            (_, Some(left)) => drop(left.open.aborted.get_or_insert(reason)),
            (_, None) => {}
        }
        durable.map(drop)
    }

    /// Starts a unit, unless whoever wanted it has gone: then nothing is made durable that nobody is told of. Who goes only
    /// later asks again, with the same command.
    async fn start(&mut self, start: Start, reply: Reply) {
        if reply.is_closed() {
            return;
        }
        if let State::Checking(check) = &mut self.state
            && self.health.parked().is_none()
            && self.by_hand.is_none()
            && self.left_pack.is_none()
        {
            return check.wait(start, reply);
        }
        match self.known(&start).await.transpose() {
            Some(known) => ask::answer(reply, known),
            None => self.begin(start, reply).await,
        }
    }

    /// The run of a command that was carried out already.
    ///
    /// # Errors
    /// It was aborted before it had become a run.
    async fn known(&mut self, start: &Start) -> Result<Option<RunId>, StartError> {
        let Some(known) = self.shared.units.find(start.run)? else {
            let aborted = self.shared.units.aborted(start.run)?;
            return aborted.map_or(Ok(None), |asked| Err(StartError::Aborted(asked.reason)));
        };
        let run = same(&known.opened, start, &self.name)?;
        start.turn.commit(None).await?;
        Ok(Some(run))
    }

    /// A unit that may be started, as far as the station itself can tell.
    fn candidate(&self, start: Start) -> Result<Candidate, StartError> {
        if self.draining {
            return Err(StartError::Draining);
        }
        if let Some(NestCommanded { by, reason, .. }) = &self.by_hand {
            let (by, reason) = (by.clone(), reason.clone());
            return Err(StartError::ByHand { nest: self.name.clone(), by, reason });
        }
        if let Some(left) = &self.left_pack {
            return Err(StartError::LeftPack { nest: self.name.clone(), reason: left.to_string() });
        }
        if let Some(reason) = self.health.parked() {
            return Err(StartError::Parked { nest: self.name.clone(), reason: reason.to_owned() });
        }
        match &self.state {
            State::Free(_) | State::Checking(_) => {}
            State::Asking(asking) => {
                return Err(StartError::Busy { nest: self.name.clone(), run: asking.candidate.run.run });
            }
            State::Busy { run, .. } => {
                return Err(StartError::Busy { nest: self.name.clone(), run: run.run });
            }
            State::OutOfOrder(_) => return Err(StartError::OutOfOrder(self.name.clone())),
        }

        // A unit that is not begun needs no room, one that is begun must find it.
        if let Some(trouble) = health::journal_trouble(&self.shared.journal) {
            return Err(StartError::NoRoom(trouble));
        }

        let Start { turn, run, serial, purpose } = start;
        let Purpose::Product { order, values } = purpose else {
            return self.golden_candidate(turn, run, serial);
        };
        self.shared.golden.check_product(&serial)?;
        self.check_proven()?;
        let (recipe, digest) = self.shared.orders.recipe(&order)?;
        let recipe = self.shared.recipes.get(&recipe, &digest)?;
        let values = self.shared.orders.values(&order, &serial, values)?;
        let unit = Unit { product: &recipe.name, order: &order, serial: &serial, values: &values };
        // Better now than when the board is flashed.
        recipe.check_unit(&unit)?;
        self.shared.orders.check_retests(&serial, recipe.retests)?;
        let marks = recipe.credentials(&unit)?.marks();
        let run = RunOpened {
            run,
            order: Some(order),
            serial,
            nest: self.name.clone(),
            recipe_digest: digest,
            started: SystemTime::now(),
            values,
            allowed: None,
            golden: None,
        };
        let place = self.shared.orders.reserve(&run)?;
        place.claims().claim_all(marks)?;
        Ok(Candidate { turn, run, recipe, place })
    }

    /// Makes durable that the run begins, and by whose leave; only then it does. Its order is held until then.
    async fn accept(
        &mut self,
        candidate: Candidate,
        allowed: Option<AllowedBy>,
        _held: HeldOpen,
    ) -> Result<RunId, StartError> {
        let Candidate { turn, run, recipe, place } = candidate;
        let run = RunOpened { started: SystemTime::now(), allowed, ..run };
        turn.commit(Some(Record::RunOpened(run.clone()))).await?;
        self.shared.events.tell_nest(&self.name, true);
        if let Some(AllowedBy::Budget(_)) = run.allowed {
            self.shared.events.tell(&run, What::Budget(self.shared.line.offline.left()));
        }
        let accepted = run.run;
        let open = OpenRun {
            phase: Phase::Between { run: run.clone(), done: None },
            run,
            findings: Findings::default(),
            aborted: None,
        };
        self.occupy(open, false, recipe, place);
        Ok(accepted)
    }

    /// Lends the instruments to a worker.
    fn occupy(&mut self, open: OpenRun, left: bool, recipe: Arc<Recipe>, place: Place) {
        let (run, stop) = (open.run.clone(), Stop::default());
        if let Some(reason) = &open.aborted {
            stop.abort(reason);
        }
        let state = mem::replace(&mut self.state, State::OutOfOrder(None));
        self.state = match state {
            State::Free(rig) => {
                let work = worker::Work { open, left, recipe, place, stop: stop.clone() };
                State::Busy { run, stop, work: tokio::spawn(worker::work(work, rig, self.shared.clone())) }
            }
            busy => busy,
        };
    }
}

fn same(known: &RunOpened, start: &Start, nest: &NestName) -> Result<RunId, StartError> {
    let order = match &start.purpose {
        Purpose::Product { order, .. } => Some(order),
        Purpose::Golden => None,
    };
    if (known.order.as_ref(), &known.serial, &known.nest) == (order, &start.serial, nest) {
        return Ok(known.run);
    }
    Err(StartError::Reused)
}
