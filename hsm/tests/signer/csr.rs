//! The policy for certificate requests, case by case and against arbitrary bytes.

use factory_hsm::csr::{self, CsrError};
use proptest::prelude::*;
use rcgen::{PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256, PublicKeyData};

use crate::request::{
    BASIC_CONSTRAINTS, CN, Csr, EMAIL, ENDPOINT, KEY_USAGE, O, SUBJECT_ALT_NAME, key, p256,
};

fn check(csr: &Csr<'_>) -> Result<(), CsrError> {
    check_bytes(&csr.signed_by(&p256()))
}

fn check_bytes(der: &[u8]) -> Result<(), CsrError> {
    csr::check(der, &ENDPOINT.parse().unwrap()).map(|_| ())
}

const DIGITAL_SIGNATURE: &[u8] = &[0x03, 0x02, 0x07, 0x80];
const NO_CA: &[u8] = &[0x30, 0x00];
const CA: &[u8] = &[0x30, 0x03, 0x01, 0x01, 0xff];
const DNS_NAME: &[u8] = &[0x30, 0x05, 0x82, 0x03, b'a', b'.', b'b'];

#[test]
fn what_devices_send_is_accepted() {
    let plain = Csr::default();
    let with_null = Csr { null_parameter: true, ..Csr::default() };
    let with_organization = Csr { subject: &[(O, "Example"), (CN, ENDPOINT)], ..Csr::default() };
    let with_extensions =
        Csr { extensions: &[(KEY_USAGE, DIGITAL_SIGNATURE), (BASIC_CONSTRAINTS, NO_CA)], ..Csr::default() };
    for good in [plain, with_null, with_organization, with_extensions] {
        assert_eq!(check(&good), Ok(()));
    }
}

#[test]
fn only_the_key_is_taken_and_unchanged() {
    let key = p256();
    let taken = csr::check(&Csr::default().signed_by(&key), &ENDPOINT.parse().unwrap()).unwrap();
    assert_eq!(taken.spki(), key.subject_public_key_info());
}

#[test]
fn whatever_the_profile_does_not_allow_is_refused_by_name() {
    let cases = [
        (Csr { version: 1, ..Csr::default() }, CsrError::Version),
        (Csr { subject: &[(CN, "another")], ..Csr::default() }, CsrError::CommonName),
        (Csr { subject: &[(CN, "0123456789abcdef\0")], ..Csr::default() }, CsrError::CommonName),
        (Csr { subject: &[], ..Csr::default() }, CsrError::CommonNames(0)),
        (Csr { subject: &[(CN, ENDPOINT), (CN, ENDPOINT)], ..Csr::default() }, CsrError::CommonNames(2)),
        (
            Csr { subject: &[(CN, ENDPOINT), (EMAIL, "a@b.c")], ..Csr::default() },
            CsrError::SubjectAttribute("1.2.840.113549.1.9.1".to_owned()),
        ),
        (
            Csr { extensions: &[(SUBJECT_ALT_NAME, DNS_NAME)], ..Csr::default() },
            CsrError::Extension("2.5.29.17".to_owned()),
        ),
        (
            Csr { extensions: &[(BASIC_CONSTRAINTS, CA)], ..Csr::default() },
            CsrError::Extension("2.5.29.19".to_owned()),
        ),
        (
            Csr { challenge_password: true, ..Csr::default() },
            CsrError::Attribute("1.2.840.113549.1.9.7".to_owned()),
        ),
        (
            Csr { signature_algorithm: &[1, 2, 840, 10045, 4, 3, 3], ..Csr::default() },
            CsrError::SignatureAlgorithm,
        ),
    ];
    for (bad, expected) in cases {
        assert_eq!(check(&bad), Err(expected));
    }
}

#[test]
fn only_p256_keys_are_accepted() {
    for algorithm in [&PKCS_ECDSA_P384_SHA384, &PKCS_RSA_SHA256] {
        assert_eq!(check_bytes(&Csr::default().signed_by(&key(algorithm))), Err(CsrError::KeyType));
    }
}

#[test]
fn damaged_bytes_are_refused() {
    let good = Csr::default().signed_by(&p256());

    let mut broken_signature = good.clone();
    *broken_signature.last_mut().unwrap() ^= 1;
    assert_eq!(check_bytes(&broken_signature), Err(CsrError::Signature));

    let trailing = [good.as_slice(), &[0]].concat();
    assert_eq!(check_bytes(&trailing), Err(CsrError::Trailing(1)));

    for length in 0..good.len() {
        assert_eq!(check_bytes(&good[..length]), Err(CsrError::Malformed), "first {length} bytes");
    }
    assert_eq!(check_bytes(&vec![0x30; 1 << 20]), Err(CsrError::TooLong(1 << 20)));
}

#[test]
fn a_request_signed_by_another_key_is_refused() {
    let (one, other) = (Csr::default().signed_by(&p256()), Csr::default().signed_by(&p256()));
    let key_of = |csr: &[u8]| csr.windows(2).position(|pair| pair == [0x00, 0x04]).unwrap();
    let (from, to) = (key_of(&one), key_of(&other));
    let mut stolen = one.clone();
    stolen[from..from + 66].copy_from_slice(&other[to..to + 66]);
    assert_eq!(check_bytes(&stolen), Err(CsrError::Signature));
}

proptest! {
    #[test]
    fn no_bytes_make_the_policy_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(check_bytes(&bytes).is_err());
    }

    #[test]
    fn no_damage_to_a_good_request_makes_the_policy_panic(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let good = Csr {
            extensions: &[(KEY_USAGE, DIGITAL_SIGNATURE), (BASIC_CONSTRAINTS, NO_CA)],
            ..Csr::default()
        };
        let mut der = good.signed_by(&p256());
        for (at, byte) in damage {
            *at.get_mut(&mut der) = byte;
        }
        let _ = check_bytes(&der);
    }
}
