//! What our certificates look like: names, dates, and the CA's; those of devices are in [`device`].
//!
//! Pure: time, names and keys are passed in; nothing is signed here.

use std::{fmt, str::FromStr, time::Duration};

use aws_lc_rs::rand;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue, IsCa, KeyUsagePurpose,
    SerialNumber, string::PrintableString,
};
use time::OffsetDateTime;

pub mod device;

/// A year of 365.25 days, as humantime counts them.
pub const YEAR: Duration = Duration::from_secs(31_557_600);

/// The platform refuses bootstrap certificates that are valid for less.
pub const MINIMUM_LIFETIME: Duration = Duration::from_secs(10 * YEAR.as_secs());

/// A device whose clock is a little slow still finds its certificate valid.
const BACKDATED: Duration = Duration::from_secs(3600);

/// What subjects hold besides the CN.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subject {
    /// Organization (O).
    pub organization: Option<Name>,
    /// Organizational unit (OU): of a device that is assigned to an account, the account's id.
    pub organizational_unit: Option<Name>,
    /// Country (C).
    pub country: Option<Country>,
}

/// A name in a certificate: 1 to 64 characters (RFC 5280, ub-organization-name and ub-common-name).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name(String);

/// A country in a certificate: two capital letters (ISO 3166).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Country(PrintableString);

/// Why a text cannot stand in a subject.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SubjectError(&'static str);

impl FromStr for Name {
    type Err = SubjectError;
    fn from_str(text: &str) -> Result<Self, SubjectError> {
        if !(1..=64).contains(&text.chars().count()) || text.contains(char::is_control) {
            return Err(SubjectError("must be 1 to 64 printable characters"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Country {
    type Err = SubjectError;
    fn from_str(text: &str) -> Result<Self, SubjectError> {
        let wrong = SubjectError("must be two capital letters (ISO 3166)");
        if text.len() != 2 || !text.bytes().all(|byte| byte.is_ascii_uppercase()) {
            return Err(wrong);
        }
        PrintableString::try_from(text).map(Self).map_err(|_| wrong)
    }
}

/// From when to when a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// The first second.
    pub not_before: OffsetDateTime,
    /// The last second.
    pub not_after: OffsetDateTime,
}

impl Validity {
    /// For a CA made `now`.
    pub fn of_authority(now: OffsetDateTime, lifetime: Duration) -> Self {
        Self { not_before: now - BACKDATED, not_after: now + lifetime }
    }
}

/// The CA that signs device identities and nothing below them.
pub fn authority(
    common_name: &Name,
    subject: &Subject,
    validity: Validity,
    serial: [u8; 16],
) -> CertificateParams {
    let mut params = certificate(&common_name.0, subject, validity, serial);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages =
        vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// A key that signs data: statements about a station's log, firmware images.
pub fn signature(
    common_name: &Name,
    subject: &Subject,
    validity: Validity,
    serial: [u8; 16],
) -> CertificateParams {
    let mut params = certificate(&common_name.0, subject, validity, serial);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params
}

fn certificate(
    common_name: &str,
    subject: &Subject,
    validity: Validity,
    serial: [u8; 16],
) -> CertificateParams {
    let mut name = DistinguishedName::new();
    if let Some(Country(code)) = &subject.country {
        name.push(DnType::CountryName, DnValue::PrintableString(code.clone()));
    }
    if let Some(Name(organization)) = &subject.organization {
        name.push(DnType::OrganizationName, organization.as_str());
    }
    if let Some(Name(unit)) = &subject.organizational_unit {
        name.push(DnType::OrganizationalUnitName, unit.as_str());
    }
    name.push(DnType::CommonName, common_name);

    let mut params = CertificateParams::default();
    params.distinguished_name = name;
    params.not_before = validity.not_before;
    params.not_after = validity.not_after;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params
}

/// A serial number nobody can guess: 128 bits, positive, always 16 bytes long in DER.
pub fn random_serial() -> [u8; 16] {
    let mut serial = [0; 16];
    rand::fill(&mut serial).expect("the system's random numbers do not fail once it has booted");
    serial[0] = serial[0] & 0x7f | 0x40;
    serial
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serial_numbers_are_positive_long_and_different() {
        let (one, other) = (random_serial(), random_serial());
        assert_ne!(one, other);
        assert!([one, other].iter().all(|serial| (0x40..0x80).contains(&serial[0])));
    }

    #[test]
    fn only_what_fits_a_subject_is_a_name_or_a_country() {
        for bad in ["", "a\nb", &"x".repeat(65)] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?}");
        }
        for bad in ["", "D", "de", "DEU", "ÄÖ"] {
            assert!(bad.parse::<Country>().is_err(), "{bad:?}");
        }
        assert!("Example Devices GmbH".parse::<Name>().is_ok() && "DE".parse::<Country>().is_ok());
    }
}
