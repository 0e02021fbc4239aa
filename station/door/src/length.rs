//! Messages that are longer than a service takes: told as what they are.
//!
//! tonic says OUT_OF_RANGE, which callers take for a value in the message, and gives no reason. Knows no service.

use tonic::{Code, Status, body::Body, codegen::http};
use tonic_types::{ErrorDetails, StatusExt as _};

/// `reason` of the ErrorInfo.
const TOO_LARGE: &str = "MESSAGE_TOO_LARGE";

/// The answer to a call of this path; RESOURCE_EXHAUSTED in the place of tonic's own refusal. That alone is without
/// details: a service that refuses a value says why.
pub(crate) fn told(path: &str, answer: http::Response<Body>) -> http::Response<Body> {
    match Status::from_header_map(answer.headers()) {
        Some(refused) if refused.code() == Code::OutOfRange && refused.details().is_empty() => {
            let service = path.trim_start_matches('/').split('/').next().unwrap_or_default();
            let domain = service.rsplit_once('.').map_or(service, |(package, _)| package);
            let about = [("call".to_owned(), path.to_owned())];
            let details = ErrorDetails::with_error_info(TOO_LARGE, domain, about);
            Status::with_error_details(Code::ResourceExhausted, refused.message(), details).into_http()
        }
        _ => answer,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn check(refused: &Status, code: Code, reason: Option<(&str, &str)>) {
        let answer = told("/factory.signer.v1.Signer/Issue", refused.clone().into_http());
        let told = Status::from_header_map(answer.headers()).unwrap();
        assert_eq!((told.code(), told.message()), (code, refused.message()));
        let info = told.get_details_error_info();
        assert_eq!(info.as_ref().map(|info| (info.reason.as_str(), info.domain.as_str())), reason);
    }

    #[test]
    fn only_a_refusal_without_a_reason_is_told_anew() {
        let ours = Some((TOO_LARGE, "factory.signer.v1"));
        check(&Status::out_of_range("decoded message length too large"), Code::ResourceExhausted, ours);
        check(&Status::not_found("no such order"), Code::NotFound, None);
        let details = ErrorDetails::with_error_info("SEQUENCE_BEYOND_LOG", "x", HashMap::new());
        let theirs = Status::with_error_details(Code::OutOfRange, "no such record", details);
        check(&theirs, Code::OutOfRange, Some(("SEQUENCE_BEYOND_LOG", "x")));
        let fine = told("/a.b/C", http::Response::new(Body::empty()));
        assert_eq!(fine.status(), 200);
    }
}
