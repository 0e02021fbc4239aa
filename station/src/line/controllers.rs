//! The line's controllers: their addresses, and which of them is used. Results, questions and heartbeats share this.
//!
//! Knows nothing of what is asked.

use std::{error::Error as _, fmt, sync::Arc, time::Duration};

use factory_proto::station::line_controller_client::LineControllerClient;
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tonic::{Code, Response, Status, transport::Channel};
use tracing::{info, warn};

use super::standing::Standing;
use crate::{
    contact::Contact,
    place::{Place, TlsError, Way},
};

/// What a controller answers is a few hundred bytes.
const LARGEST_ANSWER: usize = 64 * 1024;

/// A client of one controller.
pub type Client = LineControllerClient<Channel>;

/// Why there is no answer.
#[derive(Debug, Clone)]
pub enum NoAnswer {
    /// None could be reached, or could answer: of each its address and why.
    Away(String),
    /// One of them answered, with this.
    Status {
        /// Its address.
        controller: String,
        /// What it said.
        status: Box<Status>,
    },
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Away(reason) => f.write_str(reason),
            Self::Status { controller, status } => write!(f, "{controller}: {}", status.message()),
        }
    }
}

struct Controller {
    address: String,
    way: Way,
    /// For questions; results have a connection of their own, which nothing can stand in the way of.
    channel: Channel,
}

/// All of them; clones share which is used.
#[derive(Clone)]
pub struct Controllers {
    list: Arc<[Controller]>,
    standing: Arc<watch::Sender<Standing>>,
    contact: Contact,
}

/// The one that was used at some moment.
#[derive(Clone)]
pub struct InUse {
    which: usize,
    /// Where it is.
    pub address: String,
    /// The way there.
    pub way: Way,
}

/// One of them, as it is described.
#[derive(Debug, Clone)]
pub struct Described {
    /// Where it is.
    pub address: String,
    /// Whether it is used.
    pub in_use: bool,
    /// Why it did not answer last.
    pub trouble: Option<String>,
}

impl Controllers {
    /// Those in these places, at least one, in the order in which they are preferred. Does not connect yet.
    ///
    /// # Errors
    /// One of their files is missing or no good.
    pub fn at(places: &[Place]) -> Result<Self, TlsError> {
        let controller = |place: &Place| {
            let way = place.way()?.kept_alive();
            let channel = way.connect_lazily();
            Ok(Controller { address: place.to_string(), way, channel })
        };
        let list = places.iter().map(controller).collect::<Result<Vec<_>, TlsError>>()?;
        let standing = Standing::new(list.len(), Instant::now());
        let (standing, contact) = (Arc::new(watch::channel(standing).0), Contact::default());
        Ok(Self { list: list.into(), standing, contact })
    }

    /// Whether the one in use answers, for those who ask for the station's health.
    pub fn contact(&self) -> &Contact {
        &self.contact
    }

    /// The one that is used now.
    pub fn in_use(&self) -> InUse {
        let which = self.standing.borrow().in_use();
        let Controller { address, way, .. } = &self.list[which];
        InUse { which, address: address.clone(), way: way.clone() }
    }

    /// Returns when another one is used.
    pub async fn left(&self, used: &InUse) {
        // The sender lives as long as this does.
        let _ = self.standing.subscribe().wait_for(|standing| standing.in_use() != used.which).await;
    }

    /// Returns when the one in use answers, as far as is known.
    pub async fn is_well(&self) {
        let _ = self.standing.subscribe().wait_for(Standing::is_well).await;
    }

    /// All of them.
    pub fn describe(&self) -> Vec<Described> {
        let standing = self.standing.borrow();
        let describe = |(which, controller): (usize, &Controller)| Described {
            address: controller.address.clone(),
            in_use: standing.in_use() == which,
            trouble: standing.trouble(which).map(str::to_owned),
        };
        self.list.iter().enumerate().map(describe).collect()
    }

    /// It answered.
    pub fn answered(&self, used: &InUse) {
        self.well(used.which);
    }

    /// It did not answer, or not as it should: from now on the next one is used. Says whether that one is worth trying
    /// at once.
    pub fn failed(&self, used: &InUse, trouble: &str) -> bool {
        self.ill(used.which, trouble);
        let standing = self.standing.borrow();
        standing.in_use() != used.which && standing.is_well()
    }

