//! The protocol's rules, one a line: a good bundle, one thing changed, what the device says to it.

use std::slice;

use aws_lc_rs::{
    encoding::{AsDer as _, EcPrivateKeyRfc5915Der},
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair},
};
use factory_fixtures::fcc::message::Answer;
use factory_hil_tests::device::{
    cbor::Value,
    message::{Device, Reply},
    scenario::Scenario,
    store::{Holdings, Kind},
};
use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256, date_time_ymd,
};

use super::{
    messages::{CERTIFICATE, KEY, Message, URI, certificate, common_name, encoded, map, text},
    recorded::{self, bytes},
    sim,
};

/// What a device that has just started says to these messages: the last answer, and what it then holds.
fn say(messages: &[Message]) -> (Reply, Holdings) {
    let (_directory, storage) = sim::place();
    let mut device = Device::start(&storage, false, &Scenario::default()).unwrap();
    let reply = messages.iter().map(|message| device.handle(&message.encode())).last().unwrap();
    (reply, sim::held(&storage))
}

fn answer(messages: &[Message]) -> Answer {
    match say(messages).0 {
        Reply::Answer(payload) => Answer::decode(&payload).unwrap(),
        Reply::NotProcessed => panic!("the message was not processed"),
    }
}

/// What a device says to this payload, and what it then holds.
fn say_encoded(payload: &[u8]) -> (u32, Holdings) {
    let (_directory, storage) = sim::place();
    let Reply::Answer(answer) = Device::start(&storage, false, &Scenario::default()).unwrap().handle(payload)
    else {
        panic!("the message was not processed")
    };
    (Answer::decode(&answer).unwrap().return_status.number(), sim::held(&storage))
}

/// The payload with its one `from` replaced.
fn replaced(payload: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let at = payload.windows(from.len()).position(|window| window == from).expect("it is there");
    [&payload[..at], to, &payload[at + from.len()..]].concat()
}

fn check(message: Message, status: u32, info: &str) {
    let answer = answer(&[message]);
    assert_eq!((answer.return_status.number(), answer.info.as_str()), (status, info));
}

const FINE: &str = "The Factory process succeeded";
const GENERAL: &str = "General error:";

#[test]
fn structure_is_checked_before_anything_else() {
    let good = Message::bundle;
    check(good(), 0, FINE);
    check(good().set("SchemeVersion", text("0.0.2")), 24, GENERAL);
    check(good().without("SchemeVersion"), 24, GENERAL);
    check(good().set("SchemeVersion", Value::Bytes(b"0.0.1".to_vec())), 0, FINE);
    check(good().set("Unheard", text("")), 23, GENERAL);
    check(good().set("Verify", Value::Other), 20, GENERAL);
    check(good().set("KpAlvSess", Value::Integer(1)), 35, GENERAL);
    check(good().set("Entropy", Value::Bytes(vec![0; 47])), 3, GENERAL);
    check(good().set("Entropy", Value::Bytes(vec![0; 48])), 0, FINE);
    check(good().set("ROT", Value::Bytes(vec![0; 16])), 0, FINE);
    check(Message((0..13).map(|n| (n.to_string(), Value::Integer(0))).collect()), 20, GENERAL);
    let verify = Message::bundle().without("Verify");
    check(Message([verify.0, vec![("Veri".into(), Value::Integer(1))]].concat()), 0, FINE);
}

#[test]
fn items_are_checked_as_they_are_stored() {
    let good = Message::bundle;
    let p384 = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    let (p384_certificate, p384_key) = certificate(&p384, |_| {});
    check(good().item(KEY, "ACL", text("")), 37, GENERAL);
    check(good().item(KEY, "Type", text("RSAPrivate")), 37, GENERAL);
    check(good().item(KEY, "Format", text("DER")), 37, GENERAL);
    check(good().item(KEY, "Data", Value::Bytes(p384_key)), 18, &format!("Private key parse failed:{KEY}"));
    let unread = format!("Certificate parse failed:{CERTIFICATE}");
    check(good().item(CERTIFICATE, "Data", Value::Bytes(p384_certificate)), 18, &unread);
    check(good().item(CERTIFICATE, "Data", Value::Bytes(b"-----BEGIN".to_vec())), 18, &unread);
    check(good().item(CERTIFICATE, "Format", text("pem")), 37, GENERAL);
    check(good().item(CERTIFICATE, "PrKN", text(KEY)), 0, FINE);
    check(
        good().item(CERTIFICATE, "PrKN", text("nobody")),
        25,
        &format!("Item does not exist:{CERTIFICATE}"),
    );
    check(good().parameter("mbed.Timezone", Value::Other), 20, GENERAL);
    check(good().parameter("a b", text("")), 16, "File name corrupted:a b");
    let long = "n".repeat(101);
    check(good().parameter(&long, text("")), 16, &format!("File name too long:{long}"));
    check(good().parameter(&long[1..], text("")), 0, FINE);
    let twice = good().add("ConfigParams", &[("Name", text("mbed.Timezone")), ("Data", text("UTC"))]);
    check(twice, 17, "Data already exists:mbed.Timezone");
    check(good().parameter("own", Value::Bytes(vec![7; 70_000])), 0, FINE);
    check(good().parameter("mbed.CurrentTime", Value::Integer(1_483_264_799)), 1, GENERAL);
    check(good().parameter("mbed.", Value::Integer(7)), 1, GENERAL);
}

