//! Lets a call in, or not: says who calls, and holds a peer to its share.
//!
//! Knows nothing of what is asked.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use tonic::{Code, Status, body::Body, codegen::http};
use tonic_types::{ErrorDetails, StatusExt};
use tower::{Layer, Service};

use crate::{
    door::Caller,
    peer::{Peer, TooMuch},
};

/// In front of all services.
#[derive(Clone)]
pub struct AdmissionLayer;

impl<S> Layer<S> for AdmissionLayer {
    type Service = Admission<S>;

    fn layer(&self, inner: S) -> Admission<S> {
        Admission { inner }
    }
}

/// A service behind an [`AdmissionLayer`].
#[derive(Clone)]
pub struct Admission<S> {
    inner: S,
}

type Answer<E> = Pin<Box<dyn Future<Output = Result<http::Response<Body>, E>> + Send>>;

impl<S> Service<http::Request<Body>> for Admission<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
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
                let answer = self.inner.call(call);
                Box::pin(async move {
                    let answer = answer.await;
                    drop(permit);
                    answer
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