    /// Asks the one in use, and, as long as none answers, each of the others once. Takes `patience` in all.
    ///
    /// `call` is told how long it may take.
    ///
    /// # Errors
    /// None answered, or one with an error.
    pub async fn ask<T, F>(
        &self,
        patience: Duration,
        call: impl Fn(Client, Duration) -> F,
    ) -> Result<(T, String), NoAnswer>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let deadline = Instant::now() + patience;
        let first = self.standing.borrow().in_use();
        let mut away = Vec::new();
        for turn in 0..self.list.len() {
            let left = deadline.saturating_duration_since(Instant::now());
            // Those that come later must have their share of the time.
            let share = left / u32::try_from(self.list.len() - turn).unwrap_or(u32::MAX);
            match self.ask_one((first + turn) % self.list.len(), share, &call).await {
                Err(NoAnswer::Away(reason)) => away.push(reason),
                answered => return answered,
            }
        }
        Err(NoAnswer::Away(away.join("; ")))
    }

    /// Asks the first, if another has been used for a long time. If it answers it is the one that is used.
    pub async fn try_first<T, F>(&self, patience: Duration, call: impl Fn(Client, Duration) -> F)
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        if self.standing.borrow().first_is_due(Instant::now()) {
            // Whether it answered is all that matters.
            let _ = self.ask_one(0, patience, &call).await;
        }
    }

    async fn ask_one<T, F>(
        &self,
        which: usize,
        patience: Duration,
        call: &impl Fn(Client, Duration) -> F,
    ) -> Result<(T, String), NoAnswer>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let controller = &self.list[which];
        let client = Client::new(controller.channel.clone()).max_decoding_message_size(LARGEST_ANSWER);
        let begun = Instant::now();
        let trouble = match timeout(patience, call(client, patience)).await {
            Ok(Ok(answer)) => {
                self.well(which);
                return Ok((answer.into_inner(), controller.address.clone()));
            }
            Ok(Err(status)) if !is_away(&status) => {
                self.well(which);
                let (controller, status) = (controller.address.clone(), Box::new(status));
                return Err(NoAnswer::Status { controller, status });
            }
            // The client has the same deadline, and whichever of the two ends first says the same.
            Ok(Err(status)) if begun.elapsed() < patience => words(&status),
            _ => format!("no answer in {patience:?}"),
        };
        self.ill(which, &trouble);
        Err(NoAnswer::Away(format!("{}: {trouble}", controller.address)))
    }

    fn well(&self, which: usize) {
        self.change(|standing| standing.answered(which, Instant::now()));
    }

    fn ill(&self, which: usize, trouble: &str) {
        let news = self.change(|standing| standing.failed(which, trouble.to_owned(), Instant::now()));
        if news {
            warn!(controller = self.list[which].address, reason = trouble, "controller does not answer");
        }
    }

    fn change(&self, change: impl FnOnce(&mut Standing) -> bool) -> bool {
        let before = self.standing.borrow().in_use();
        let news = self.standing.send_if_modified(change);
        let standing = self.standing.borrow();
        let after = standing.in_use();
        match standing.trouble(after) {
            Some(trouble) => self.contact.is_away(trouble),
            // Of one that was not called since it is used nothing is known yet.
            None if before == after => self.contact.answered(),
            None => {}
        }
        drop(standing);
        if before != after {
            info!(controller = self.list[after].address, "another controller is used");
        }
        news
    }
}

/// Whether a controller cannot answer at present, as the line controller's `.proto` says. All else is an answer.
pub fn is_away(status: &Status) -> bool {
    let cannot = matches!(
        status.code(),
        Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Cancelled
            | Code::Aborted
            | Code::ResourceExhausted
            | Code::Internal
            | Code::Unknown
            | Code::DataLoss
    );
    // What did not come from the controller has a cause: the connection, which may have broken in mid-call.
    cannot || status.source().is_some()
}

/// What a status says, and what lies beneath it: "transport error" alone helps nobody.
fn words(status: &Status) -> String {
    let mut words = status.message().to_owned();
    let mut cause = status.source();
    while let Some(error) = cause {
        let word = error.to_string();
        if !words.contains(&word) {
            words = format!("{words}: {word}");
        }
        cause = error.source();
    }
    words
}