#[test]
fn what_is_in_an_item_may_be_encoded_in_more_than_one_way() {
    // The value of a parameter as it is sent, and what of it is stored; or that it is refused.
    let check = |encoded: &[u8], wanted: Option<&[u8]>| {
        let plain = Message::bundle().parameter("own", text("PLACE"));
        let payload = replaced(&plain.encode(), b"\x65PLACE", encoded);
        let (status, held) = say_encoded(&payload);
        assert_eq!(status, if wanted.is_some() { 0 } else { 20 }, "{encoded:02x?}");
        assert_eq!(held.get(Kind::Config, "own"), wanted, "{encoded:02x?}");
    };
    check(&[0x07], Some(&[7, 0, 0, 0, 0, 0, 0, 0]));
    check(&[0x1b, 0, 0, 0, 0, 0, 0, 0, 7], Some(&[7, 0, 0, 0, 0, 0, 0, 0]));
    check(&[0x26], Some(&[0xf9, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]));
    // A bignum, tag 2; any other tag; a float of each width; false, true, null, undefined.
    check(&[0xc2, 0x42, 1, 2], Some(&[2, 1, 0, 0, 0, 0, 0, 0]));
    for refused in [&[0xc1, 0x07][..], &[0xf9, 0, 0], &[0xfa, 0, 0, 0, 0], &[0xfb, 0, 0, 0, 0, 0, 0, 0, 0]] {
        check(refused, None);
    }
    for simple in 0xf4..=0xf7 {
        check(&[simple], None);
    }

    // Arrays and maps below the top one may be indefinite.
    let good = Message::csr();
    let requests = encoded(&good.0[2].1);
    let [0x81, request @ ..] = &requests[..] else { panic!("one request is asked for") };
    let [0xa0..=0xb7, fields @ ..] = request else { panic!("a request is a map") };
    let loose = [&[0x9f, 0xbf], fields, &[0xff, 0xff]].concat();
    assert_eq!(say_encoded(&replaced(&good.encode(), &requests, &loose)).0, 0);
}

#[test]
fn keys_and_certificates_are_read_as_a_device_reads_them() {
    let good = Message::bundle;
    let key = KeyPair::generate().unwrap();
    let (der, pkcs8) = certificate(&key, |_| {});
    let pair = EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_ASN1_SIGNING, &pkcs8).unwrap();
    let sec1: EcPrivateKeyRfc5915Der<'_> = pair.private_key().as_der().unwrap();
    let with_key = |key: &[u8], certificate: &[u8]| {
        good().item(KEY, "Data", Value::Bytes(key.to_vec())).item(
            CERTIFICATE,
            "Data",
            Value::Bytes(certificate.to_vec()),
        )
    };
    check(with_key(&pkcs8, &der), 0, FINE);
    check(with_key(sec1.as_ref(), &der), 0, FINE);
    check(with_key(&pkcs8, &[&der[..], &[0]].concat()), 0, FINE);
    check(good().identity(|params| params.not_after = date_time_ymd(9999, 12, 31)), 0, FINE);
    check(good().identity(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)), 0, FINE);

    const SERVER_CA: &str = "mbed.BootstrapServerCACert";
    let server_ca = |der: Vec<u8>| good().item(SERVER_CA, "Data", Value::Bytes(der));
    let unread = format!("Certificate parse failed:{SERVER_CA}");
    let (expired, _) = certificate(&key, |params| params.not_after = date_time_ymd(2026, 1, 2));
    check(server_ca(expired), 0, FINE);
    let rsa = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
    check(server_ca(certificate(&rsa, |_| {}).0), 18, &unread);
    let p384 = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    let by_p384 = Issuer::new(CertificateParams::default(), p384);
    let sha384 = CertificateParams::default().signed_by(&key, &by_p384).unwrap().der().to_vec();
    check(server_ca(sha384), 18, &unread);
}

