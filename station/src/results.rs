//! Streams results to the line's controller: from the journal, in order, until each is acknowledged.
//!
//! At least once on the wire, exactly once in effect: the key (station, sequence) tells a repetition. A
//! controller that is away stops nothing; it gets everything later. One that is slow costs no memory: at most a
//! window of reports is out of the journal. What it refuses for itself is set aside, durably, and the rest goes on.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, SystemTime},
};

use backon::{BackoffBuilder, ExponentialBuilder};
use factory_journal::{Follower, Journal, JournalError, Sequence};
use factory_proto::{
    ids::NestName,
    station::{ReportResultsRequest, ReportResultsResponse, line_controller_client::LineControllerClient},
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};
use tracing::{error, info, warn};

mod backlog;
mod window;

pub use backlog::{Backlog, Standing};
pub use window::Absurd;
use window::{Sent, WINDOW, Window};

use crate::{
    contact::Contact,
    place::Way,
    record::{Record, ReportRefused},
    rpc::wire,
};

/// The controller's name among the journal's receivers.
pub const RECEIVER: &str = "controller";
// A controller that says nothing for so long while results wait is as good as gone.
const PATIENCE: Duration = Duration::from_secs(30);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
// A reason is for people; what is longer is a mistake, or worse.
const LONGEST_REASON: usize = 500;

