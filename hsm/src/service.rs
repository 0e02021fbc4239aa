//! `factory.signer.v1` over gRPC: wire messages in and out, and which error is whose fault.
//!
//! No wire type goes further than this file.

use std::{collections::HashMap, future::Future, sync::Arc, time::Duration};

use data_encoding::HEXLOWER;
use factory_proto::{
    DESCRIPTORS,
    disposition::Disposition,
    head::{HeadStatement, SIGNED_UP_TO},
    ids::{NestName, OrderId},
    signer::{
        DescribeRequest, DescribeResponse, DisposeRequest, DisposeResponse, GetOrderRequest, Issuance,
        IssuancePlace, IssuanceState, IssueRequest, IssueResponse, ListIssuancesRequest,
        ListIssuancesResponse, LookupRequest, LookupResponse, OpenOrderRequest, Order, SignHeadRequest,
        SignHeadResponse,
        signer_server::{Signer, SignerServer},
    },
};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use tokio::time::Instant;
use tonic::{Code, Response, Status, transport::Server};
use tonic_types::{ErrorDetails, StatusExt};
use tracing::{error, info, warn};
use uuid::Uuid;

use crate::{
    csr,
    health::Health,
    issuer::{IssueError, Request},
    ledger::{OrderAccount, OrderRefusal, Place, Reckoned, Refusal, Standing, record::Disposed},
    peer::{Peer, PeerAdmission, PeerDoors},
    profile::device::ProfileError,
    registrar::{Registrar, RegistrarError},
    token::key::SigningError,
    witness::{Witness, layer::WitnessLayer},
};

