//! A nest's address: what can be asked of it, and what all nests share. What answers is the nest's task, `keeper`. Knows
//! nothing of gRPC.

use std::{path::Path, sync::Arc, time::Instant};

use factory_journal::{Journal, JournalError};
use factory_proto::ids::NestName;
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::TaskTracker;

use crate::{
    attestations::Attestations,
    commands::{Commands, Turn},
    config::NestSettings,
    events::{Events, What},
    golden::{Golden, Standing},
    line::Line,
    orders::Orders,
    pack::Pack,
    recipe::Recipes,
    record::{NestCommanded, NestLeftPack, Record, RunId},
    results::Backlog,
    rig::Rig,
    signer::Signer,
    units::Units,
};
use ask::Reply;
use check::Health;
use keeper::{Keeper, State};

mod ask;
mod check;
pub mod choice;
mod golden;
mod hand;
mod keeper;
mod leave;
mod left;
mod parking;
mod resume;
mod start;
mod worker;

pub use hand::HandError;
pub use left::Left;
pub use start::{Purpose, Start, StartError};

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
