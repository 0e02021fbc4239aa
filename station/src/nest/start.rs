//! A start of a unit: what is wanted, what speaks against it as far as the station can tell, and that it is durable before
//! the unit is touched. The controller's leave is asked for in `ask`.

use std::time::SystemTime;

use factory_journal::JournalError;
use factory_proto::ids::{NestName, OrderId, Serial};

use super::{
    Keeper, State,
    ask::{self, Candidate, Reply},
};
use crate::{
    books::OpenRun,
    claims::ClaimError,
    commands::Turn,
    events::What,
    golden::GoldenError,
    health,
    line::budget::Exhausted,
    orders::{HeldOpen, OrderError},
    phase::Phase,
    recipe::{
        RecipeError, UnitError,
        bundle::CredentialsError,
        template::{Unit, Values},
    },
    record::{AllowedBy, Findings, NestCommanded, Record, RunId, RunOpened},
};

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

impl Keeper {
    /// Starts a unit, unless whoever wanted it has gone: then nothing is made durable that nobody is told of. Who goes only
    /// later asks again, with the same command.
    pub(super) async fn start(&mut self, start: Start, reply: Reply) {
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
    pub(super) fn candidate(&self, start: Start) -> Result<Candidate, StartError> {
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
    pub(super) async fn accept(
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
