//! What people do with a nest: park it, enable it, clear it, have it show which one it is. Durable before it has an effect.

use factory_journal::JournalError;
use factory_proto::ids::NestName;
use tokio::sync::oneshot;
use tracing::info;

use super::{Keeper, Left, Look, StartError, State, check::Health};
use crate::{
    commands::Turn,
    record::{NestAct, NestCommanded, Record, RunId},
    recovery::{self, RecoveryError},
    rig::Rig,
};

/// Why something is not done with a nest.
#[derive(Debug, thiserror::Error)]
pub enum HandError {
    /// Its instruments are at work on a unit.
    #[error("nest {nest} is busy with run {run}; wait until it is closed, or abort it")]
    Busy {
        /// Which nest.
        nest: NestName,
        /// What is in it.
        run: RunId,
    },
    /// It has no instruments.
    #[error("nest {0} is out of order; its log says why; clear it first")]
    OutOfOrder(NestName),
    /// The lamp did not blink.
    #[error("nest {nest} cannot show which one it is: {reason}")]
    Dark {
        /// Which nest.
        nest: NestName,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// The station goes down.
    #[error("the station is shutting down; ask again when it is up")]
    Draining,
    /// The story of the run that the nest was lost with cannot be continued.
    #[error(transparent)]
    Story(#[from] RecoveryError),
    /// Nothing more can be made durable.
    #[error("the journal took nothing more")]
    Journal(#[from] JournalError),
}

type Reply = oneshot::Sender<Result<Look, HandError>>;

impl Keeper {
    /// Does what a command says, and answers when it is done.
    pub(super) async fn by_hand(&mut self, turn: Turn, command: NestCommanded, reply: Reply) {
        let act = command.act;
        // Somebody who went away does not want the answer.
        match self.take(&turn, command).await {
            Err(refused) => drop(reply.send(Err(refused))),
            Ok(()) => match (act, &mut self.state) {
                (NestAct::Clear, State::Checking(check)) => check.tell(reply),
                (NestAct::Identify, State::Checking(check)) => check.blink_then(reply),
                (NestAct::Identify, _) => self.identify(reply),
                _ => drop(reply.send(Ok(self.look()))),
            },
        }
    }

    /// Makes a command durable, with all that follows from it at once.
    async fn take(&mut self, turn: &Turn, command: NestCommanded) -> Result<(), HandError> {
        self.may(command.act)?;
        let done = turn.commit(Some(Record::NestCommanded(command.clone()))).await?;
        info!(nest = %self.name, act = ?command.act, by = command.by, reason = command.reason, "by hand");
        match command.act {
            NestAct::Park => self.park_by_hand(Some(command)),
            NestAct::Enable => {
                self.rejoin(done);
                self.park_by_hand(None);
            }
            NestAct::Clear => {
                let had_left = self.left_pack.is_some();
                self.rejoin(done);
                self.clear().await?;
                if had_left {
                    self.tell();
                }
            }
            NestAct::Identify => {}
        }
        Ok(())
    }

    fn may(&self, act: NestAct) -> Result<(), HandError> {
        let needs_instruments = matches!(act, NestAct::Clear | NestAct::Identify);
        match &self.state {
            _ if self.draining => Err(HandError::Draining),
            State::Busy { run, .. } if needs_instruments => {
                Err(HandError::Busy { nest: self.name.clone(), run: run.run })
            }
            State::Asking(asking) if needs_instruments => {
                Err(HandError::Busy { nest: self.name.clone(), run: asking.candidate.run.run })
            }
            State::OutOfOrder(_) if act == NestAct::Identify => Err(HandError::OutOfOrder(self.name.clone())),
            _ => Ok(()),
        }
    }

    fn park_by_hand(&mut self, by_hand: Option<NestCommanded>) {
        self.by_hand = by_hand;
        match (&self.state, &self.by_hand) {
            // It tells it when its unit leaves.
            (State::Busy { .. }, _) | (State::Asking(_), None) => {}
            // A unit that has not begun does not.
            (State::Asking(_), Some(NestCommanded { by, reason, .. })) => {
                let (nest, by, reason) = (self.name.clone(), by.clone(), reason.clone());
                self.break_off(StartError::ByHand { nest, by, reason });
            }
            _ => self.tell(),
        }
    }

    /// Forgets what was wrong, and asks the instruments. A check that goes on will do.
    async fn clear(&mut self) -> Result<(), HandError> {
        self.health = Health::default();
        if let State::OutOfOrder(lost) = self.state {
            self.revive(lost).await?;
        }
        let left = self.left.as_ref().map(|left| left.open.run.run);
        self.check(left);
        Ok(())
    }

    /// Begins anew with instruments of its own: those that it had ended with what panicked. The run that was lost goes on
    /// as after a restart.
    async fn revive(&mut self, lost: Option<RunId>) -> Result<(), HandError> {
        let open = match lost {
            Some(run) => recovery::open_run(&self.shared.journal, run)?,
            None => None,
        };
        if let Some(open) = open {
            match Left::find(open.clone(), &self.shared) {
                Ok(left) => self.left = Some(left),
                Err(reason) => Left::give_up(open, &reason, &self.shared).await?,
            }
        }
        self.state = State::Free(Box::new(Rig::new(&self.settings, &self.program)));
        Ok(())
    }

    /// Lets the lamp of a free nest blink, and answers when that is over.
    pub(super) fn identify(&mut self, reply: Reply) {
        if let State::Free(_) = &self.state {
            self.blink_and_check();
        }
        match &mut self.state {
            State::Checking(check) => check.watch(reply),
            // A unit came first.
            State::Busy { run, .. } => {
                drop(reply.send(Err(HandError::Busy { nest: self.name.clone(), run: run.run })));
            }
            State::Asking(asking) => {
                let run = asking.candidate.run.run;
                drop(reply.send(Err(HandError::Busy { nest: self.name.clone(), run })));
            }
            State::Free(_) | State::OutOfOrder(_) => {
                drop(reply.send(Err(HandError::OutOfOrder(self.name.clone()))));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

    use factory_fixtures::fcc::link::Reach;
    use factory_journal::{Journal, Options};
    use factory_proto::outcome::Outcome;
    use tokio::sync::mpsc;
    use uuid::Uuid;

    use super::*;
    use crate::{
        attestations::{Attestations, Statements},
        books::Books,
        commands::{Command, Commands},
        config::{ConsoleSettings, NestSettings},
        events::Events,
        golden::{Golden, Rule},
        line::{
            Line, budget::Budget, controllers::Controllers, interlock::Interlock, offline::Offline,
            refusals::Refusals,
        },
        nest::{Nest, Shared},
        orders::Orders,
        pack::{self, Pack},
        place::Place,
        recipe::Recipes,
        record::RunOpened,
        results::Backlog,
        signer::Signer,
        units::Units,
    };

    fn command(act: NestAct) -> NestCommanded {
        NestCommanded {
            command: Uuid::now_v7(),
            nest: "A".parse().unwrap(),
            act,
            by: "anna".to_owned(),
            reason: String::new(),
            at: SystemTime::UNIX_EPOCH,
        }
    }

    fn shared(state: &std::path::Path) -> Shared {
        let journal = Arc::new(Journal::open(state, Options::default()).unwrap());
        let units = Units::new(journal.clone());
        let attestations = Attestations::new(Statements::default());
        Shared {
            backlog: Backlog::count(&journal).unwrap(),
            orders: Orders::new(units.clone(), attestations.clone(), Books::default(), &state.join("orders")),
            attestations,
            golden: Golden::new(Rule::default(), units.clone(), BTreeMap::new()),
            commands: Commands::new(journal.clone()),
            units,
            signer: Signer::at(Place::Socket(state.join("no.sock")), state).unwrap(),
            events: Events::new(journal.clone()),
            line: Line {
                station: "station".parse().unwrap(),
                controllers: Controllers::at(&[Place::Plain("http://127.0.0.1:1".parse().unwrap())]).unwrap(),
                interlock: Interlock { demanded: false, deadline: std::time::Duration::ZERO },
                offline: Offline::new("station".parse().unwrap(), None, journal.clone(), Budget::default()),
                refusals: Refusals::of(&journal).unwrap(),
            },
            recipes: Arc::new(Recipes::default()),
            pack: Pack::new(pack::Rule::USUAL),
            journal,
        }
    }

    #[tokio::test]
    async fn a_nest_that_is_out_of_order_begins_anew_when_it_is_cleared_and_its_run_is_not_forgotten() {
        let state = tempfile::tempdir().unwrap();
        let shared = shared(state.path());
        let run = RunOpened {
            run: RunId::of_command(Uuid::now_v7()),
            order: Some("WO-1".parse().unwrap()),
            serial: "SN1".parse().unwrap(),
            nest: "A".parse().unwrap(),
            ..RunOpened::made_up()
        };
        shared.journal.append(Record::RunOpened(run.clone())).await.unwrap();
        let settings = NestSettings {
            name: "A".parse().unwrap(),
            probe: "1:1".to_owned(),
            console: ConsoleSettings { path: "/nonexistent".to_owned(), baud: 115_200 },
            fcc: Reach::Console,
            tag_reader: "none".to_owned(),
        };
        let keeper = Keeper {
            name: settings.name.clone(),
            settings,
            program: "/nonexistent".into(),
            shared: shared.clone(),
            state: State::OutOfOrder(Some(run.run)),
            health: Health::default(),
            by_hand: None,
            left_pack: None,
            left: None,
            free_since: std::time::Instant::now(),
            draining: false,
        };
        let (mailbox, mail) = mpsc::channel(1);
        tokio::spawn(keeper.keep(mail));
        let nest = Nest { name: "A".parse().unwrap(), mailbox };

        let by_hand = async |act| {
            let command = command(act);
            let asked = Command { id: command.command, call: "ClearNest", digest: [0; 32] };
            nest.command(shared.commands.begin(asked).await.unwrap(), command).await
        };
        let look = nest.look().await;
        assert!(look.run == Some(run.run) && look.parked.unwrap().contains("it is out of order"));
        let refusal = by_hand(NestAct::Identify).await.unwrap_err();
        assert!(refusal.to_string().contains("out of order; its log says why; clear it first"), "{refusal}");
        // Its instruments are asked again, which here are none.
        let parked = by_hand(NestAct::Clear).await.unwrap().parked.unwrap();
        assert!(parked.contains("could not be started from /nonexistent"), "{parked}");
        assert!(!parked.contains("out of order"), "{parked}");
        // As after a restart: nobody can go on with it, for there is no such order.
        let closed = shared.units.find(run.run).unwrap().unwrap().closed.unwrap();
        assert_eq!(closed.outcome, Outcome::Error);
    }
}
