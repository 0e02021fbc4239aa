//! Streams results to the line's controller: from the journal, in order, until each is acknowledged.
//!
//! At least once on the wire, exactly once in effect: the key (station, sequence) tells a repetition. A
//! controller that is away stops nothing; it gets everything later.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use backon::{BackoffBuilder, ExponentialBuilder};
use factory_journal::{Follower, Journal, JournalError, Sequence};
use factory_proto::{
    ids::NestName,
    station::{
        ReportResultsRequest, ReportResultsResponse, Unit, line_controller_client::LineControllerClient,
        report_results_request::Report,
    },
};
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming, transport::Endpoint};
use tracing::{info, warn};

use crate::{record::Record, rpc::wire};

/// The controller's name among the journal's receivers.
const RECEIVER: &str = "controller";
// Results under way without an acknowledgement. A bidirectional stream is at its best from 16 to 64.
const WINDOW: usize = 32;
// A controller that says nothing for so long while results wait is as good as gone.
const PATIENCE: Duration = Duration::from_secs(30);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

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
    #[error("the controller acknowledged result {0}, which was not sent")]
    Absurd(u64),
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// How many results the controller has not acknowledged.
pub fn backlog(journal: &Journal<Record>) -> Result<u64, JournalError> {
    let mut waiting = 0;
    for entry in journal.read(journal.cursor(RECEIVER).next()) {
        waiting += u64::from(matches!(entry?.record, Record::RunClosed(_)));
    }
    Ok(waiting)
}

/// Sends results to one controller.
pub struct Uplink {
    /// The station's name, half of each result's key.
    pub station: NestName,
    /// Where the controller listens.
    pub controller: Endpoint,
    /// Where results come from.
    pub journal: Arc<Journal<Record>>,
    /// Told of each acknowledgement.
    pub acknowledged: Arc<Notify>,
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
        loop {
            let before = self.journal.cursor(RECEIVER);
            let lost = tokio::select! {
                Err(error) = self.connection() => error,
                () = stop.cancelled() => return,
            };
            if self.journal.cursor(RECEIVER) != before {
                pause = pauses.build();
            }
            let retry_in = pause.next().unwrap_or(LONGEST_PAUSE);
            warn!(reason = factory_fixtures::fault::chain(&lost), ?retry_in, "results wait");
            tokio::select! {
                () = sleep(retry_in) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// One connection, from the first unacknowledged result on. Ends only by losing it.
    async fn connection(&self) -> Result<(), UplinkError> {
        let channel = self.controller.connect().await?;
        let mut news = self.journal.follow(self.journal.cursor(RECEIVER).next());
        // A controller may answer the call only after the first message, so there has to be one.
        let (first, unit) = next_result(&self.station, &mut news).await?;
        let (results, sending) = mpsc::channel(WINDOW);
        results.send(self.request(first, unit)).await.map_err(|_| UplinkError::Closed)?;
        let answers = timeout(
            PATIENCE,
            LineControllerClient::new(channel).report_results(ReceiverStream::new(sending)),
        )
        .await
        .map_err(|_| UplinkError::Silent)?
        .map_err(UplinkError::Ended)?
        .into_inner();
        info!("controller connected");
        self.converse(first, news, results, answers).await
    }

    async fn converse(
        &self,
        first: Sequence,
        mut news: Follower<Record>,
        results: mpsc::Sender<ReportResultsRequest>,
        mut answers: Streaming<ReportResultsResponse>,
    ) -> Result<(), UplinkError> {
        let mut unacknowledged = VecDeque::from([first]);
        let mut last_heard = Instant::now();
        loop {
            tokio::select! {
                result = next_result(&self.station, &mut news), if unacknowledged.len() < WINDOW => {
                    let (sequence, unit) = result?;
                    if unacknowledged.is_empty() {
                        last_heard = Instant::now();
                    }
                    unacknowledged.push_back(sequence);
                    results.send(self.request(sequence, unit)).await.map_err(|_| UplinkError::Closed)?;
                }
                answer = answers.message() => {
                    let answer = answer.map_err(UplinkError::Ended)?.ok_or(UplinkError::Closed)?;
                    last_heard = Instant::now();
                    self.acknowledge(answer.acknowledged_sequence, &mut unacknowledged).await?;
                }
                () = sleep_until(last_heard + PATIENCE), if !unacknowledged.is_empty() => {
                    return Err(UplinkError::Silent);
                }
            }
        }
    }

    fn request(&self, sequence: Sequence, unit: Unit) -> ReportResultsRequest {
        ReportResultsRequest {
            station: self.station.to_string(),
            sequence: sequence.get(),
            report: Some(Report::Unit(unit)),
        }
    }

    /// The controller has all up to `number`. Late and repeated acknowledgements are harmless.
    async fn acknowledge(
        &self,
        number: u64,
        unacknowledged: &mut VecDeque<Sequence>,
    ) -> Result<(), UplinkError> {
        let newest = unacknowledged.back().copied().unwrap_or_else(|| self.journal.cursor(RECEIVER));
        if number > newest.get() {
            return Err(UplinkError::Absurd(number));
        }
        let mut reached = None;
        while let Some(sequence) = unacknowledged.pop_front_if(|sequence| sequence.get() <= number) {
            reached = Some(sequence);
        }
        if let Some(reached) = reached {
            self.journal.advance(RECEIVER, reached).await?;
            self.acknowledged.notify_one();
        }
        Ok(())
    }
}

/// The next result in the journal; may be given up at any time without losing one.
async fn next_result(
    station: &NestName,
    news: &mut Follower<Record>,
) -> Result<(Sequence, Unit), JournalError> {
    loop {
        let entry = news.next().await?;
        if let Record::RunClosed(closed) = &entry.record {
            return Ok((entry.sequence, wire::result(station, closed)));
        }
    }
}
