//! A bare stream whose reports are on disk before they are acknowledged, and nothing else: appended to one file as they
//! came, one sync for all that wait. What durability itself costs on this disk, on the controller's side.

use std::{fs::File, io::Write as _, path::Path, pin::Pin, sync::mpsc, thread};

use factory_proto::station::{
    HeartbeatRequest, HeartbeatResponse, ReportResultsRequest, ReportResultsResponse, ValidateUnitRequest,
    ValidateUnitResponse, line_controller_server::LineController,
};
use prost::Message as _;
use tokio::sync::oneshot;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

type Order = (Vec<u8>, oneshot::Sender<()>);

/// A controller that appends.
pub struct Keeper(mpsc::Sender<Order>);

impl Keeper {
    /// Keeps reports in a new file.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        let (orders, taken) = mpsc::channel::<Order>();
        let mut file = File::create(path)?;
        thread::spawn(move || {
            while let Ok(first) = taken.recv() {
                let orders: Vec<Order> = std::iter::once(first).chain(taken.try_iter()).collect();
                let bytes: Vec<u8> = orders.iter().flat_map(|(bytes, _)| bytes).copied().collect();
                file.write_all(&bytes).and_then(|()| file.sync_data()).expect("the disk takes it");
                for (_, done) in orders {
                    // Whoever asked may be gone.
                    let _ = done.send(());
                }
            }
        });
        Ok(Self(orders))
    }
}

#[tonic::async_trait]
impl LineController for Keeper {
    type ReportResultsStream = Pin<Box<dyn Stream<Item = Result<ReportResultsResponse, Status>> + Send>>;

    async fn report_results(
        &self,
        request: Request<Streaming<ReportResultsRequest>>,
    ) -> Result<Response<Self::ReportResultsStream>, Status> {
        let orders = self.0.clone();
        let mut reports = request.into_inner();
        let (answers, stream) = tokio::sync::mpsc::channel(1);
        tokio::spawn(async move {
            while let Some(Ok(report)) = reports.next().await {
                let mut bytes = report.encode_length_delimited_to_vec();
                let mut acknowledged_sequence = report.sequence;
                while let Some(Ok(report)) = ready(&mut reports).await {
                    report.encode_length_delimited(&mut bytes).expect("a vector grows");
                    acknowledged_sequence = report.sequence;
                }
                let (done, kept) = oneshot::channel();
                if orders.send((bytes, done)).is_err() || kept.await.is_err() {
                    return;
                }
                let answer =
                    ReportResultsResponse { acknowledged_sequence, ..ReportResultsResponse::default() };
                if answers.send(Ok(answer)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(tokio_stream::wrappers::ReceiverStream::new(stream))))
    }

    async fn validate_unit(
        &self,
        _: Request<ValidateUnitRequest>,
    ) -> Result<Response<ValidateUnitResponse>, Status> {
        Err(Status::unimplemented("it keeps results"))
    }

    async fn heartbeat(&self, _: Request<HeartbeatRequest>) -> Result<Response<HeartbeatResponse>, Status> {
        Err(Status::unimplemented("it keeps results"))
    }
}

/// The next report, if it is there.
async fn ready(
    reports: &mut Streaming<ReportResultsRequest>,
) -> Option<Result<ReportResultsRequest, Status>> {
    tokio::select! {
        biased;
        report = reports.next() => report,
        () = std::future::ready(()) => None,
    }
}
