use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::ledger::record::Issued;

const TERMS: Terms = Terms { serial: [1; 16], not_before: 0, not_after: 1 };

/// A request of issuance `id` for device `endpoint`, with key `key`.
fn asked(id: &str, endpoint: &str, key: u8, supersedes: Option<&str>) -> Asked {
    Asked {
        issuance: id.to_owned(),
        order: "WO-1".to_owned(),
        endpoint_name: endpoint.to_owned(),
        key: [key; 32],
        request: [key; 32],
        supersedes: supersedes.map(str::to_owned),
        terms: TERMS,
    }
}

/// Accounts after these requests, each of which was taken, and issued as the record of its place.
fn after(requests: &[&Asked]) -> Accounts {
    let mut accounts = Accounts::default();
    for (request, sequence) in requests.iter().zip(1_u64..) {
        assert_eq!(accounts.decide(request), Ok(Decision::New), "{request:?}");
        accounts.ask(request);
        accounts.issued(&request.issuance, sequence.into());
    }
    accounts
}

#[test]
fn each_request_gets_what_the_rules_say() {
    let a = asked("a", "one", 1, None);
    let check = |before: &[&Asked], request: &Asked, decision: Result<Decision, Refusal>| {
        assert_eq!(after(before).decide(request), decision, "{request:?} after {before:?}");
    };
    let taken = |id: &str| Err(Refusal::EndpointTaken(id.to_owned()));
    check(&[], &a, Ok(Decision::New));
    check(&[&a], &a, Ok(Decision::Answer(1.into())));
    check(&[&a], &asked("a", "one", 2, None), Err(Refusal::Differs));
    check(&[&a], &asked("b", "one", 2, None), taken("a"));
    check(&[&a], &asked("b", "two", 1, None), Err(Refusal::KeyTaken("a".to_owned())));
    check(&[&a], &asked("b", "two", 2, None), Ok(Decision::New));
    check(&[&a], &asked("b", "one", 2, Some("a")), Ok(Decision::New));
    check(&[&a], &asked("b", "one", 1, Some("a")), Ok(Decision::New));
    check(&[&a], &asked("b", "two", 2, Some("a")), Err(Refusal::OtherEndpoint("one".to_owned())));
    check(&[&a], &asked("b", "one", 2, Some("x")), taken("a"));
    check(&[&a], &asked("b", "one", 2, Some("b")), Err(Refusal::Itself));
    let b = asked("b", "one", 2, Some("a"));
    check(&[&a, &b], &a, Err(Refusal::Superseded));
    check(&[&a, &b], &b, Ok(Decision::Answer(2.into())));
    check(&[&a, &b], &asked("c", "one", 3, Some("a")), taken("b"));
    // The key of a void certificate is free again: it may be the device that kept it.
    check(&[&a, &b, &asked("c", "one", 3, Some("b"))], &asked("d", "two", 1, None), Ok(Decision::New));
    // One that was superseded before it came never gets a certificate.
    check(&[&asked("c", "one", 3, Some("b"))], &b, Err(Refusal::Superseded));
}

#[test]
fn what_was_counted_and_not_signed_is_signed_on_the_same_terms() {
    let mut accounts = Accounts::default();
    accounts.ask(&asked("a", "one", 1, None));
    let later = Asked { terms: Terms { serial: [9; 16], ..TERMS }, ..asked("a", "one", 1, None) };
    assert_eq!(accounts.decide(&later), Ok(Decision::Again(TERMS)));
}

#[test]
fn a_certificate_that_was_superseded_while_it_was_signed_is_void() {
    let mut accounts = Accounts::default();
    accounts.ask(&asked("a", "one", 1, None));
    accounts.ask(&asked("b", "one", 2, Some("a")));
    accounts.issued("a", 3.into());
    assert_eq!(accounts.account("a").unwrap().standing, Standing::Void(Some(3.into())));
    assert_eq!(accounts.decide(&asked("a", "one", 1, None)), Err(Refusal::Superseded));
}

fn head(first: u64, last: u64, root: u8, time: u64) -> HeadStatement {
    HeadStatement::new("line-1".to_owned(), [7; 16], (first, last), [root; 32], [root; 32], 0, time)
}

