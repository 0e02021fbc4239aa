use std::{fs, path::PathBuf};

use data_encoding::BASE64URL_NOPAD;
use factory_jws::LIMIT;
use proptest::prelude::*;
use rcgen::{KeyPair, PublicKeyData};

use super::*;

struct Owner {
    key: OrderKey,
    keys: OrderKeys,
}

fn pem(label: &str, der: &[u8]) -> String {
    let base64 = data_encoding::BASE64.encode(der);
    format!("-----BEGIN {label}-----\n{base64}\n-----END {label}-----\n")
}

fn owner() -> Owner {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| -> PathBuf { folder.path().join(name) };
    let pair = KeyPair::generate().unwrap();
    fs::write(path("key.pem"), pair.serialize_pem()).unwrap();
    fs::write(path("public.pem"), pem("PUBLIC KEY", &pair.subject_public_key_info())).unwrap();
    Owner {
        key: OrderKey::read(&path("key.pem")).unwrap(),
        keys: OrderKeys::read(&[path("public.pem")]).unwrap(),
    }
}

fn order() -> WorkOrder {
    WorkOrder {
        order: "WO-1".parse().unwrap(),
        product: "sensor".to_owned(),
        recipe: [1; 32],
        authority: [2; 32],
        profile: "bootstrap".parse().unwrap(),
        quantity: 10,
        spare: 2,
        replacements: 3,
        not_before: 100,
        not_after: 200,
    }
}

/// Signs any payload under any header with the owner's key.
fn signed(owner: &Owner, header: &str, payload: &str) -> String {
    let encode = |text: &str| BASE64URL_NOPAD.encode(text.as_bytes());
    let message = format!("{}.{}", encode(header), encode(payload));
    let signature = owner.key.sign(message.as_bytes());
    format!("{message}.{}", BASE64URL_NOPAD.encode(&signature))
}

#[test]
fn what_the_owner_signed_is_read_as_it_was_meant() {
    let owner = owner();
    assert_eq!(WorkOrder::verify(&order().sign(&owner.key), &owner.keys), Ok(order()));
}

#[test]
fn an_order_that_somebody_else_signed_is_refused() {
    let text = order().sign(&owner().key);
    assert_eq!(WorkOrder::verify(&text, &owner().keys), Err(OrderError::Signature));
}

#[test]
fn only_what_an_order_says_is_an_order_though_the_owner_signed_it() {
    const HEADER: &str = r#"{"alg":"ES256","typ":"factory-work-order+jws"}"#;
    let owner = owner();
    let payload = |old: &str, new: &str| {
        let good = format!(
            r#"{{"order":"WO-1","product":"sensor","recipe":"{0}","ca":"{0}","profile":"bootstrap","quantity":10,"nbf":1,"exp":2}}"#,
            "ab".repeat(32)
        );
        assert!(good.contains(old), "{old}");
        good.replacen(old, new, 1)
    };
    let check = |header: &str, payload: &str, sentence: &str| {
        let error = WorkOrder::verify(&signed(&owner, header, payload), &owner.keys).unwrap_err();
        assert!(error.to_string().starts_with(sentence), "{error} does not start with {sentence}");
    };
    let good = payload("sensor", "sensor");
    assert!(WorkOrder::verify(&signed(&owner, HEADER, &good), &owner.keys).is_ok());
    for header in [
        r#"{"alg":"none","typ":"factory-work-order+jws"}"#,
        r#"{"alg":"ES256","typ":"JWT"}"#,
        r#"{"alg":"ES256"}"#,
        r#"{"alg":"ES256","typ":"factory-work-order+jws","crit":["exp"]}"#,
        r#"{"alg":"ES256","typ":"factory-work-order+jws","jwk":{}}"#,
        "",
    ] {
        check(header, &good, "must have the header");
    }
    check(HEADER, &payload("WO-1", "a/b"), "has a name in `order` that holds '/'");
    check(HEADER, &payload("sensor", ""), "has a `product` that is not 1 to 64");
    check(HEADER, &payload("abab", "ABab"), "has a `recipe` that is not 64 lower-case hex digits");
    check(HEADER, &payload("\"quantity\":10", "\"quantity\":0"), "has a `quantity` that is not 1 to 1000000");
    check(HEADER, &payload("\"nbf\"", "\"spare\":1000001,\"nbf\""), "has a `spare` that is more than");
    check(HEADER, &payload("\"exp\":2", "\"exp\":0"), "has a `exp` that lies before its `nbf`");
    check(
        HEADER,
        &payload("\"exp\":2", "\"exp\":2,\"exp\":9"),
        "does not say what a work order says: duplicate",
    );
    check(
        HEADER,
        &payload("\"exp\":2", "\"exp\":2,\"iss\":\"me\""),
        "does not say what a work order says: unknown",
    );
    check(HEADER, &payload(",\"exp\":2", ""), "does not say what a work order says: missing field `exp`");
}

#[test]
fn what_is_no_jws_is_refused() {
    let owner = owner();
    for (text, error) in [
        (String::new(), OrderError::Jws(JwsError::Form)),
        ("a.b".to_owned(), OrderError::Jws(JwsError::Form)),
        ("!.!.!".to_owned(), OrderError::Jws(JwsError::Form)),
        ("x".repeat(LIMIT + 1), OrderError::Jws(JwsError::TooLong(LIMIT + 1))),
        (format!("{}=", order().sign(&owner.key)), OrderError::Jws(JwsError::Form)),
    ] {
        assert_eq!(WorkOrder::verify(&text, &owner.keys), Err(error), "{text:.80}");
    }
}

proptest! {
    #[test]
    fn an_altered_order_is_never_taken(at in 0_usize..500, with in "[A-Za-z0-9_.=-]") {
        let owner = owner();
        let text = order().sign(&owner.key);
        let at = at % text.len();
        let altered = format!("{}{with}{}", &text[..at], &text[at + 1..]);
        // The last character of a part may hold bits that mean nothing; base64url is read strictly, so it may not.
        prop_assert_eq!(WorkOrder::verify(&altered, &owner.keys).is_ok(), altered == text);
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in ".{0,300}") {
        let _ = WorkOrder::verify(&text, &owner().keys);
    }
}
