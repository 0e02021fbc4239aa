//! Asks the line's controller before a unit starts, and says what its answer means. Starts nothing, counts nothing.

use std::time::Duration;

use factory_proto::ids::{NestName, RecipeName};
use tonic::{Code, Request};

use super::controllers::{Controllers, NoAnswer};
use crate::{
    record::{RunClosed, RunOpened},
    rpc::wire::line as wire,
};

/// So many of a unit's earlier runs are told.
pub const NEWEST: usize = 20;

/// Whether and how long the controller is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interlock {
    /// Whether a unit needs its leave.
    pub demanded: bool,
    /// What all controllers together may take for an answer.
    pub deadline: Duration,
}

impl Interlock {
    /// What a station file that says nothing means.
    pub const USUAL: Self = Self { demanded: true, deadline: Duration::from_secs(5) };
}

/// What is asked.
#[derive(Debug, Clone)]
pub struct Question {
    /// Who asks.
    pub station: NestName,
    /// The run as it would be.
    pub run: RunOpened,
    /// By which recipe.
    pub recipe: RecipeName,
    /// How many runs of the unit were closed here.
    pub earlier: usize,
    /// The newest of them, oldest first.
    pub newest: Vec<RunClosed>,
}

/// What the answer means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The unit may start.
    Allowed {
        /// The controller's address.
        controller: String,
    },
    /// It may not.
    Refused {
        /// The controller's address.
        controller: String,
        /// Why, 1 to 8 reasons.
        reasons: Vec<String>,
    },
    /// This controller is never asked such things.
    NotServed {
        /// Its address.
        controller: String,
    },
    /// None answered; of each its address and why.
    Away(String),
}

/// Asks whether a unit may start. May be given up at any time: nothing is changed by it.
pub async fn ask(controllers: Controllers, deadline: Duration, question: Question) -> Answer {
    let asked = wire::question(&question);
    let call = |mut client: super::controllers::Client, patience| {
        let mut request = Request::new(asked.clone());
        request.set_timeout(patience);
        async move { client.validate_unit(request).await }
    };
    match controllers.ask(deadline, call).await {
        Ok((answer, controller)) => match wire::reasons(&answer) {
            reasons if reasons.is_empty() => Answer::Allowed { controller },
            reasons => Answer::Refused { controller, reasons },
        },
        Err(NoAnswer::Away(reason)) => Answer::Away(reason),
        Err(NoAnswer::Status { controller, status }) if status.code() == Code::Unimplemented => {
            Answer::NotServed { controller }
        }
        Err(NoAnswer::Status { controller, status }) => {
            let reasons = vec![wire::shortened(&format!("{}: {}", status.code(), status.message()))];
            Answer::Refused { controller, reasons }
        }
    }
}
