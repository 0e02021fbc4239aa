//! A bare stream of results, to hold others against: a client that sends the same one again and again from memory, and a
//! controller that only counts.

use std::{
    net::SocketAddr,
    pin::Pin,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use factory_proto::station::{
    HeartbeatRequest, HeartbeatResponse, ReportResultsRequest, ReportResultsResponse, Unit,
    ValidateUnitRequest, ValidateUnitResponse, line_controller_client::LineControllerClient,
    line_controller_server::LineController, report_results_request::Report,
};
use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt as _, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};

/// As many as a station has under way.
pub const WINDOW: u64 = 32;

/// What it takes to send a result so often, and to have it acknowledged, a window at a time. The reports differ in nothing
/// but their number.
pub async fn send(
    controller: SocketAddr,
    station: &str,
    unit: &Unit,
    results: u64,
) -> anyhow::Result<Duration> {
    let mut client = LineControllerClient::connect(format!("http://{controller}")).await?;
    let (sender, sending) = mpsc::channel(WINDOW as usize);
    let begun = Instant::now();
    let request = |sequence| ReportResultsRequest {
        station: station.to_owned(),
        sequence,
        report: Some(Report::Unit(unit.clone())),
    };
    sender.send(request(1)).await?;
    let mut answers = client.report_results(ReceiverStream::new(sending)).await?.into_inner();
    let (mut sent, mut acknowledged) = (1, 0);
    while acknowledged < results {
        while sent < results && sent - acknowledged < WINDOW {
            sent += 1;
            sender.send(request(sent)).await?;
        }
        acknowledged = answers.message().await?.context("the controller ended")?.acknowledged_sequence;
    }
    Ok(begun.elapsed())
}

/// A controller that is done with a result as soon as it has it.
pub struct Counter;

#[tonic::async_trait]
impl LineController for Counter {
    type ReportResultsStream = Pin<Box<dyn Stream<Item = Result<ReportResultsResponse, Status>> + Send>>;

    async fn report_results(
        &self,
        request: Request<Streaming<ReportResultsRequest>>,
    ) -> Result<Response<Self::ReportResultsStream>, Status> {
        let mut newest = 0;
        let answers = request.into_inner().map(move |report| {
            let acknowledged_sequence = report?.sequence;
            if acknowledged_sequence <= newest {
                return Err(Status::internal(format!("{acknowledged_sequence} came behind {newest}")));
            }
            newest = acknowledged_sequence;
            Ok(ReportResultsResponse { acknowledged_sequence, ..ReportResultsResponse::default() })
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn validate_unit(
        &self,
        _: Request<ValidateUnitRequest>,
    ) -> Result<Response<ValidateUnitResponse>, Status> {
        Err(Status::unimplemented("it counts results"))
    }

    async fn heartbeat(&self, _: Request<HeartbeatRequest>) -> Result<Response<HeartbeatResponse>, Status> {
        Err(Status::unimplemented("it counts results"))
    }
}
