//! Lets a call in, or not: says who calls, holds a peer to its share, and has the ledger's head heard and handed out.
//!
//! Knows nothing of what is asked.

use std::{
    future::Future,
    mem,
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use factory_proto::ledger_head::METADATA;
use tonic::{
    Code, Status,
    body::Body,
    codegen::http,
    metadata::{BinaryMetadataKey, BinaryMetadataValue, MetadataMap},
};
use tonic_types::{ErrorDetails, StatusExt};
use tower::{Layer, Service};

use crate::{
    door::Caller,
    peer::{Peer, TooMuch},
    witness::{Witness, WitnessError},
};

/// Who asks how the signer is gets an answer whatever the ledger is.
const HEALTH: &str = "/grpc.health.v1.";

/// In front of all services.
#[derive(Clone)]
pub struct AdmissionLayer(pub Witness);

impl<S> Layer<S> for AdmissionLayer {
    type Service = Admission<S>;

    fn layer(&self, inner: S) -> Admission<S> {
        Admission { inner, witness: self.0.clone() }
    }
}

/// A service behind an [`AdmissionLayer`].
#[derive(Clone)]
pub struct Admission<S> {
    inner: S,
    witness: Witness,
}

type Answer<E> = Pin<Box<dyn Future<Output = Result<http::Response<Body>, E>> + Send>>;

impl<S> Service<http::Request<Body>> for Admission<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = Answer<S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut call: http::Request<Body>) -> Self::Future {
        match admit(call.extensions().get()) {
            Ok((peer, permit)) => {
                call.extensions_mut().insert(peer);
                // The one that has said that it is ready.
                let fresh = self.inner.clone();
                let mut inner = mem::replace(&mut self.inner, fresh);
                let witness = self.witness.clone();
                Box::pin(async move {
                    if !call.uri().path().starts_with(HEALTH)
                        && let Err(refused) = hear(&witness, call.headers()).await
                    {
                        return Ok(refused.into_http());
                    }
                    let mut answer = inner.call(call).await?;
                    hand_out(&witness, answer.headers_mut());
                    drop(permit);
                    Ok(answer)
                })
            }
            Err(refused) => Box::pin(async move { Ok(refused.into_http()) }),
        }
    }
}

fn admit(caller: Option<&Caller>) -> Result<(Peer, tokio::sync::OwnedSemaphorePermit), Status> {
    let Caller(who) = caller.ok_or_else(|| Status::internal("nobody has said who calls"))?;
    let peer = who.as_ref().map_err(|stranger| Status::permission_denied(stranger.to_string()))?;
    let permit = peer.begin_call(Instant::now()).map_err(too_much)?;
    Ok((peer.clone(), permit))
}

async fn hear(witness: &Witness, headers: &http::HeaderMap) -> Result<(), Status> {
    let brought = MetadataMap::from_headers(headers.clone()).get_bin(METADATA).map(|it| it.to_bytes());
    let brought =
        brought.transpose().map_err(|_| Status::invalid_argument(format!("{METADATA} is no base64")))?;
    witness.hear(brought.as_deref()).await.map_err(|refused| match refused {
        WitnessError::Unread => Status::unavailable(refused.to_string()),
        WitnessError::Stranger | WitnessError::Betrayed(_) => {
            Status::failed_precondition(refused.to_string())
        }
    })
}

fn hand_out(witness: &Witness, headers: &mut http::HeaderMap) {
    let Some(head) = witness.newest() else { return };
    let mut metadata = MetadataMap::new();
    metadata.insert_bin(BinaryMetadataKey::from_static(METADATA), BinaryMetadataValue::from_bytes(&head));
    headers.extend(metadata.into_headers());
}

fn too_much(refused: TooMuch) -> Status {
    Status::with_error_details(
        Code::ResourceExhausted,
        format!(
            "too many calls; send the same request again in {}",
            humantime::format_duration(refused.after)
        ),
        ErrorDetails::with_retry_info(Some(refused.after)),
    )
}