#[test]
fn a_head_follows_the_one_before_or_repeats_it() {
    let signed = |statement: &HeadStatement| HeadSigned { statement: statement.encode(), signature: vec![1] };
    let mut accounts = Accounts::default();
    assert_eq!(accounts.decide_head(&head(2, 9, 1, 0)), Err(HeadRefusal::Gap { expected: 1, asked: 2 }));
    assert_eq!(accounts.decide_head(&head(1, 9, 1, 0)), Ok(None));
    accounts.learn(1.into(), &Record::HeadSigned(signed(&head(1, 9, 1, 5))));
    let again = accounts.decide_head(&head(1, 9, 1, 6));
    assert_eq!(again, Ok(Some(signed(&head(1, 9, 1, 5)))), "asked later, it is the same head");
    assert_eq!(accounts.decide_head(&head(1, 9, 2, 6)), Err(HeadRefusal::Differs(9)));
    assert_eq!(accounts.decide_head(&head(1, 8, 1, 6)), Err(HeadRefusal::Behind { asked: 8, signed: 9 }));
    assert_eq!(accounts.decide_head(&head(11, 12, 1, 6)), Err(HeadRefusal::Gap { expected: 10, asked: 11 }));
    assert_eq!(accounts.decide_head(&head(9, 12, 1, 6)), Err(HeadRefusal::Gap { expected: 10, asked: 9 }));
    assert_eq!(accounts.decide_head(&head(10, 12, 1, 6)), Ok(None));
}

/// Requests as hostile or confused stations might send them: few ids, few devices, few keys.
fn requests() -> impl Strategy<Value = Vec<(Asked, bool)>> {
    let id = || proptest::sample::select(vec!["a", "b", "c", "d", "e"]);
    let endpoint = proptest::sample::select(vec!["one", "two"]);
    let request = (id(), endpoint, 1_u8..4, proptest::option::of(id()), any::<bool>())
        .prop_map(|(id, endpoint, key, supersedes, issued)| (asked(id, endpoint, key, supersedes), issued));
    proptest::collection::vec(request, 0..24)
}

/// Those that are live, each with its device and its key.
fn live(accounts: &Accounts) -> Vec<(&str, [u8; 32])> {
    let live = accounts.issuances.values().filter(|account| !matches!(account.standing, Standing::Void(_)));
    live.map(|account| (account.endpoint_name.as_str(), account.key)).collect()
}

proptest! {
    #[test]
    fn no_device_and_no_key_has_two_live_certificates_whatever_is_asked(requests in requests()) {
        let mut accounts = Accounts::default();
        for ((request, issued), sequence) in requests.into_iter().zip(1_u64..) {
            if accounts.decide(&request) == Ok(Decision::New) {
                accounts.ask(&request);
            }
            if issued {
                accounts.issued(&request.issuance, sequence.into());
            }
            let live = live(&accounts);
            let endpoints: HashSet<_> = live.iter().map(|(endpoint, _)| endpoint).collect();
            let keys: HashSet<_> = live.iter().map(|(_, key)| key).collect();
            prop_assert_eq!((endpoints.len(), keys.len()), (live.len(), live.len()));
        }
    }

    /// Requests are decided in one order, and their records may reach the ledger in another.
    #[test]
    fn the_order_of_the_records_does_not_matter(requests in requests(), seed in any::<u64>()) {
        let mut decided = Accounts::default();
        let mut records = Vec::new();
        for ((request, issued), sequence) in requests.into_iter().zip(1_u64..) {
            if decided.decide(&request) != Ok(Decision::New) {
                continue;
            }
            decided.ask(&request);
            let id = request.issuance.clone();
            records.push((sequence, Record::Asked(request)));
            if issued {
                decided.issued(&id, sequence.into());
                records.push((sequence, Record::Issued(Issued { issuance: id, certificate: Vec::new() })));
            }
        }
        // Of one issuance the request always comes before the certificate.
        let mut shuffled = records.clone();
        shuffled.sort_by_key(|(sequence, record)| {
            (sequence.wrapping_mul(seed | 1), matches!(record, Record::Issued(_)))
        });
        let mut learnt = Accounts::default();
        for (sequence, record) in shuffled {
            learnt.learn(sequence.into(), &record);
        }
        let standings = |accounts: &Accounts| {
            let mut all: Vec<_> = accounts.issuances.iter().map(|(id, a)| (id.clone(), a.standing)).collect();
            all.sort_by(|(a, _), (b, _)| a.cmp(b));
            all
        };
        prop_assert_eq!(standings(&learnt), standings(&decided));
    }
}
