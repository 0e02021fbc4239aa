//! Ends calls when their time is up. Knows of calls nothing.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::timeout;
use tonic::{
    Status,
    body::Body,
    codegen::{Service, http},
    server::NamedService,
};

/// A service whose calls end with DEADLINE_EXCEEDED when their time is up.
#[derive(Clone)]
pub struct Timely<S>(pub S);

impl<S: NamedService> NamedService for Timely<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Timely<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let wait = deadline(request.headers());
        let answer = self.0.call(request);
        let Some(wait) = wait else { return Box::pin(answer) };
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
