//! Whatever comes as a request: it is a command within the bounds that the API names, or a refusal that is not longer than
//! clients take; and a page begins where an answer of ours said.
#![no_main]

use factory_proto::station::{self as messages, UploadRecipeStart};
use factory_station::{
    record::NestAct,
    rpc::{
        command::{self, Abort, List, ListAudit, OpenOrder, Reconcile, StartUnit},
        page::ListDigest,
        watch::Wanted,
    },
};
use libfuzzer_sys::fuzz_target;
use prost::Message;
use tonic::{Code, Status, codegen::http::Response};

/// What gRPC's own clients take of trailers: 8 KiB, and as much again before they end the connection.
const LONGEST: usize = 9 * 1024;

fn check<M: Message + Default, T>(
    message: &[u8],
    read: impl Fn(M) -> Result<T, Status>,
    is_within: impl Fn(T) -> bool,
) {
    let Ok(message) = M::decode(message) else { return };
    match read(message) {
        Ok(command) => assert!(is_within(command), "it is out of bounds"),
        Err(refused) => {
            assert_eq!(refused.code(), Code::InvalidArgument);
            let headers = refused.into_http::<()>();
            assert!(length(&headers) <= LONGEST, "{headers:?}");
        }
    }
}

fn parsed<M: Message + Default, T: TryFrom<M, Error = Status>>(
    message: &[u8],
    is_within: impl Fn(T) -> bool,
) {
    check(message, |message: M| T::try_from(message), is_within);
}

/// As HTTP/2 counts (RFC 9113, section 6.5.2).
fn length(response: &Response<()>) -> usize {
    response.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum()
}

fn is_reason(text: &str) -> bool {
    text.chars().count() <= 200
}

fn is_given(text: &str) -> bool {
    is_reason(text) && !text.trim().is_empty()
}

fn list(message: &[u8]) {
    parsed::<messages::ListUnitsRequest, List>(message, |list| {
        let token = list.digest.token(list.from);
        (1..=1000).contains(&list.size) && list.digest.begins(&token) == Ok(list.from)
    });
    let Ok(request) = messages::ListUnitsRequest::decode(message) else { return };
    let digest = ListDigest::of(&request);
    // There is one token for each place.
    if let Ok(begins) = digest.begins(&request.page_token) {
        assert_eq!(digest.token(begins), request.page_token);
    }
    let own = messages::ListUnitsRequest { page_token: digest.token(7.into()), ..request.clone() };
    assert_eq!(ListDigest::of(&own).begins(&own.page_token), Ok(7.into()));
    let other = messages::ListUnitsRequest { serial: format!("{}x", request.serial), ..own };
    assert!(ListDigest::of(&other).begins(&other.page_token).is_err());
}

fuzz_target!(|input: (u8, &[u8])| {
    let (kind, message) = input;
    let caller = || "caller".to_owned();
    match kind % 21 {
        0 => parsed::<messages::OpenWorkOrderRequest, OpenOrder>(message, |open| {
            (1..=1_000_000).contains(&open.quantity)
                && !open.signed.is_empty()
                && open.units.is_none_or(|units| !units.is_empty())
        }),
        1 => check(message, command::pause, |(_, moved)| is_given(&moved.reason)),
        2 => check(message, command::resume, |(_, moved)| is_given(&moved.reason)),
        3 => check(message, command::close, |(_, moved)| is_given(&moved.reason)),
        4 => parsed::<messages::ReconcileWorkOrderRequest, Reconcile>(message, |asked| {
            (1..=1000).contains(&asked.size)
        }),
        5 => parsed::<messages::StartUnitRequest, StartUnit>(message, |start| {
            start.values.iter().all(|(name, value)| name.len() <= 32 && value.len() <= 256)
        }),
        6 => check(message, command::golden, |_| true),
        7 => check(
            message,
            |request| command::park(request, caller()),
            |(_, commanded)| is_given(&commanded.reason) && commanded.by.chars().count() <= 64,
        ),
        8 => check(
            message,
            |mut request: messages::EnableNestRequest| {
                let nest = request.nest.clone();
                command::nest(&mut request, &nest, NestAct::Enable, caller())
            },
            |(_, commanded)| commanded.by == "caller",
        ),
        9 => check::<UploadRecipeStart, _>(message, command::upload, |_| true),
        10 => check(
            message,
            |mut request: messages::ActivateRecipeRequest| {
                let (recipe, digest) = (request.recipe.clone(), request.recipe_digest.clone());
                command::recipe(&mut request, &recipe, &digest)
            },
            |_| true,
        ),
        11 => parsed::<messages::AbortUnitRequest, Abort>(message, |abort| is_reason(&abort.reason)),
        12 => check(message, command::release, |(_, released)| is_given(&released.reason)),
        13 => check(message, command::dispose, |_| true),
        14 => check(message, command::allowance, |(_, allowance)| !allowance.trim().is_empty()),
        15 => list(message),
        16 => parsed::<messages::ListAuditRecordsRequest, ListAudit>(message, |list| {
            (1..=1000).contains(&list.page.size)
        }),
        17 => check(message, command::attest, |(_, stated)| {
            is_given(&stated.statement) && (1..=64).contains(&stated.account.len())
        }),
        18 => check(message, command::yields, |asked| asked.order.is_some() || asked.from.is_some()),
        19 => parsed::<messages::WatchEventsRequest, Wanted>(message, |wanted| {
            wanted.filter.nests.len() <= 1000
        }),
        _ => check(message, |request: messages::GetUnitRequest| command::run_id(&request.run_id), |_| true),
    }
});