/// A request holds 4096 bytes of PKCS#10 and three names; far more is no request.
const MESSAGE_LIMIT: usize = 64 * 1024;
/// Some 150 KB.
const LARGEST_PAGE: u32 = 1000;
/// Calls on one connection at a time; what a peer may have under way on all of them is less.
const STREAMS: u32 = 100;
/// `reason` of the ErrorInfo.
const QUOTA_USED_UP: &str = "QUOTA_USED_UP";
/// Our clients send a few hundred bytes.
const HEADER_LIMIT: u32 = 16 * 1024;
/// A connection that is silent for so long is asked whether it is alive, and closed after that time again.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// So that a station whose certificate was withdrawn has to show it again; calls that have begun are not cut off.
const CONNECTION_AGE: Duration = Duration::from_secs(3600);
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
    doors: PeerDoors,
    registrar: Registrar,
    witness: Witness,
    health: &Health,
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .with_service_name(<SignerServer<SignerService> as tonic::server::NamedService>::NAME)
        .with_service_name("grpc.health.v1.Health")
        .build_v1()?;
    let signer = SignerServer::new(SignerService { registrar: Arc::new(registrar) })
        .max_decoding_message_size(MESSAGE_LIMIT);

    let (draining, drained_too_long) = tokio::sync::oneshot::channel();
    let server = Server::builder()
        .max_concurrent_streams(STREAMS)
        .http2_max_header_list_size(HEADER_LIMIT)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .max_connection_age(CONNECTION_AGE)
        .layer(PeerAdmission::new())
        .layer(WitnessLayer(witness))
        .add_service(health.service().await)
        .add_service(reflection)
        .add_service(signer)
        .serve_with_incoming_shutdown(doors, async {
            stop.await;
            info!("stopping");
            health.stop().await;
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
    registrar: Arc<Registrar>,
}

#[tonic::async_trait]
impl Signer for SignerService {
    async fn open_order(&self, call: tonic::Request<OpenOrderRequest>) -> Result<Response<Order>, Status> {
        let peer = Peer::of(call.extensions())?;
        let signed = call.into_inner().signed_order;
        let order = self.registrar.read_order(&signed).map_err(refuse("signed_order"))?;
        check_peer(&peer, &order.order)?;
        let id = order.order.clone();
        let registrar = self.registrar.clone();
        let opening = tokio::spawn(async move { registrar.open_order(order, signed).await });
        let opened = opening.await.map_err(RegistrarError::from).flatten().map_err(|error| {
            error!(order = %id, error = &error as &dyn std::error::Error, "not opened");
            status_of(&error)
        })?;
        info!(order = %id, quantity = opened.order.quantity, "open");
        Ok(Response::new(opened.into()))
    }

    async fn get_order(&self, call: tonic::Request<GetOrderRequest>) -> Result<Response<Order>, Status> {
        let peer = Peer::of(call.extensions())?;
        let id = call.into_inner().work_order.parse().map_err(refuse("work_order"))?;
        check_peer(&peer, &id)?;
        let order = self.registrar.order(&id).map_err(|refusal| Status::not_found(refusal.to_string()))?;
        Ok(Response::new(order.into()))
    }

    async fn list_issuances(
        &self,
        call: tonic::Request<ListIssuancesRequest>,
    ) -> Result<Response<ListIssuancesResponse>, Status> {
        let peer = Peer::of(call.extensions())?;
        let (id, from, size) = page(&call.into_inner())?;
        check_peer(&peer, &id)?;
        let page = self.registrar.issuances(&id, from, size);
        let (issuances, more) = page.map_err(|refusal| Status::not_found(refusal.to_string()))?;
        let next = from + issuances.len();
        Ok(Response::new(ListIssuancesResponse {
            issuances: issuances.into_iter().map(Into::into).collect(),
            next_page_token: if more { next.to_string() } else { String::new() },
        }))
    }

    async fn dispose(
        &self,
        call: tonic::Request<DisposeRequest>,
    ) -> Result<Response<DisposeResponse>, Status> {
        let peer = Peer::of(call.extensions())?;
        let request = call.into_inner();
        let disposition: Disposition = request.disposition().try_into().map_err(refuse("disposition"))?;
        let issuance = issuance_id("issuance_id", &request.issuance_id)?;
        if let Some(account) = self.registrar.account(issuance) {
            check_order(&peer, &account.order)?;
        }
        let registrar = self.registrar.clone();
        let disposed = Disposed { issuance: issuance.to_string(), disposition };
        let disposing =
            tokio::spawn(async move { registrar.dispose(disposed, OffsetDateTime::now_utc()).await });
        disposing.await.map_err(RegistrarError::from).flatten().map_err(|error| {
            error!(%issuance, %disposition, error = &error as &dyn std::error::Error, "not disposed");
            status_of(&error)
        })?;
        info!(%issuance, %disposition, "disposed");
        Ok(Response::new(DisposeResponse {}))
    }

    async fn issue(&self, call: tonic::Request<IssueRequest>) -> Result<Response<IssueResponse>, Status> {
        let begun = Instant::now();
        let peer = Peer::of(call.extensions())?;
        let request = Request::try_from(call.into_inner())?;
        check_peer(&peer, &request.order)?;
        let (order, issuance, endpoint) = (request.order.clone(), request.issuance, request.endpoint.clone());

        // A caller that hangs up must not break off what the ledger is told.
        let registrar = self.registrar.clone();
        let issuing = tokio::spawn(async move { registrar.issue(request, OffsetDateTime::now_utc()).await });
        let issued = issuing.await.map_err(RegistrarError::from).flatten();
        let certificate = issued.map_err(|error| {
            error!(%order, %issuance, %endpoint, error = &error as &dyn std::error::Error, "not issued");
            status_of(&error)
        })?;
        let (repeated, fingerprint) =
            (certificate.repeated, HEXLOWER.encode(&Sha256::digest(&certificate.der)));
        info!(%order, %issuance, %endpoint, fingerprint, repeated, elapsed = ?begun.elapsed(), "issued");
        Ok(Response::new(IssueResponse {
            certificate: certificate.der,
            issuers: certificate.issuers.iter().map(|issuer| issuer.to_vec()).collect(),
        }))
    }

    async fn lookup(&self, call: tonic::Request<LookupRequest>) -> Result<Response<LookupResponse>, Status> {
        let peer = Peer::of(call.extensions())?;
        let issuance = issuance_id("issuance_id", &call.into_inner().issuance_id)?;
        let Some(account) = self.registrar.account(issuance) else {
            return Ok(Response::new(LookupResponse {
                state: IssuanceState::Unknown.into(),
                ..LookupResponse::default()
            }));
        };
        check_order(&peer, &account.order)?;
        let state = match account.standing {
            Standing::Asked(_) => IssuanceState::Asked,
            Standing::Issued(_) => IssuanceState::Issued,
            Standing::Void(_) => IssuanceState::Void,
        };
        let certificate = self.registrar.certificate(&account).await.map_err(|error| status_of(&error))?;
        Ok(Response::new(LookupResponse {
            state: state.into(),
            endpoint_name: account.endpoint_name,
            certificate,
        }))
    }

    async fn sign_head(
        &self,
        call: tonic::Request<SignHeadRequest>,
    ) -> Result<Response<SignHeadResponse>, Status> {
        let peer = Peer::of(call.extensions())?;
        let (station, statement) = statement(call.into_inner())?;
        if !peer.may_speak_for(&station) {
            return Err(Status::permission_denied(format!("station {station} is another one than asks")));
        }
        let (station, last) = (statement.station.clone(), statement.last_sequence);
        let registrar = self.registrar.clone();
        let signing = tokio::spawn(async move { registrar.sign_head(statement).await });
        let signed = signing.await.map_err(RegistrarError::from).flatten().map_err(|error| {
            error!(station, last, error = &error as &dyn std::error::Error, "head not signed");
            status_of(&error)
        })?;
        info!(station, last, "head signed");
        Ok(Response::new(SignHeadResponse {
            statement: signed.statement,
            signature: signed.signature,
            certificates: vec![self.registrar.provenance().certificate().to_vec()],
        }))
    }

    async fn describe(
        &self,
        _: tonic::Request<DescribeRequest>,
    ) -> Result<Response<DescribeResponse>, Status> {
        let issuers = self.registrar.issuers();
        let token = issuers.token();
        Ok(Response::new(DescribeResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            token_label: token.label.clone(),
            token_serial: token.serial.clone(),
            ca_certificate: issuers.cas()[0].authority.certificate().to_vec(),
            provenance_certificate: self.registrar.provenance().certificate().to_vec(),
        }))
    }
}

