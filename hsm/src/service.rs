//! `factory.signer.v1` over gRPC: wire messages in and out, and which error is whose fault.
//!
//! No wire type goes further than this file.

use std::{future::Future, sync::Arc, time::Duration};

use data_encoding::HEXLOWER;
use factory_proto::{
    DESCRIPTORS,
    signer::{
        DescribeRequest, DescribeResponse, IssueRequest, IssueResponse, LookupRequest, LookupResponse,
        SignHeadRequest, SignHeadResponse,
        signer_server::{Signer, SignerServer},
    },
};
use time::OffsetDateTime;
use tokio::{net::UnixListener, task, time::Instant};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Code, Response, Status, service::InterceptorLayer, transport::Server};
use tracing::{error, info, warn};
use uuid::Uuid;

use crate::{
    csr,
    issuer::{IssueError, Issuer, Request},
    peer::AllowedPeers,
    token::key::SigningError,
};

/// A request holds 4096 bytes of PKCS#10 and three names; far more is no request.
const MESSAGE_LIMIT: usize = 64 * 1024;
/// How long calls that have begun may take to end once the signer is told to stop.
const DRAIN: Duration = Duration::from_secs(10);

/// Why serving ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The reflection service refused the descriptors.
    #[error("the API's description could not be served")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The server could not go on.
    #[error("the gRPC server ended")]
    Transport(#[from] tonic::transport::Error),
}

/// Serves until `stop` comes, then lets calls that have begun end.
pub async fn serve(
    listener: UnixListener,
    issuer: Issuer,
    peers: AllowedPeers,
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<SignerServer<SignerService>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .with_service_name(<SignerServer<SignerService> as tonic::server::NamedService>::NAME)
        .with_service_name("grpc.health.v1.Health")
        .build_v1()?;
    let signer = SignerServer::new(SignerService { issuer: Arc::new(issuer) })
        .max_decoding_message_size(MESSAGE_LIMIT);

    let (draining, drained_too_long) = tokio::sync::oneshot::channel();
    let server = Server::builder()
        .layer(InterceptorLayer::new(move |call| peers.check(call)))
        .add_service(health_service)
        .add_service(reflection)
        .add_service(signer)
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), async {
            stop.await;
            info!("stopping");
            let _ = draining.send(());
        });
    tokio::select! {
        ended = server => Ok(ended?),
        () = async {
            let _ = drained_too_long.await;
            tokio::time::sleep(DRAIN).await;
        } => {
            warn!("calls that had begun were cut off");
            Ok(())
        }
    }
}

struct SignerService {
    issuer: Arc<Issuer>,
}

#[tonic::async_trait]
impl Signer for SignerService {
    async fn issue(&self, call: tonic::Request<IssueRequest>) -> Result<Response<IssueResponse>, Status> {
        let begun = Instant::now();
        let request = Request::try_from(call.into_inner())?;
        let (order, issuance, endpoint) = (request.order.clone(), request.issuance, request.endpoint.clone());

        let issuer = self.issuer.clone();
        let issued = task::spawn_blocking(move || issuer.issue(&request, OffsetDateTime::now_utc()))
            .await
            .map_err(|_| Status::internal("the signer failed; its log says why"))?
            .map_err(|error| {
                error!(%order, %issuance, %endpoint, error = &error as &dyn std::error::Error, "not issued");
                status_of(&error)
            })?;

        let serial = HEXLOWER.encode(&issued.serial);
        info!(%order, %issuance, %endpoint, serial, elapsed = ?begun.elapsed(), "issued");
        Ok(Response::new(IssueResponse {
            certificate: issued.certificate.to_vec(),
            issuers: vec![self.issuer.ca_certificate().to_vec()],
        }))
    }

    async fn lookup(&self, _: tonic::Request<LookupRequest>) -> Result<Response<LookupResponse>, Status> {
        Err(Status::unimplemented("this signer keeps no ledger yet"))
    }

    async fn sign_head(
        &self,
        _: tonic::Request<SignHeadRequest>,
    ) -> Result<Response<SignHeadResponse>, Status> {
        Err(Status::unimplemented("this signer has no provenance key yet"))
    }

    async fn describe(
        &self,
        _: tonic::Request<DescribeRequest>,
    ) -> Result<Response<DescribeResponse>, Status> {
        let token = self.issuer.token();
        Ok(Response::new(DescribeResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            token_label: token.label.clone(),
            token_serial: token.serial.clone(),
            ca_certificate: self.issuer.ca_certificate().to_vec(),
            provenance_certificate: Vec::new(),
        }))
    }
}

impl TryFrom<IssueRequest> for Request {
    type Error = Status;

    fn try_from(wire: IssueRequest) -> Result<Self, Status> {
        let endpoint = wire.endpoint_name.parse().map_err(refuse("endpoint_name"))?;
        Ok(Self {
            issuance: issuance_id(&wire.issuance_id)?,
            order: wire.work_order.parse().map_err(refuse("work_order"))?,
            key: csr::check(&wire.certificate_request, &endpoint).map_err(refuse("certificate_request"))?,
            endpoint,
        })
    }
}

fn issuance_id(text: &str) -> Result<Uuid, Status> {
    match Uuid::try_parse(text) {
        // `try_parse` also takes the forms with braces, with urn: and without hyphens.
        Ok(id) if text.len() == 36 => Ok(id),
        _ => Err(refuse("issuance_id")("is no UUID in text form (36 characters)")),
    }
}

/// `.map_err(refuse("field"))`: INVALID_ARGUMENT that names the field and its fault.
fn refuse<E: std::fmt::Display>(field: &'static str) -> impl FnOnce(E) -> Status {
    move |fault| Status::invalid_argument(format!("{field} {fault}"))
}

/// What the caller may know: whether to try again. The rest is in the log.
fn status_of(error: &IssueError) -> Status {
    let (code, text) = match error {
        IssueError::Signing(SigningError::Token(_)) => {
            (Code::Unavailable, "the token cannot sign at present; send the same request again")
        }
        IssueError::CaEndsTooSoon(_) => {
            (Code::FailedPrecondition, "the CA ends too soon to issue device certificates")
        }
        IssueError::Signing(SigningError::Certificate(_)) | IssueError::Wrong { .. } => {
            (Code::Internal, "no good certificate could be made; the signer's log says why")
        }
    };
    Status::new(code, text)
}