#[test]
fn the_whole_configuration_is_verified() {
    let good = Message::bundle;
    for name in [
        "mbed.UseBootstrap",
        "mbed.EndpointName",
        "mbed.Manufacturer",
        "mbed.ModelNumber",
        "mbed.SerialNumber",
        "mbed.DeviceType",
        "mbed.HardwareVersion",
        "mbed.MemoryTotalKB",
        "mbed.BootstrapServerCACert",
        URI,
        KEY,
        CERTIFICATE,
    ] {
        check(good().without_item(name), 25, &format!("Item does not exist:{name}"));
    }
    let unclaimed = || good().without_item("mbed.FirstToClaim");
    let uri = |message: Message, uri: &str| message.parameter(URI, text(uri));
    let wrong_uri = &format!("URI format incorrect:{URI}");
    check(unclaimed(), 28, wrong_uri);
    check(uri(unclaimed(), "coaps://host?aid=1"), 0, FINE);
    check(uri(unclaimed(), "coap://host?x=y&aid=1"), 0, FINE);
    check(uri(good(), "coaps://host?aid=1"), 29, &format!("first to claim not allowed:{URI}"));
    check(uri(good(), "COAPS://host"), 28, wrong_uri);
    check(good().parameter("mbed.FirstToClaim", Value::Integer(2)), 28, wrong_uri);
    check(good().parameter("mbed.Manufacturer", text("")), 0, FINE);
    check(good().parameter("mbed.EndpointName", text("")), 26, "Item empty:mbed.EndpointName");
    check(good().parameter("mbed.VendorId", text("short")), 27, "Item size is wrong:mbed.VendorId");
    check(good().parameter("mbed.UTCOffset", text("+1:00")), 33, "UTC offset incorrect:mbed.UTCOffset");
    check(good().parameter("mbed.UTCOffset", text("+99:99")), 0, FINE);
    check(
        good().parameter("mbed.UseBootstrap", Value::Integer(2)),
        30,
        "Bootstrap mode value incorrect:mbed.UseBootstrap",
    );
    check(good().parameter("mbed.UseBootstrap", Value::Integer(0)).set("Verify", Value::Integer(0)), 0, FINE);
    // Even an unverified last message needs the server's CA, for the time.
    check(
        good().without_item("mbed.BootstrapServerCACert").set("Verify", Value::Integer(0)),
        25,
        "Item does not exist:mbed.BootstrapServerCACert",
    );
}

