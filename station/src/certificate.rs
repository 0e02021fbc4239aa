//! What must be true of a device's request and of the certificate that came back for it.
//!
//! The device checks neither issuer nor constraints, so whatever is let pass here goes to the customer.

use std::time::{Duration, SystemTime};

use factory_proto::ids::EndpointName;
use x509_parser::{
    certification_request::X509CertificationRequest,
    oid_registry::{
        OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_X509_COMMON_NAME, OID_X509_COUNTRY_NAME,
        OID_X509_LOCALITY_NAME, OID_X509_ORGANIZATION_NAME, OID_X509_ORGANIZATIONAL_UNIT,
        OID_X509_SERIALNUMBER, OID_X509_STATE_OR_PROVINCE_NAME,
    },
    prelude::{FromDer, X509Certificate},
    x509::{AttributeTypeAndValue, SubjectPublicKeyInfo, X509Name},
};

// The platform and the device want ten years at least; two leap days more than needed.
const SHORTEST_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600 + 3 * 24 * 3600);
// Requests of one P-256 key with a subject are below 500 bytes.
const LARGEST_REQUEST: usize = 4096;

/// What is wrong with a request or a certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// No DER of the right kind, or something behind it.
    #[error("cannot be read: {0}")]
    Unreadable(String),
    /// Too many bytes.
    #[error("is {0} bytes long, at most {LARGEST_REQUEST} are allowed")]
    TooLong(usize),
    /// The subject is not the one that was asked for.
    #[error("names {found:?}, not {wanted:?}")]
    Name {
        /// What it should say.
        wanted: String,
        /// What it says.
        found: String,
    },
    /// The subject does not say whose the device is.
    #[error(
        "names {found:?}, whose OU is not the account {wanted:?}; set organizational-unit in the signer's profile"
    )]
    Account {
        /// The account.
        wanted: String,
        /// What it says.
        found: String,
    },
    /// Another kind of key.
    #[error("is not for a P-256 key")]
    KeyKind,
    /// The signature is not by the key that should have made it.
    #[error("is not signed by {0}")]
    Signature(&'static str),
    /// The key of somebody else.
    #[error("is for another key than the device's")]
    OtherKey,
    /// It may sign certificates, or may not be used by a client.
    #[error("{0}")]
    Profile(&'static str),
    /// The CA is not there.
    #[error("comes without its issuer")]
    NoIssuer,
}

/// Checks a PKCS#10 request: its subject's one CN, its key's kind, and that it was signed with that key.
/// Returns its SubjectPublicKeyInfo, DER.
pub fn check_request(der: &[u8], name: &EndpointName) -> Result<Vec<u8>, CertificateError> {
    if der.len() > LARGEST_REQUEST {
        return Err(CertificateError::TooLong(der.len()));
    }
    let request = whole(X509CertificationRequest::from_der(der))?;
    let info = &request.certification_request_info;
    check_name(&info.subject, name)?;
    check_key_kind(&info.subject_pki)?;
    request.verify_signature().map_err(|_| CertificateError::Signature("the key that it carries"))?;
    Ok(info.subject_pki.raw.to_vec())
}

/// Checks a PKCS#10 request for a key of somebody else's: its whole subject, as in `O=Acme,CN=name`, its key's kind, and
/// that it was signed with that key.
pub fn check_subject(der: &[u8], subject: &str) -> Result<(), CertificateError> {
    if der.len() > LARGEST_REQUEST {
        return Err(CertificateError::TooLong(der.len()));
    }
    let request = whole(X509CertificationRequest::from_der(der))?;
    let info = &request.certification_request_info;
    let found: Vec<String> = info.subject.iter_attributes().map(attribute).collect();
    if found != subject.split(',').collect::<Vec<_>>() {
        return Err(CertificateError::Name { wanted: subject.to_owned(), found: found.join(",") });
    }
    check_key_kind(&info.subject_pki)?;
    request.verify_signature().map_err(|_| CertificateError::Signature("the key that it carries"))
}

/// The SubjectPublicKeyInfo of a request that was checked before, DER; `None` where it cannot be read.
pub fn key_of_request(der: &[u8]) -> Option<Vec<u8>> {
    let request = whole(X509CertificationRequest::from_der(der)).ok()?;
    Some(request.certification_request_info.subject_pki.raw.to_vec())
}

/// The SubjectPublicKeyInfo of a certificate that was checked before, DER; `None` where it cannot be read.
pub fn key_of_certificate(der: &[u8]) -> Option<Vec<u8>> {
    let certificate = whole(X509Certificate::from_der(der)).ok()?;
    Some(certificate.public_key().raw.to_vec())
}

/// As in `CN=name`.
fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let kind = attribute.attr_type();
    let names = [
        (OID_X509_COMMON_NAME, "CN"),
        (OID_X509_COUNTRY_NAME, "C"),
        (OID_X509_ORGANIZATION_NAME, "O"),
        (OID_X509_ORGANIZATIONAL_UNIT, "OU"),
        (OID_X509_LOCALITY_NAME, "L"),
        (OID_X509_STATE_OR_PROVINCE_NAME, "ST"),
        (OID_X509_SERIALNUMBER, "serialNumber"),
    ];
    let name =
        names.into_iter().find(|(oid, _)| oid == kind).map_or_else(|| kind.to_id_string(), |it| it.1.into());
    format!("{name}={}", attribute.as_str().unwrap_or("?"))
}

