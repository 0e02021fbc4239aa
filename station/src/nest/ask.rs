//! A unit that waits for the controller's leave: all of the station's own checks have passed, its place in its order is
//! held, and nothing is journalled. Whoever wanted it may go away, and then it is as if nothing had been asked.

use std::{mem, pin::Pin, sync::Arc, time::SystemTime};

use factory_proto::ids::OrderId;
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::{Keeper, Start, StartError, State};
use crate::{
    commands::Turn,
    line::interlock::{self, Answer, Interlock, NEWEST, Question},
    orders::Place,
    recipe::Recipe,
    record::{AllowedBy, Record, RunId, RunOpened, UnitRefused},
    rig::Rig,
};

/// Where the answer to a start goes.
pub(super) type Reply = oneshot::Sender<Result<RunId, StartError>>;

/// A unit that may be started as far as the station can tell.
pub(super) struct Candidate {
    /// The right to carry the command out, alone.
    pub turn: Turn,
    pub run: RunOpened,
    pub recipe: Arc<Recipe>,
    /// Given back when this is dropped.
    pub place: Place,
}

/// The question, while it has no answer. Dropped, it is broken off.
pub(super) struct Asking {
    pub candidate: Candidate,
    order: OrderId,
    rig: Box<Rig>,
    answer: Pin<Box<dyn Future<Output = Answer> + Send>>,
    reply: Reply,
}

impl Asking {
    /// Waits for the answer; `None` when nobody waits for the unit any more. May be given up and called again.
    pub async fn done(&mut self) -> Option<Answer> {
        tokio::select! {
            answer = &mut self.answer => Some(answer),
            () = self.reply.closed() => None,
        }
    }
}

impl Keeper {
    /// Starts a unit, or has the controller asked whether it may.
    pub(super) async fn begin(&mut self, start: Start, reply: Reply) {
        let candidate = match self.candidate(start) {
            Ok(candidate) => candidate,
            Err(error) => return answer(reply, Err(error)),
        };
        let Interlock { demanded, deadline } = self.shared.line.interlock;
        let Some(order) = candidate.run.order.clone().filter(|_| demanded) else {
            // Nor is anybody asked about a golden unit: it is the station's own, and of no order.
            let started = match self.shared.orders.hold_open(candidate.run.order.as_ref()).await {
                Ok(held) => self.accept(candidate, None, held).await,
                Err(moved) => Err(moved.into()),
            };
            return answer(reply, started);
        };
        match self.question(&candidate) {
            Ok(question) => {
                let ask = interlock::ask(self.shared.line.controllers.clone(), deadline, question);
                self.state = match mem::replace(&mut self.state, State::OutOfOrder(None)) {
                    State::Free(rig) => {
                        let answer = Box::pin(ask);
                        State::Asking(Box::new(Asking { candidate, order, rig, answer, reply }))
                    }
                    other => other,
                };
            }
            Err(error) => answer(reply, Err(error)),
        }
    }

    fn question(&self, candidate: &Candidate) -> Result<Question, StartError> {
        let (earlier, newest) = self.shared.units.closed(&candidate.run.serial, NEWEST)?;
        Ok(Question {
            station: self.shared.line.station.clone(),
            run: candidate.run.clone(),
            recipe: candidate.recipe.name.clone(),
            earlier,
            newest,
        })
    }

    /// The controller has answered, or does not.
    pub(super) async fn answered(&mut self, said: Answer) {
        let Some((candidate, order, reply)) = self.stop_asking() else { return };
        if reply.is_closed() {
            return self.tell();
        }
        let started = self.decide(candidate, order, said).await;
        if started.is_err() {
            self.tell();
        }
        answer(reply, started);
    }

    /// Starts the unit if it may be, and if its order was not paused while the controller was asked.
    async fn decide(
        &mut self,
        candidate: Candidate,
        order: OrderId,
        said: Answer,
    ) -> Result<RunId, StartError> {
        match said {
            Answer::Allowed { controller } => {
                let held = self.shared.orders.hold_open(Some(&order)).await?;
                self.accept(candidate, Some(AllowedBy::Controller(controller)), held).await
            }
            Answer::Refused { controller, reasons } => {
                Err(self.refuse(&candidate.run, order, controller, reasons).await)
            }
            Answer::NotServed { controller } => Err(StartError::NotServed { controller }),
            Answer::Away(away) => {
                // Before one of the budget is used.
                let held = self.shared.orders.hold_open(Some(&order)).await?;
                let allowance = match self.shared.line.offline.take() {
                    Ok(allowance) => allowance,
                    Err(exhausted) => return Err(StartError::NoLeave { away, exhausted }),
                };
                let run = candidate.run.run;
                warn!(nest = %self.name, %run, %allowance, reason = away, "started on the offline budget");
                self.accept(candidate, Some(AllowedBy::Budget(allowance)), held).await
            }
        }
    }

    /// Breaks the question off: everything is as it was before.
    pub(super) fn break_off(&mut self, reason: StartError) {
        if let Some((candidate, _, reply)) = self.stop_asking() {
            info!(nest = %self.name, run = %candidate.run.run, "the question whether a unit may start was broken off");
            self.tell();
            answer(reply, Err(reason));
        }
    }

    /// The nest is free again; the question is dropped.
    fn stop_asking(&mut self) -> Option<(Candidate, OrderId, Reply)> {
        match mem::replace(&mut self.state, State::OutOfOrder(None)) {
            State::Asking(asking) => {
                let Asking { candidate, order, rig, reply, .. } = *asking;
                self.state = State::Free(rig);
                Some((candidate, order, reply))
            }
            other => {
                self.state = other;
                None
            }
        }
    }

    /// Makes durable that the controller did not let a unit start, and tells everybody.
    async fn refuse(
        &mut self,
        run: &RunOpened,
        order: OrderId,
        controller: String,
        reasons: Vec<String>,
    ) -> StartError {
        let refused = UnitRefused {
            run: run.run,
            order,
            serial: run.serial.clone(),
            nest: run.nest.clone(),
            time: SystemTime::now(),
            controller,
            reasons,
        };
        warn!(nest = %run.nest, serial = %run.serial, reasons = ?refused.reasons, "unit refused by the controller");
        if let Err(error) = self.shared.journal.append(Record::UnitRefused(refused.clone())).await {
            return StartError::Journal(error);
        }
        self.shared.line.refusals.add(refused.clone());
        let UnitRefused { serial, controller, reasons, .. } = refused;
        StartError::Refused { serial, controller, reasons }
    }
}

/// An asker that went away does not want the answer.
pub(super) fn answer(reply: Reply, started: Result<RunId, StartError>) {
    let _ = reply.send(started);
}
