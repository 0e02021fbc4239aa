//! Lets a call in, or not: says who calls, and holds it to its share.
//!
//! Knows nothing of what is asked.

use std::{
    future::Future,
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::{Code, Status, body::Body, codegen::http};
use tonic_types::{ErrorDetails, StatusExt};
use tower::{Layer, Service};

use crate::{
    allowance::{Place, TooMuch},
    guest::{Caller, Guest, House},
    length,
};

/// In front of all services of a house. Each call that comes through it carries its peer, the [`crate::guest::Origin`]
/// and the [`Place`] that it has; whatever goes on for longer than the answer keeps a clone of that.
pub struct AdmissionLayer<H>(PhantomData<fn() -> H>);

impl<H> AdmissionLayer<H> {
    /// For the guests of this house.
    #[expect(clippy::new_without_default, reason = "there is no usual house")]
    pub fn new() -> Self {
        Self(PhantomData)
    }
}

impl<H> Clone for AdmissionLayer<H> {
    fn clone(&self) -> Self {
        Self(PhantomData)
    }
}

impl<H, S> Layer<S> for AdmissionLayer<H> {
    type Service = Admission<H, S>;

    fn layer(&self, inner: S) -> Admission<H, S> {
        Admission { inner, house: PhantomData }
    }
}

/// A service behind an [`AdmissionLayer`].
pub struct Admission<H, S> {
    inner: S,
    house: PhantomData<fn() -> H>,
}

impl<H, S: Clone> Clone for Admission<H, S> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), house: PhantomData }
    }
}

type Answer<E> = Pin<Box<dyn Future<Output = Result<http::Response<Body>, E>> + Send>>;

impl<H: House, S> Service<http::Request<Body>> for Admission<H, S>
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
        match admit::<H>(call.extensions_mut()) {
            Ok(place) => {
                let path = call.uri().path().to_owned();
                let answer = self.inner.call(call);
                Box::pin(async move {
                    let answer = length::told(&path, answer.await?);
                    Ok(answer.map(|body| Body::new(Held { body, _place: place })))
                })
            }
            Err(refused) => Box::pin(async move { Ok(refused.into_http()) }),
        }
    }
}

fn admit<H: House>(call: &mut http::Extensions) -> Result<Place, Status> {
    let caller = call.get::<Caller<H::Peer, H::Stranger>>();
    let Caller { who, from } = caller.ok_or_else(|| Status::internal("nobody has said who calls"))?.clone();
    let peer = who.map_err(|stranger| Status::permission_denied(stranger.to_string()))?;
    let place = peer.allowance().begin_call(Instant::now()).map_err(too_much)?;
    call.insert(peer);
    call.insert(from);
    call.insert(place.clone());
    Ok(place)
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

/// An answer, whose call is under way until all of it was taken.
struct Held {
    body: Body,
    _place: Place,
}

impl HttpBody for Held {
    type Data = <Body as HttpBody>::Data;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Status>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
