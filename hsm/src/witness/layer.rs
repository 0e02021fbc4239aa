//! Where the witness meets the calls: takes the head that a call brings, and hands out the newest one with the answer.

use std::{
    future::Future,
    mem,
    pin::Pin,
    task::{Context, Poll},
};

use factory_proto::ledger_head::METADATA;
use tonic::{
    Status,
    body::Body,
    codegen::http,
    metadata::{BinaryMetadataKey, BinaryMetadataValue, MetadataMap},
};
use tower::{Layer, Service};

use super::{Witness, WitnessError};

/// Who asks how the signer is gets an answer whatever the ledger is.
const HEALTH: &str = "/grpc.health.v1.";

/// In front of all services, behind the one that lets callers in.
#[derive(Clone)]
pub struct WitnessLayer(pub Witness);

impl<S> Layer<S> for WitnessLayer {
    type Service = Witnessed<S>;

    fn layer(&self, inner: S) -> Witnessed<S> {
        Witnessed { inner, witness: self.0.clone() }
    }
}

/// A service behind a [`WitnessLayer`].
#[derive(Clone)]
pub struct Witnessed<S> {
    inner: S,
    witness: Witness,
}

type Answer<E> = Pin<Box<dyn Future<Output = Result<http::Response<Body>, E>> + Send>>;

impl<S> Service<http::Request<Body>> for Witnessed<S>
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

    fn call(&mut self, call: http::Request<Body>) -> Self::Future {
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
            Ok(answer)
        })
    }
}

async fn hear(witness: &Witness, headers: &http::HeaderMap) -> Result<(), Status> {
    let brought = headers.get(METADATA).map(|_| MetadataMap::from_headers(headers.clone()));
    let brought = brought.as_ref().and_then(|all| all.get_bin(METADATA)).map(|head| head.to_bytes());
    let brought =
        brought.transpose().map_err(|_| Status::invalid_argument(format!("{METADATA} is no base64")))?;
    witness.hear(brought.as_deref()).await.map_err(|refused| match refused {
        WitnessError::Unread => Status::unavailable(refused.to_string()),
        WitnessError::Stranger => Status::permission_denied(refused.to_string()),
        WitnessError::Betrayed(_) => Status::data_loss(refused.to_string()),
    })
}

fn hand_out(witness: &Witness, headers: &mut http::HeaderMap) {
    let Some(head) = witness.newest() else { return };
    let mut metadata = MetadataMap::new();
    metadata.insert_bin(BinaryMetadataKey::from_static(METADATA), BinaryMetadataValue::from_bytes(&head));
    headers.extend(metadata.into_headers());
}