impl TryFrom<IssueRequest> for Request {
    type Error = Status;

    fn try_from(wire: IssueRequest) -> Result<Self, Status> {
        let endpoint = wire.endpoint_name.parse().map_err(refuse("endpoint_name"))?;
        let supersedes = match wire.supersedes.as_str() {
            "" => None,
            id => Some(issuance_id("supersedes", id)?),
        };
        Ok(Self {
            issuance: issuance_id("issuance_id", &wire.issuance_id)?,
            order: wire.work_order.parse().map_err(refuse("work_order"))?,
            key: csr::check(&wire.certificate_request, &endpoint).map_err(refuse("certificate_request"))?,
            endpoint,
            recipe: bytes("recipe_digest", &wire.recipe_digest)?,
            certificate_request: wire.certificate_request,
            supersedes,
        })
    }
}

fn check_peer(peer: &Peer, order: &OrderId) -> Result<(), Status> {
    if peer.may_use(order) {
        return Ok(());
    }
    warn!(%order, peer = peer.name().map(tracing::field::display), "not its order");
    Err(Status::permission_denied(format!(
        "work_order {order} is none of this station's: give it to its [[peer]] in the signer's file"
    )))
}

/// As [`check_peer`], of an issuance's order; there is none where a void issuance was never asked for.
fn check_order(peer: &Peer, order: &str) -> Result<(), Status> {
    order.parse().map_or(Ok(()), |order| check_peer(peer, &order))
}

impl From<OrderAccount> for Order {
    fn from(account: OrderAccount) -> Self {
        let (order, places) = (account.order, account.places);
        Self {
            work_order: order.order.to_string(),
            product: order.product,
            recipe_digest: order.recipe.into(),
            ca_fingerprint: order.authority.into(),
            profile: order.profile.to_string(),
            quantity: order.quantity,
            spare: order.spare,
            replacements: order.replacements,
            not_before: order.not_before,
            not_after: order.not_after,
            units_counted: account.units,
            replacements_counted: account.replacements,
            open: places.open,
            shipped: places.shipped,
            quarantined: places.quarantined,
            scrapped: places.scrapped,
            superseded: places.superseded,
        }
    }
}

impl From<Reckoned> for Issuance {
    fn from(Reckoned { issuance, endpoint_name, place }: Reckoned) -> Self {
        let place = match place {
            Place::Open => IssuancePlace::Open,
            Place::Shipped => IssuancePlace::Shipped,
            Place::Quarantined => IssuancePlace::Quarantined,
            Place::Scrapped => IssuancePlace::Scrapped,
            Place::Superseded => IssuancePlace::Superseded,
        };
        Self { issuance_id: issuance, endpoint_name, place: place.into() }
    }
}

/// Which issuances of which order: how many are left out, and how many are wanted.
fn page(wire: &ListIssuancesRequest) -> Result<(OrderId, usize, usize), Status> {
    let order = wire.work_order.parse().map_err(refuse("work_order"))?;
    let from = match wire.page_token.as_str() {
        "" => 0,
        token => token.parse().map_err(|_| refuse("page_token")("is not from an answer of this signer"))?,
    };
    let size = match wire.page_size {
        0 => 100,
        size if size <= LARGEST_PAGE => size,
        size => return Err(refuse("page_size")(format!("is {size}, must be 1 to {LARGEST_PAGE}"))),
    };
    Ok((order, from, size as usize))
}

