//! One task per nest: reads its mailbox. Owns the nest's instruments while it is free, lends them to the worker while a unit
//! is in it, and takes none while one of them does not answer.

use std::{
    mem,
    path::PathBuf,
    sync::Arc,
    time::{Instant, SystemTime},
};

use factory_journal::JournalError;
use factory_proto::ids::NestName;
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinHandle},
};

use super::{
    Left, Look, Mail, Shared, StartError,
    ask::Asking,
    check::{Check, Health},
    worker,
};
use crate::{
    books::OpenRun,
    commands::Turn,
    config::NestSettings,
    orders::Place,
    recipe::Recipe,
    record::{AbortAsked, NestCommanded, NestLeftPack, Record, RunId, RunOpened},
    rig::Rig,
    step::Stop,
};

pub(super) enum State {
    // Or parked, as its health says.
    Free(Box<Rig>),
    Checking(Check),
    // A unit waits for the controller's leave.
    Asking(Box<Asking>),
    // The instruments change hands, or were lost with a worker that panicked in this run.
    OutOfOrder(Option<RunId>),
    Busy { run: RunOpened, stop: Stop, work: JoinHandle<Box<Rig>> },
}

pub(super) struct Keeper {
    pub name: NestName,
    pub settings: NestSettings,
    pub program: PathBuf,
    pub shared: Shared,
    pub state: State,
    pub health: Health,
    /// How somebody has parked it.
    pub by_hand: Option<NestCommanded>,
    /// How it has left the pack.
    pub left_pack: Option<NestLeftPack>,
    /// When the last unit left it.
    pub free_since: Instant,
    /// Waits for the instruments to answer.
    pub left: Option<Left>,
    pub draining: bool,
}

impl Keeper {
    pub(super) async fn keep(mut self, mut mail: mpsc::Receiver<Mail>) {
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
    pub(super) fn break_down(&mut self, error: &JoinError) {
        tracing::error!(nest = %self.name, %error, "nest is out of order until it is cleared, or the station restarts");
        let lost = if let State::Busy { run, .. } = &self.state { Some(run.run) } else { None };
        self.state = State::OutOfOrder(lost);
    }

    /// Why it takes no units.
    pub(super) fn parked(&self) -> Option<String> {
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

    pub(super) fn look(&self) -> Look {
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

    /// Lends the instruments to a worker.
    pub(super) fn occupy(&mut self, open: OpenRun, left: bool, recipe: Arc<Recipe>, place: Place) {
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
