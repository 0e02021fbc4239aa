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

const RECIPE: [u8; 32] = [8; 32];
const NOW: i64 = 50;

fn order(id: &str, quantity: u32, replacements: u32) -> WorkOrder {
    WorkOrder {
        order: id.parse().unwrap(),
        product: "sensor".to_owned(),
        recipe: RECIPE,
        authority: [0; 32],
        profile: "bootstrap".parse().unwrap(),
        quantity,
        spare: 1,
        replacements,
        not_before: 10,
        not_after: 99,
    }
}

/// Accounts with two orders that allow much.
fn open() -> Accounts {
    let mut accounts = Accounts::default();
    accounts.order_opened(order("WO-1", 1000, 1000), String::new());
    accounts.order_opened(order("WO-2", 1000, 1000), String::new());
    accounts
}

fn decide(accounts: &Accounts, asked: &Asked) -> Result<Decision, Refusal> {
    accounts.decide(asked, RECIPE, NOW, &Batch::default())
}

/// Accounts after these requests, each of which was taken, and issued as the record of its place.
fn after(requests: &[&Asked]) -> Accounts {
    let mut accounts = open();
    for (request, sequence) in requests.iter().zip(1_u64..) {
        assert_eq!(decide(&accounts, request), Ok(Decision::New), "{request:?}");
        accounts.ask(request);
        accounts.issued(&request.issuance, sequence.into());
    }
    accounts
}