/// Of no use to be tried again, unlike what else is RESOURCE_EXHAUSTED.
fn quota_used_up(refusal: &OrderRefusal) -> Status {
    let details = ErrorDetails::with_error_info(QUOTA_USED_UP, "factory.signer.v1", HashMap::new());
    Status::with_error_details(Code::ResourceExhausted, refusal.to_string(), details)
}

fn issuance_id(field: &'static str, text: &str) -> Result<Uuid, Status> {
    match Uuid::try_parse(text) {
        // `try_parse` also takes the forms with braces, with urn: and without hyphens.
        Ok(id) if text.len() == 36 => Ok(id),
        _ => Err(refuse(field)("is no UUID in text form (36 characters)")),
    }
}

fn statement(wire: SignHeadRequest) -> Result<(NestName, HeadStatement), Status> {
    let station: NestName = wire.station.parse().map_err(refuse("station"))?;
    let records = (wire.first_sequence, wire.last_sequence);
    if records.0 == 0 || records.1 < records.0 {
        return Err(refuse("last_sequence")("must not be less than first_sequence, which begins at 1"));
    }
    if wire.closed_runs > records.1 {
        return Err(refuse("closed_runs")("must not be more than there are records"));
    }
    let statement = HeadStatement::new(
        station.to_string(),
        bytes("log_id", &wire.log_id)?,
        records,
        bytes("chain_hash", &wire.chain_hash)?,
        bytes("merkle_root", &wire.merkle_root)?,
        wire.closed_runs,
        wire.time,
    );
    Ok((station, statement))
}

fn bytes<const N: usize>(field: &'static str, bytes: &[u8]) -> Result<[u8; N], Status> {
    bytes.try_into().map_err(|_| refuse(field)(format!("is {} bytes long, must be {N}", bytes.len())))
}

/// `.map_err(refuse("field"))`: INVALID_ARGUMENT that names the field and its fault.
fn refuse<E: std::fmt::Display>(field: &'static str) -> impl FnOnce(E) -> Status {
    move |fault| Status::invalid_argument(format!("{field} {fault}"))
}

/// What the caller may know: whether to try again. The rest is in the log.
fn status_of(error: &RegistrarError) -> Status {
    let (code, text) = match error {
        RegistrarError::Refused(refusal) => {
            let code = match refusal {
                Refusal::Differs | Refusal::EndpointTaken(_) | Refusal::KeyTaken(_) => Code::AlreadyExists,
                Refusal::Order(OrderRefusal::Differs(_)) => Code::AlreadyExists,
                Refusal::Order(
                    used_up @ (OrderRefusal::UnitsUsedUp { .. } | OrderRefusal::ReplacementsUsedUp { .. }),
                ) => return quota_used_up(used_up),
                Refusal::Superseded | Refusal::NothingIssued | Refusal::Gone(_) | Refusal::Order(_) => {
                    Code::FailedPrecondition
                }
                Refusal::OtherEndpoint(_) | Refusal::Itself => Code::InvalidArgument,
            };
            return Status::new(code, refusal.to_string());
        }
        RegistrarError::Head(refusal) => {
            let mut status = Status::failed_precondition(refusal.to_string());
            if let Some(signed) = refusal.signed_up_to() {
                status.metadata_mut().insert(SIGNED_UP_TO, signed.into());
            }
            return status;
        }
        RegistrarError::Signing(_) | RegistrarError::Issue(IssueError::Signing(SigningError::Token(_))) => {
            (Code::Unavailable, "the token cannot sign at present; send the same request again")
        }
        RegistrarError::Issue(IssueError::Profile(fault @ ProfileError::NotPrintable(_))) => {
            return refuse("endpoint_name")(fault);
        }
        RegistrarError::Issue(IssueError::Profile(_)) => {
            (Code::FailedPrecondition, "the CA ends too soon to issue device certificates")
        }
        RegistrarError::Unfit(_) => return Status::failed_precondition(error.to_string()),
        RegistrarError::Ledger(_) => {
            (Code::Unavailable, "the ledger takes nothing at present; the signer's log says what to do")
        }
        RegistrarError::Panicked(_) => (Code::Internal, "the signer failed; its log says why"),
        RegistrarError::Issue(_) => {
            (Code::Internal, "no good certificate could be made; the signer's log says why")
        }
    };
    Status::new(code, text)
}