/// Checks that a certificate is what was asked for: name, account (as OU, where there is one), key, issuer, profile
/// and life.
pub fn check_issued(
    der: &[u8],
    issuers: &[Vec<u8>],
    key: &[u8],
    name: &EndpointName,
    account: Option<&str>,
) -> Result<(), CertificateError> {
    let certificate = whole(X509Certificate::from_der(der))?;
    check_name(certificate.subject(), name)?;
    if let Some(account) = account {
        check_account(certificate.subject(), account)?;
    }
    if certificate.public_key().raw != key {
        return Err(CertificateError::OtherKey);
    }
    let issuer = whole(X509Certificate::from_der(issuers.first().ok_or(CertificateError::NoIssuer)?))?;
    if !issuer.is_ca() || issuer.subject().as_raw() != certificate.issuer().as_raw() {
        return Err(CertificateError::Signature("the CA that came with it"));
    }
    certificate
        .verify_signature(Some(issuer.public_key()))
        .map_err(|_| CertificateError::Signature("the CA that came with it"))?;
    check_profile(&certificate)
}

fn check_profile(certificate: &X509Certificate<'_>) -> Result<(), CertificateError> {
    if certificate.is_ca() {
        return Err(CertificateError::Profile("is a CA certificate"));
    }
    let usage = certificate.extended_key_usage().ok().flatten();
    if !usage.is_some_and(|usage| usage.value.client_auth) {
        return Err(CertificateError::Profile("is not for clients (extended key usage clientAuth)"));
    }
    let validity = certificate.validity();
    let now = SystemTime::now();
    let seconds = |time: SystemTime| {
        time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed())
    };
    if validity.not_before.timestamp() > seconds(now) {
        return Err(CertificateError::Profile("is not valid yet; check the clocks of station and signer"));
    }
    if validity.not_after.timestamp() < seconds(now + SHORTEST_LIFE) {
        return Err(CertificateError::Profile("lives less than ten years"));
    }
    Ok(())
}

fn whole<T>(
    parsed: Result<(&[u8], T), x509_parser::asn1_rs::Err<x509_parser::error::X509Error>>,
) -> Result<T, CertificateError> {
    match parsed {
        Ok((&[], value)) => Ok(value),
        Ok((rest, _)) => Err(CertificateError::Unreadable(format!("{} bytes too many", rest.len()))),
        Err(error) => Err(CertificateError::Unreadable(error.to_string())),
    }
}

fn check_name(subject: &X509Name<'_>, wanted: &EndpointName) -> Result<(), CertificateError> {
    let names: Vec<&str> = subject.iter_common_name().map(|cn| cn.as_str().unwrap_or("?")).collect();
    if names == [wanted.as_str()] {
        return Ok(());
    }
    Err(CertificateError::Name { wanted: wanted.to_string(), found: subject.to_string() })
}

fn check_account(subject: &X509Name<'_>, wanted: &str) -> Result<(), CertificateError> {
    let mut units = subject.iter_organizational_unit().map(|unit| unit.as_str().unwrap_or("?"));
    if units.next() == Some(wanted) && units.next().is_none() {
        return Ok(());
    }
    Err(CertificateError::Account { wanted: wanted.to_owned(), found: subject.to_string() })
}