#[derive(Debug, thiserror::Error)]
enum UplinkError {
    #[error("the controller cannot be reached; see that it runs and that the station file has its address")]
    Unreachable(#[from] tonic::transport::Error),
    #[error("the controller ended the stream: {}", .0.message())]
    Ended(Status),
    #[error("the controller closed the stream")]
    Closed,
    #[error("the controller acknowledged nothing for {} s", PATIENCE.as_secs())]
    Silent,
    #[error("the controller {0}; see whether it serves this station alone, and update it")]
    Absurd(#[from] Absurd),
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// Sends results to one controller.
pub struct Uplink {
    /// The station's name, half of each result's key.
    pub station: NestName,
    /// Where the controller listens.
    pub controller: Way,
    /// Where results come from.
    pub journal: Arc<Journal<Record>>,
    /// What waits.
    pub backlog: Backlog,
    /// Whether the controller answers.
    pub contact: Contact,
}

/// What is known of a report that made the controller end the stream.
struct Suspicion {
    /// It is not behind this one.
    narrow_until: Sequence,
    /// It was alone under way when the stream ended.
    suspect: Option<Sequence>,
}

impl Uplink {
    /// Sends until it is told to stop; connects again, ever more patiently, whenever the line is lost.
    pub async fn run(self, stop: CancellationToken) {
        let pauses = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(200))
            .with_max_delay(LONGEST_PAUSE)
            .with_jitter()
            .without_max_times();
        let mut pause = pauses.build();
        let mut suspicion = Suspicion { narrow_until: Sequence::START, suspect: None };
        loop {
            let before = self.journal.cursor(RECEIVER);
            let mut window = Window::new(before, suspicion.narrow_until);
            let lost = tokio::select! {
                Err(error) = self.connection(&mut window) => error,
                () = stop.cancelled() => return,
            };
            if let UplinkError::Ended(status) = &lost
                && is_about_a_report(status)
                && let Err(error) = self.suspect(&mut suspicion, &mut window, status).await
            {
                error!(reason = factory_fixtures::fault::chain(&error), "a report could not be set aside");
            }
            if self.journal.cursor(RECEIVER) != before {
                pause = pauses.build();
            }
            let retry_in = pause.next().unwrap_or(LONGEST_PAUSE);
            let reason = factory_fixtures::fault::chain(&lost);
            warn!(reason, ?retry_in, "results wait");
            self.contact.is_away(&reason);
            tokio::select! {
                () = sleep(retry_in) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// One connection, from the first unacknowledged report on. Ends only by losing it.
    async fn connection(&self, window: &mut Window) -> Result<Infallible, UplinkError> {
        let channel = self.controller.connect().await?;
        self.contact.answered();
        let mut news = self.journal.follow(self.journal.cursor(RECEIVER).next());
        // A controller may answer the call only after the first message, so there has to be one.
        let (first, request) = next_report(&self.station, &mut news).await?;
        let (reports, sending) = mpsc::channel(WINDOW);
        self.send(first, request, &reports, window).await?;
        let answers = timeout(
            PATIENCE,
            LineControllerClient::new(channel).report_results(ReceiverStream::new(sending)),
        )
        .await
        .map_err(|_| UplinkError::Silent)?
        .map_err(UplinkError::Ended)?
        .into_inner();
        info!("controller connected");
        self.converse(news, reports, answers, window).await
    }

    async fn converse(
        &self,
        mut news: Follower<Record>,
        reports: mpsc::Sender<ReportResultsRequest>,
        mut answers: Streaming<ReportResultsResponse>,
        window: &mut Window,
    ) -> Result<Infallible, UplinkError> {
        let mut last_heard = Instant::now();
        loop {
            tokio::select! {
                report = next_report(&self.station, &mut news), if window.is_open() => {
                    if window.is_empty() {
                        last_heard = Instant::now();
                    }
                    let (sent, request) = report?;
                    self.send(sent, request, &reports, window).await?;
                }
                answer = answers.message() => {
                    last_heard = Instant::now();
                    self.listen(answer, &mut answers, window).await?;
                }
                () = sleep_until(last_heard + PATIENCE), if !window.is_empty() => {
                    return Err(UplinkError::Silent);
                }
            }
        }
    }

    async fn send(
        &self,
        sent: Sent,
        request: ReportResultsRequest,
        reports: &mpsc::Sender<ReportResultsRequest>,
        window: &mut Window,
    ) -> Result<(), UplinkError> {
        let oldest_before = window.oldest();
        window.push(sent);
        if let (None, Some(oldest)) = (oldest_before, window.oldest()) {
            self.backlog.oldest_is(oldest);
        }
        // Never waits: the channel takes a whole window.
        reports.send(request).await.map_err(|_| UplinkError::Closed)
    }

    /// Takes an answer and all that came with it, and moves the cursor once for them all.
    async fn listen(
        &self,
        first: Result<Option<ReportResultsResponse>, Status>,
        answers: &mut Streaming<ReportResultsResponse>,
        window: &mut Window,
    ) -> Result<(), UplinkError> {
        let mut next = Some(first);
        let mut acknowledged = 0;
        let mut ended = Ok(());
        while let Some(answer) = next {
            match answer {
                Ok(Some(answer)) => {
                    for refused in &answer.refused {
                        if let Some(sent) = window.refuse(refused.sequence)? {
                            self.set_aside(sent, &refused.reason).await?;
                        }
                    }
                    acknowledged = acknowledged.max(answer.acknowledged_sequence);
                }
                Ok(None) => ended = Err(UplinkError::Closed),
                Err(status) => ended = Err(UplinkError::Ended(status)),
            }
            next = match ended {
                Ok(()) => tokio::select! {
                    biased;
                    answer = answers.message() => Some(answer),
                    () = std::future::ready(()) => None,
                },
                Err(_) => None,
            };
        }
        self.acknowledge(acknowledged, window).await?;
        ended
    }

    /// The controller is done with everything up to `number`, and with what was set aside right behind it.
    async fn acknowledge(&self, number: u64, window: &mut Window) -> Result<(), UplinkError> {
        if let Some(settled) = window.acknowledge(number)? {
            self.journal.advance(RECEIVER, settled.up_to).await?;
            self.backlog.settle(settled.results, settled.up_to, window.oldest());
        }
        Ok(())
    }

    /// Makes durable that the controller will never take a report. Only then may the cursor pass it.
    async fn set_aside(&self, sent: Sent, reason: &str) -> Result<(), JournalError> {
        let refused = ReportRefused {
            sequence: sent.sequence.get(),
            run: sent.result.map(|(run, _)| run),
            reason: reason.chars().take(LONGEST_REASON).collect(),
        };
        error!(sequence = refused.sequence, run = ?refused.run, reason = refused.reason, "report refused and set aside");
        self.journal.append(Record::ReportRefused(refused.clone())).await?;
        self.backlog.refused(refused);
        Ok(())
    }

    /// The controller ended the stream because of a report, without saying which. One that was alone under way
    /// when that happened, twice, is it.
    async fn suspect(
        &self,
        suspicion: &mut Suspicion,
        window: &mut Window,
        status: &Status,
    ) -> Result<(), UplinkError> {
        let Some(newest) = window.sent().next_back() else { return Ok(()) };
        if window.sent().len() > 1 {
            suspicion.narrow_until = newest.sequence;
        } else if suspicion.suspect.replace(newest.sequence) == Some(newest.sequence) {
            let reason = format!("ended the stream, twice: {}", status.message());
            self.set_aside(newest, &reason).await?;
            self.acknowledge(newest.sequence.get(), window).await?;
        }
        Ok(())
    }
}

/// Whether the controller will say so each time that it gets the same report. Everything else may pass by itself,
/// or is about the controller (UNIMPLEMENTED) or about who we are.
fn is_about_a_report(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::AlreadyExists
            | Code::NotFound
    )
}

/// The next report in the journal; may be given up at any time without losing one.
async fn next_report(
    station: &NestName,
    news: &mut Follower<Record>,
) -> Result<(Sent, ReportResultsRequest), JournalError> {
    loop {
        let entry = news.next().await?;
        if let Some(request) = wire::report(station, &entry) {
            let result: Option<(_, SystemTime)> = match &entry.record {
                Record::RunClosed(closed) => Some((closed.opened.run, closed.ended)),
                _ => None,
            };
            return Ok((Sent { sequence: entry.sequence, result }, request));
        }
    }
}
