//! What a client may ask of the server, whatever the call: how long its messages are, how many calls it has under way, and
//! until when it waits. Knows of calls only their names.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use factory_proto::station::station_server::{Station, StationServer};
use tokio::time::timeout;
use tonic::{
    Status,
    body::Body,
    codegen::{Service, http},
    server::NamedService,
    transport::Server,
};

use crate::unit_list;

/// A command is small.
const LARGEST_MESSAGE: usize = 64 * 1024;
/// Those that bring a file with them.
const LARGE: [(&str, usize); 1] =
    [("/factory.station.v1.Station/OpenWorkOrder", unit_list::LONGEST + LARGEST_MESSAGE)];
/// Calls that one connection has under way, streams of events included.
const MOST_CALLS: u32 = 128;
/// gRPC's own clients send no more.
const LARGEST_HEADERS: u32 = 16 * 1024;
const KEEPALIVE: Duration = Duration::from_secs(30);
/// A client that does not answer for so long is gone.
const KEEPALIVE_ANSWER: Duration = Duration::from_secs(20);

/// A server that keeps to them.
pub fn server() -> Server {
    Server::builder()
        .max_concurrent_streams(MOST_CALLS)
        .http2_max_header_list_size(LARGEST_HEADERS)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_ANSWER))
}

/// A service with a limit for the messages of each call; ends calls with DEADLINE_EXCEEDED when their time is up.
pub struct Limited<S> {
    small: StationServer<S>,
    /// By the calls' paths.
    large: Vec<(&'static str, StationServer<S>)>,
}

impl<S: Station + Clone> Limited<S> {
    /// Sets the limits of a service.
    pub fn new(service: S) -> Self {
        let limited = |bytes| StationServer::new(service.clone()).max_decoding_message_size(bytes);
        let large = LARGE.map(|(path, bytes)| (path, limited(bytes))).into();
        Self { small: limited(LARGEST_MESSAGE), large }
    }
}

impl<S> Clone for Limited<S> {
    fn clone(&self) -> Self {
        Self { small: self.small.clone(), large: self.large.clone() }
    }
}

impl<S> NamedService for Limited<S> {
    const NAME: &'static str = StationServer::<S>::NAME;
}

impl<S: Station> Service<http::Request<Body>> for Limited<S> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let path = request.uri().path();
        let large = self.large.iter_mut().find(|(call, _)| *call == path);
        let service = large.map_or(&mut self.small, |(_, service)| service);
        let wait = deadline(request.headers());
        let answer = service.call(request);
        let Some(wait) = wait else { return answer };
        // tonic ends the call at the same time, but says CANCELLED.
        let bounded = timeout(wait, answer);
        Box::pin(async move { bounded.await.unwrap_or_else(|_| Ok(late().into_http())) })
    }
}

fn late() -> Status {
    Status::deadline_exceeded("the call's time is up; what it had begun to make durable goes on")
}

/// How long the client waits; gRPC's header, as in `500m`.
fn deadline(headers: &http::HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    // At most eight digits (gRPC over HTTP/2, "Requests").
    let is_number = number.len() <= 8 && number.bytes().all(|byte| byte.is_ascii_digit());
    let number: u64 = is_number.then(|| number.parse().ok())??;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_calls_deadline_is_read_as_grpc_writes_it() {
        let check = |text: &str, wanted: Option<Duration>| {
            let headers = http::HeaderMap::from_iter([(
                http::HeaderName::from_static("grpc-timeout"),
                http::HeaderValue::from_bytes(text.as_bytes()).unwrap(),
            )]);
            assert_eq!(deadline(&headers), wanted, "{text:?}");
        };
        check("5S", Some(Duration::from_secs(5)));
        check("500m", Some(Duration::from_millis(500)));
        check("99999999H", Some(Duration::from_secs(99_999_999 * 3600)));
        check("1M", Some(Duration::from_secs(60)));
        check("7u", Some(Duration::from_micros(7)));
        check("8n", Some(Duration::from_nanos(8)));
        for text in ["", "S", "5", "-5S", "+5S", "5 S", "123456789S", "5s", "ü"] {
            check(text, None);
        }
        assert_eq!(deadline(&http::HeaderMap::new()), None);
    }
}