#[test]
fn the_devices_certificate_is_verified_but_for_its_issuer() {
    let good = Message::bundle;
    check(good().identity(|_| {}), 0, FINE);
    check(good().identity(|params| params.extended_key_usages.clear()), 0, FINE);
    check(
        good().identity(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
        10,
        &format!("Certificate invalid:{CERTIFICATE}"),
    );
    check(
        good().identity(|params| params.distinguished_name = common_name("another")),
        14,
        &format!("Certificate CN attribute invalid:{CERTIFICATE}"),
    );
    check(
        good().identity(|params| params.distinguished_name = DistinguishedName::new()),
        11,
        &format!("General error:{CERTIFICATE}"),
    );
    check(
        good().identity(|params| params.not_after = date_time_ymd(2026, 2, 1)),
        13,
        &format!("Certificate expired:{CERTIFICATE}"),
    );
    let (foreign, _) = certificate(&KeyPair::generate().unwrap(), |_| {});
    check(
        good().item(CERTIFICATE, "Data", Value::Bytes(foreign)),
        34,
        &format!("Certificate public key validation failed:{CERTIFICATE}"),
    );
}

#[test]
fn warnings_name_their_item() {
    let good = Message::bundle;
    let check = |message: Message, wanted: &[&str]| {
        let answer = answer(&[message]);
        assert_eq!(answer.return_status.number(), 0);
        assert_eq!(answer.warnings, wanted);
    };
    check(good(), &[]);
    check(good().without_item("mbed.UpdateAuthCert"), &["Item not set:mbed.UpdateAuthCert"]);
    check(good().identity(|_| {}), &["Certificate is self signed:mbed.BootstrapDeviceCert"]);
    check(
        good().without_item("mbed.CurrentTime"),
        &[
            "Item not set:mbed.CurrentTime",
            "Certificate validity cannot be checked:mbed.BootstrapDeviceCert",
            "Certificate validity cannot be checked:mbed.UpdateAuthCert",
        ],
    );
    check(good().parameter("mbed.LwM2MServerURI", text("x")), &["Item redundant:mbed.LwM2MServerURI"]);
    check(
        good().identity(|params| params.not_after = date_time_ymd(2030, 1, 1)),
        &[
            "Certificate is self signed:mbed.BootstrapDeviceCert",
            "Certificate validity is less than 10 years:mbed.BootstrapDeviceCert",
        ],
    );
}

#[test]
fn a_direct_connection_needs_the_account_in_uri_and_certificate() {
    let lwm2m = |uri: &str, unit: Option<&str>| {
        let (der, key) = certificate(&KeyPair::generate().unwrap(), |params| {
            if let Some(unit) = unit {
                params.distinguished_name.push(DnType::OrganizationalUnitName, unit);
            }
        });
        let unused = ["mbed.BootstrapServerCACert", URI, KEY, CERTIFICATE, "mbed.FirstToClaim"];
        let ca = Value::Bytes(der.clone());
        let der_item =
            |name: &str, data: Value| [("Name", text(name)), ("Format", text("der")), ("Data", data)];
        let key = der_item("mbed.LwM2MDevicePrivateKey", Value::Bytes(key));
        unused
            .iter()
            .fold(Message::bundle(), |message, name| message.without_item(name))
            .parameter("mbed.UseBootstrap", Value::Integer(0))
            .parameter("mbed.LwM2MServerURI", text(uri))
            .add("Keys", &[key.as_slice(), &[("Type", text("ECCPrivate"))]].concat())
            .add("Certificates", &der_item("mbed.LwM2MServerCACert", ca))
            .add("Certificates", &der_item("mbed.LwM2MDeviceCert", Value::Bytes(der)))
    };
    let wrong = "Certificate CN attribute invalid:mbed.LwM2MDeviceCert";
    check(lwm2m("coaps://host?aid=acme", Some("acme")), 0, FINE);
    check(lwm2m("coaps://host?aid=acme", Some("other")), 14, wrong);
    check(lwm2m("coaps://host?aid=acme&x=y", Some("acme")), 14, wrong);
    check(lwm2m("coaps://host?aid=acme", None), 11, "General error:mbed.LwM2MDeviceCert");
    check(lwm2m("coaps://host", Some("acme")), 28, "URI format incorrect:mbed.LwM2MServerURI");
}

#[test]
fn a_chain_is_checked_link_by_link() {
    let root_key = KeyPair::generate().unwrap();
    let mut root = CertificateParams::default();
    root.distinguished_name = common_name("root");
    let root_der = root.self_signed(&root_key).unwrap().der().to_vec();
    let key = KeyPair::generate().unwrap();
    let mut leaf = CertificateParams::default();
    leaf.distinguished_name = common_name("0123456789abcdef0123456789abcdef");
    leaf.not_before = date_time_ymd(2026, 1, 1);
    leaf.not_after = date_time_ymd(2046, 1, 1);
    let leaf_der = leaf.signed_by(&key, &Issuer::new(root, root_key)).unwrap().der().to_vec();
    let (stranger, _) = certificate(&KeyPair::generate().unwrap(), |_| {});
    let chain = |parts: &[&Vec<u8>]| {
        let parts = parts.iter().map(|part| Value::Bytes((*part).clone())).collect();
        Message::bundle()
            .without_item(CERTIFICATE)
            .item(KEY, "Data", Value::Bytes(key.serialize_der()))
            .add("CertificateChains", &[("Name", text(CERTIFICATE)), ("DataArray", Value::Array(parts))])
    };
    check(chain(&[&leaf_der, &root_der]), 0, FINE);
    let broken = format!("Chain validation error:{CERTIFICATE}");
    check(chain(&[&leaf_der, &stranger]), 18, &broken);
    check(chain(&[&root_der, &leaf_der]), 18, &broken);
    check(chain(&[&leaf_der; 6]), 20, GENERAL);
    check(chain(&[]), 20, GENERAL);
}

#[test]
fn requests_for_csrs_have_rules_of_their_own() {
    let good = Message::csr;
    check(good(), 0, FINE);
    check(good().without("SID"), 20, GENERAL);
    check(good().without("Verify"), 20, GENERAL);
    check(good().set("Verify", Value::Integer(1)), 20, GENERAL);
    check(good().set("Disable", Value::Integer(1)), 35, GENERAL);
    check(good().without("KpAlvSess"), 25, "Item does not exist:mbed.UseBootstrap");
    check(good().set("CsrReqs", Value::Array(vec![])), 20, GENERAL);
    let Value::Array(one) = good().0[2].1.clone() else { panic!("requests are an array") };
    check(
        good().set("CsrReqs", Value::Array([one.clone(), one.clone()].concat())),
        17,
        &format!("Data already exists:{KEY}"),
    );
    check(good().set("CsrReqs", Value::Array(vec![one[0].clone(); 6])), 36, GENERAL);
    // Five answers with the longest subjects there are still fit.
    let five = (0..5).map(|number| {
        let subject = format!("CN={},O={}", "n".repeat(64), "o".repeat(128));
        let ext = map(&[("KU", Value::Integer(1)), ("EKU", Value::Integer(4))]);
        let name = text(format!("key{number}"));
        map(&[("PrKN", name), ("Subj", text(subject)), ("MD", Value::Integer(1)), ("Ext", ext)])
    });
    check(good().set("CsrReqs", Value::Array(five.collect())), 0, FINE);
    for subject in ["nonsense", "", "C=GB,X=Y"] {
        let Value::Map(mut request) = one[0].clone() else { panic!("a request is a map") };
        request[1].1 = text(subject);
        let answer = answer(&[good().set("CsrReqs", Value::Array(vec![Value::Map(request)]))]);
        let der = sim::csr(answer);
        // Version 0, then a subject without parts.
        assert_eq!(der[6..12], [2, 1, 0, 0x30, 0, 0x30], "{subject:?}");
    }
}

#[test]
fn nothing_is_rolled_back_and_nothing_is_stored_twice() {
    let bad = Message::bundle().parameter("a b", text("")).set("KpAlvSess", Value::Integer(1));
    let (_, held) = say(slice::from_ref(&bad));
    assert!(held.get(Kind::Certificate, CERTIFICATE).is_some());
    assert_eq!(answer(&[Message::csr(), bad, Message::bundle()]).return_status.number(), 17);
}

#[test]
fn a_session_lives_as_its_last_good_message_says() {
    let check = |messages: &[Message], is_alive: bool| {
        let (_directory, storage) = sim::place();
        let mut device = Device::start(&storage, false, &Scenario::default()).unwrap();
        for message in messages {
            device.handle(&message.encode());
        }
        assert_eq!(device.is_alive(), is_alive);
    };
    let keep_alive = |message: Message| message.set("KpAlvSess", Value::Integer(1));
    let bad = || keep_alive(Message::bundle()).parameter("a b", text(""));
    check(&[Message::bundle()], false);
    check(&[Message::csr()], true);
    check(&[Message::csr(), bad()], true);
    check(&[Message::csr(), Message::bundle().without_item(KEY).without("Keys")], false);
    check(&[bad()], false);
    check(&[keep_alive(Message::bundle())], true);
}

#[test]
fn a_disabled_device_answers_only_what_precedes_its_storage() {
    let (_directory, storage) = sim::place();
    Device::start(&storage, false, &Scenario::default()).unwrap().handle(&Message::bundle().encode());
    let mut device = Device::start(&storage, true, &Scenario::default()).unwrap();
    assert_eq!(device.handle(&Message::bundle().encode()), Reply::NotProcessed);
    let mut status = |payload: &[u8]| match device.handle(payload) {
        Reply::Answer(payload) => Answer::decode(&payload).unwrap().return_status.number(),
        Reply::NotProcessed => panic!("not processed"),
    };
    assert_eq!(status(&[0xff]), 20);
    assert_eq!(status(&Message::bundle().without("SchemeVersion").encode()), 24);
}

#[test]
fn an_answer_too_long_for_its_buffer_is_lost_although_the_work_is_done() {
    let session = |length: usize| Message::bundle().set("SID", text("s".repeat(length)));
    assert_eq!(answer(&[session(300)]).return_status.number(), 0);
    let (reply, held) = say(&[session(450)]);
    assert_eq!(reply, Reply::NotProcessed);
    assert!(held.factory_disabled);
}

#[test]
fn the_map_on_top_must_be_definite_and_alone() {
    let good = Message::csr().encode();
    let indefinite = [&[0xbf], &good[1..], &[0xff]].concat();
    let trailing = [&good[..], &[0]].concat();
    // Verify in four bytes more than it needs.
    let wide = [&good[..good.len() - 1], &[0x1a, 0, 0, 0, 0]].concat();
    for (payload, status) in [(indefinite, 20), (trailing, 20), (wide, 0), (good, 0)] {
        assert_eq!(say_encoded(&payload).0, status);
    }
}

proptest! {
    #[test]
    fn any_payload_is_answered_without_a_panic(at in 0..2352_usize, byte: u8, cut in 1..2352_usize) {
        let (_directory, storage) = sim::place();
        let mut device = Device::start(&storage, false, &Scenario::default()).unwrap();
        let mut payload = bytes(recorded::KEY_BY_STATION);
        payload[at] = byte;
        device.handle(&payload[..cut]);
        device.handle(&payload);
    }
}