fn check_key_kind(key: &SubjectPublicKeyInfo<'_>) -> Result<(), CertificateError> {
    let curve = key.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
    if key.algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY && curve == Some(OID_EC_P256) {
        return Ok(());
    }
    Err(CertificateError::KeyKind)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{
        BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
        Issuer, KeyPair, PKCS_ECDSA_P384_SHA384, PublicKeyData as _,
    };
    use time::{Duration as Span, OffsetDateTime};

    use super::*;

    const CA: IsCa = IsCa::Ca(BasicConstraints::Unconstrained);

    fn endpoint_name() -> EndpointName {
        "sensor-1".parse().unwrap()
    }

    fn key() -> KeyPair {
        KeyPair::generate().unwrap()
    }

    fn named(names: &[&str]) -> CertificateParams {
        let mut subject = DistinguishedName::new();
        // rcgen holds one value of each kind, so the second CN goes by its OID.
        let kinds = [DnType::CommonName, DnType::CustomDnType(vec![2, 5, 4, 3])];
        for (kind, name) in kinds.into_iter().zip(names) {
            subject.push(kind, *name);
        }
        let mut params = CertificateParams::default();
        params.distinguished_name = subject;
        params
    }

    fn request(names: &[&str], key: &KeyPair) -> Vec<u8> {
        named(names).serialize_request(key).unwrap().der().to_vec()
    }

    /// Its last byte lies in the signature.
    fn break_signature(der: &mut [u8]) {
        *der.last_mut().unwrap() ^= 1;
    }

    fn name_error(found: &str) -> CertificateError {
        CertificateError::Name { wanted: "sensor-1".to_owned(), found: found.to_owned() }
    }

    #[test]
    fn a_request_must_name_the_unit_once_and_be_signed_with_its_p256_key() {
        let check = |der: &[u8], expected: Result<Vec<u8>, CertificateError>| {
            assert_eq!(check_request(der, &endpoint_name()), expected);
        };
        let key = key();
        let good = request(&["sensor-1"], &key);
        let mut broken = good.clone();
        break_signature(&mut broken);
        let p384 = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();

        check(&good, Ok(key.subject_public_key_info()));
        check(&request(&["sensor-2"], &key), Err(name_error("CN=sensor-2")));
        check(&request(&[], &key), Err(name_error("")));
        check(&request(&["sensor-1", "sensor-2"], &key), Err(name_error("CN=sensor-1, CN=sensor-2")));
        check(&request(&["sensor-1", "sensor-1"], &key), Err(name_error("CN=sensor-1, CN=sensor-1")));
        check(&request(&["sensor-1"], &p384), Err(CertificateError::KeyKind));
        check(&broken, Err(CertificateError::Signature("the key that it carries")));
        check(&[&good[..], &[0]].concat(), Err(CertificateError::Unreadable("1 bytes too many".to_owned())));
        check(&[0; LARGEST_REQUEST + 1], Err(CertificateError::TooLong(LARGEST_REQUEST + 1)));
        assert!(matches!(
            check_request(&good[..good.len() - 1], &endpoint_name()),
            Err(CertificateError::Unreadable(_))
        ));
    }

    /// How a certificate comes about; right unless a test changes it.
    struct Issuance {
        device: CertificateParams,
        device_key: KeyPair,
        ca: CertificateParams,
        ca_key: KeyPair,
        /// What comes with the certificate.
        issuers: Vec<Vec<u8>>,
        damage: fn(&mut Vec<u8>),
        account: Option<&'static str>,
    }

    impl Issuance {
        fn right() -> Self {
            let mut device = named(&["sensor-1"]);
            device.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            let ca_key = key();
            let mut ca = named(&["Demo CA"]);
            ca.is_ca = CA;
            let issuers = vec![ca.self_signed(&ca_key).unwrap().der().to_vec()];
            Self { device, device_key: key(), ca, ca_key, issuers, damage: |_| (), account: None }
        }

        fn certificate(&self) -> Vec<u8> {
            let issuer = Issuer::from_params(&self.ca, &self.ca_key);
            let mut der = self.device.signed_by(&self.device_key, &issuer).unwrap().der().to_vec();
            (self.damage)(&mut der);
            der
        }
    }

    fn check(change: impl FnOnce(&mut Issuance), expected: Result<(), CertificateError>) {
        let mut issuance = Issuance::right();
        let asked_for = issuance.device_key.subject_public_key_info();
        change(&mut issuance);
        let (der, account) = (issuance.certificate(), issuance.account);
        let found = check_issued(&der, &issuance.issuers, &asked_for, &endpoint_name(), account);
        assert_eq!(found, expected);
    }

    fn living(days: i64) -> impl FnOnce(&mut Issuance) {
        move |it| it.device.not_after = OffsetDateTime::now_utc() + Span::days(days)
    }

    #[test]
    fn a_certificate_that_is_what_was_asked_for_passes() {
        check(|_| (), Ok(()));
        check(living(3654), Ok(()));
    }

    #[test]
    fn a_certificate_of_another_account_is_refused() {
        let account = |text: &'static str, found: &str| {
            let wanted = "acme".to_owned();
            let refused = CertificateError::Account { wanted, found: found.to_owned() };
            check(
                move |it| {
                    it.account = Some("acme");
                    if !text.is_empty() {
                        it.device.distinguished_name.push(DnType::OrganizationalUnitName, text);
                    }
                },
                if text == "acme" { Ok(()) } else { Err(refused) },
            );
        };
        account("acme", "");
        account("other", "CN=sensor-1, OU=other");
        account("", "CN=sensor-1");
    }

    #[test]
    fn a_certificate_for_another_name_or_key_is_refused() {
        check(|it| it.device.distinguished_name = named(&["x"]).distinguished_name, Err(name_error("CN=x")));
        check(
            |it| it.device.distinguished_name = named(&["sensor-1", "x"]).distinguished_name,
            Err(name_error("CN=sensor-1, CN=x")),
        );
        check(|it| it.device_key = key(), Err(CertificateError::OtherKey));
        check(
            |it| it.device_key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap(),
            Err(CertificateError::OtherKey),
        );
    }

    #[test]
    fn a_certificate_that_its_issuer_did_not_sign_is_refused() {
        let signature = || Err(CertificateError::Signature("the CA that came with it"));
        check(|it| it.damage = |der| break_signature(der), signature());
        check(|it| it.ca_key = key(), signature());
        check(|it| it.ca.distinguished_name = named(&["Other CA"]).distinguished_name, signature());
        check(
            |it| {
                it.ca.is_ca = IsCa::NoCa;
                it.issuers = vec![it.ca.self_signed(&it.ca_key).unwrap().der().to_vec()];
            },
            signature(),
        );
        check(|it| it.issuers.clear(), Err(CertificateError::NoIssuer));
        check(
            |it| it.damage = |der| der.push(0),
            Err(CertificateError::Unreadable("1 bytes too many".to_owned())),
        );
    }

    #[test]
    fn a_certificate_that_no_device_should_have_is_refused() {
        let profile = |text| Err(CertificateError::Profile(text));
        let not_for_clients = "is not for clients (extended key usage clientAuth)";
        check(|it| it.device.is_ca = CA, profile("is a CA certificate"));
        check(|it| it.device.extended_key_usages.clear(), profile(not_for_clients));
        check(
            |it| it.device.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth],
            profile(not_for_clients),
        );
        check(living(3652), profile("lives less than ten years"));
        check(
            |it| it.device.not_before = OffsetDateTime::now_utc() + Span::hours(1),
            profile("is not valid yet; check the clocks of station and signer"),
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_checks_panic(der in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = check_request(&der, &endpoint_name());
            let _ = check_issued(&der, std::slice::from_ref(&der), &[], &endpoint_name(), Some("acme"));
        }

        #[test]
        fn no_damaged_request_makes_the_check_panic(at: prop::sample::Index, byte: u8, end: prop::sample::Index) {
            let mut der = request(&["sensor-1"], &key());
            let at = at.index(der.len());
            der[at] = byte;
            let _ = check_request(&der, &endpoint_name());
            let _ = check_request(&der[..end.index(der.len())], &endpoint_name());
        }
    }
}