#[test]
fn each_request_gets_what_the_rules_say() {
    let a = asked("a", "one", 1, None);
    let check = |before: &[&Asked], request: &Asked, decision: Result<Decision, Refusal>| {
        assert_eq!(decide(&after(before), request), decision, "{request:?} after {before:?}");
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
    assert_eq!(decide(&accounts, &later), Ok(Decision::Again(TERMS)));
}

#[test]
fn a_certificate_that_was_superseded_while_it_was_signed_is_void() {
    let mut accounts = Accounts::default();
    accounts.ask(&asked("a", "one", 1, None));
    accounts.ask(&asked("b", "one", 2, Some("a")));
    accounts.issued("a", 3.into());
    assert_eq!(accounts.account("a").unwrap().standing, Standing::Void(Some(3.into())));
    assert_eq!(decide(&accounts, &asked("a", "one", 1, None)), Err(Refusal::Superseded));
}

#[test]
fn an_order_is_followed_to_the_letter() {
    let check = |change: fn(&mut WorkOrder), recipe: [u8; 32], now: i64, refusal: Option<OrderRefusal>| {
        let mut accounts = Accounts::default();
        let mut order = order("WO-1", 1, 0);
        change(&mut order);
        accounts.order_opened(order, String::new());
        let decision = accounts.decide(&asked("a", "one", 1, None), recipe, now, &Batch::default());
        assert_eq!(decision, refusal.map_or(Ok(Decision::New), |refusal| Err(refusal.into())));
    };
    let id = || "WO-1".to_owned();
    check(|_| (), RECIPE, 10, None);
    check(|_| (), RECIPE, 99, None);
    check(|_| (), RECIPE, 9, Some(OrderRefusal::NotYet { order: id(), begins: 10, now: 9 }));
    check(|_| (), RECIPE, 100, Some(OrderRefusal::Expired { order: id(), ended: 99, now: 100 }));
    check(|_| (), [9; 32], NOW, Some(OrderRefusal::OtherRecipe(id())));
    check(|order| order.order = "WO-3".parse().unwrap(), RECIPE, NOW, Some(OrderRefusal::Unknown(id())));
}

#[test]
fn an_order_that_ended_stays_ended_when_the_clock_goes_back() {
    let mut accounts = open();
    accounts.see(100);
    let refused = decide(&accounts, &asked("a", "one", 1, None)).unwrap_err();
    assert_eq!(refused, OrderRefusal::Expired { order: "WO-1".to_owned(), ended: 99, now: 100 }.into());
}

#[test]
fn units_and_replacements_are_counted_apart_and_never_beyond_the_order() {
    let mut accounts = Accounts::default();
    accounts.order_opened(order("WO-1", 1, 1), String::new());
    let take = |accounts: &mut Accounts, request: Asked| {
        assert_eq!(decide(accounts, &request), Ok(Decision::New), "{request:?}");
        accounts.ask(&request);
    };
    // A quantity of one, and a spare one.
    take(&mut accounts, asked("a", "one", 1, None));
    take(&mut accounts, asked("b", "two", 2, None));
    let units = OrderRefusal::UnitsUsedUp { order: "WO-1".to_owned(), units: 2 };
    assert_eq!(decide(&accounts, &asked("c", "three", 3, None)), Err(units.into()));
    take(&mut accounts, asked("c", "one", 3, Some("a")));
    let replacements = OrderRefusal::ReplacementsUsedUp { order: "WO-1".to_owned(), replacements: 1 };
    assert_eq!(decide(&accounts, &asked("d", "two", 4, Some("b"))), Err(replacements.into()));
    // What was counted is answered all the same.
    assert_eq!(decide(&accounts, &asked("b", "two", 2, None)), Ok(Decision::Again(TERMS)));
    let account = accounts.order("WO-1").unwrap();
    assert_eq!((account.units, account.replacements, account.places.sum()), (2, 1, 3));
}

#[test]
fn requests_that_are_counted_together_count_for_each_other() {
    let mut accounts = Accounts::default();
    accounts.order_opened(order("WO-1", 1, 0), String::new());
    let mut batch = Batch::default();
    for (id, endpoint, key, fits) in [("a", "one", 1, true), ("b", "two", 2, true), ("c", "three", 3, false)]
    {
        let request = asked(id, endpoint, key, None);
        assert!(!batch.meets(&request));
        let decision = accounts.decide(&request, RECIPE, NOW, &batch);
        assert_eq!(decision.is_ok(), fits, "{id}: {decision:?}");
        batch.add(&request, accounts.replaces(&request));
    }
    for other in [
        asked("a", "x", 9, None),
        asked("x", "one", 9, None),
        asked("x", "x", 1, None),
        asked("x", "x", 9, Some("a")),
    ] {
        assert!(batch.meets(&other), "{other:?}");
    }
}

#[test]
fn what_became_of_a_unit_is_kept_and_scrapped_is_for_good() {
    use Disposition::{Quarantined, Scrapped, Shipped};
    let disposed = |disposition| Disposed { issuance: "a".to_owned(), disposition };
    let mut accounts = open();
    assert_eq!(accounts.decide_disposal(&disposed(Shipped)), Err(Refusal::NothingIssued));
    accounts.ask(&asked("a", "one", 1, None));
    assert_eq!(accounts.decide_disposal(&disposed(Shipped)), Err(Refusal::NothingIssued));
    assert_eq!(accounts.decide_disposal(&disposed(Scrapped)), Ok(true), "a board without a certificate");
    accounts.issued("a", 2.into());
    for disposition in [Quarantined, Shipped, Quarantined, Scrapped] {
        assert_eq!(accounts.decide_disposal(&disposed(disposition)), Ok(true), "{disposition:?}");
        accounts.disposed(&disposed(disposition));
        assert_eq!(accounts.decide_disposal(&disposed(disposition)), Ok(false), "{disposition:?}");
    }
    assert_eq!(accounts.decide_disposal(&disposed(Shipped)), Err(Refusal::Gone(Shipped)));
    assert_eq!(accounts.account("a").unwrap().standing, Standing::Void(Some(2.into())));
    // Another board may take the name: as one more certificate for a device that had one.
    let next = asked("b", "one", 2, None);
    assert_eq!(decide(&accounts, &next), Ok(Decision::New));
    assert!(accounts.replaces(&next));
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
    let order = proptest::sample::select(vec!["WO-1", "WO-2"]);
    let request = (id(), endpoint, 1_u8..4, proptest::option::of(id()), order, any::<bool>()).prop_map(
        |(id, endpoint, key, supersedes, order, issued)| {
            (Asked { order: order.to_owned(), ..asked(id, endpoint, key, supersedes) }, issued)
        },
    );
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
        let mut accounts = open();
        for ((request, issued), sequence) in requests.into_iter().zip(1_u64..) {
            if decide(&accounts, &request) == Ok(Decision::New) {
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
        for id in ["WO-1", "WO-2"] {
            let order = accounts.order(id).unwrap();
            prop_assert_eq!(order.units + order.replacements, order.places.sum());
            let standing = accounts.issuances(id).count();
            prop_assert_eq!(order.places.sum() as usize, standing);
        }
    }

    /// Requests are decided in one order, and their records may reach the ledger in another.
    #[test]
    fn the_order_of_the_records_does_not_matter(requests in requests(), seed in any::<u64>()) {
        let mut decided = open();
        let mut records = Vec::new();
        for ((request, issued), sequence) in requests.into_iter().zip(1_u64..) {
            if decide(&decided, &request) != Ok(Decision::New) {
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
        let mut learnt = open();
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
