//! What a device's certificate says, as data: the profiles of the signer's file.
//!
//! Pure: time, names and keys are passed in; nothing is signed here.

use std::time::Duration;

use factory_proto::ids::{EndpointName, ProfileName};
use rcgen::{
    CertificateParams, CustomExtension, DnType, DnValue, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose,
    string::PrintableString,
};
use time::OffsetDateTime;
use webpki::KeyUsage;
use yasna::{Tag, models::ObjectIdentifier};

use super::{BACKDATED, MINIMUM_LIFETIME, Subject, Validity, certificate};

/// 99991231235959Z: a certificate without an end (RFC 5280, section 4.1.2.5).
const NO_END: OffsetDateTime = time::macros::datetime!(9999-12-31 23:59:59 UTC);
const SERIAL_NUMBER: [u64; 4] = [2, 5, 4, 5];
const SUBJECT_ALT_NAME: [u64; 4] = [2, 5, 29, 17];
/// id-on-hardwareModuleName (RFC 4108, section 5).
const HARDWARE_MODULE_NAME: [u64; 9] = [1, 3, 6, 1, 5, 5, 7, 8, 4];
/// id-kp-codeSigning, the content of its DER.
const CODE_SIGNING: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x03];

/// What certificates of one kind say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// What work orders call it.
    pub name: ProfileName,
    /// O, OU and C.
    pub subject: Subject,
    /// What else.
    pub kind: Kind,
}

/// What a certificate is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Bootstrap device, or LwM2M device: a TLS client of the platform, for at least 10 years.
    Client {
        /// As far as it lies within the CA's.
        lifetime: Duration,
    },
    /// IEEE 802.1AR initial device identity: without an end.
    IDevId {
        /// hwType of the hardwareModuleName (RFC 4108).
        hardware_type: Vec<u64>,
    },
    /// Whatever the file says.
    Custom {
        /// All of it, or nothing is issued.
        lifetime: Duration,
        /// At least one.
        key_usages: Vec<KeyUsagePurpose>,
        /// May be none.
        extended_key_usages: Vec<ExtendedKeyUsagePurpose>,
    },
}

/// Why a CA cannot issue by a profile, or not for a device; each text says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// Too few years left.
    #[error(
        "the CA certificate is valid until {until}, which leaves a device less than 10 years: \
         make a new CA with another key label"
    )]
    CaEndsTooSoon {
        /// The CA's last day.
        until: time::Date,
    },
    /// A custom lifetime is longer than the CA's.
    #[error(
        "the CA certificate is valid until {until}, which is sooner than the lifetime of profile {profile} ends: \
         give the profile a shorter one, or make a new CA with another key label"
    )]
    Longer {
        /// Which profile.
        profile: ProfileName,
        /// The CA's last day.
        until: time::Date,
    },
    /// X.520 has serialNumber as a PrintableString.
    #[error("holds a character that the serialNumber of profile {0} cannot hold: use A-Z a-z 0-9 . -")]
    NotPrintable(ProfileName),
}

impl Profile {
    /// From when to when a certificate is valid that is made `now` by a CA with the validity `ca`.
    ///
    /// # Errors
    /// The CA ends too soon.
    pub fn validity(&self, now: OffsetDateTime, ca: Validity) -> Result<Validity, ProfileError> {
        let until = ca.not_after.date();
        let not_before = (now - BACKDATED).max(ca.not_before);
        let ten_years = || {
            let enough = now + MINIMUM_LIFETIME <= ca.not_after;
            enough.then_some(()).ok_or(ProfileError::CaEndsTooSoon { until })
        };
        let not_after = match self.kind {
            Kind::Client { lifetime } => {
                ten_years()?;
                (now + lifetime).min(ca.not_after)
            }
            Kind::IDevId { .. } => {
                ten_years()?;
                NO_END
            }
            Kind::Custom { lifetime, .. } if now + lifetime > ca.not_after => {
                return Err(ProfileError::Longer { profile: self.name.clone(), until });
            }
            Kind::Custom { lifetime, .. } => now + lifetime,
        };
        Ok(Validity { not_before, not_after })
    }

    /// The certificate of a device; the issuer's part and the key come later.
    ///
    /// # Errors
    /// The profile has no place for such a name.
    pub fn certificate(
        &self,
        endpoint: &EndpointName,
        validity: Validity,
        serial: [u8; 16],
    ) -> Result<CertificateParams, ProfileError> {
        let mut params = certificate(endpoint.as_str(), &self.subject, validity, serial);
        // `NoCa` would leave out basicConstraints and the subject key identifier.
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = self.extended_key_usages().to_vec();
        match &self.kind {
            Kind::Client { .. } => {}
            Kind::IDevId { hardware_type } => {
                let number = PrintableString::try_from(endpoint.as_str())
                    .map_err(|_| ProfileError::NotPrintable(self.name.clone()))?;
                let serial_number = DnType::CustomDnType(SERIAL_NUMBER.to_vec());
                params.distinguished_name.push(serial_number, DnValue::PrintableString(number));
                params.custom_extensions = vec![hardware_module_name(hardware_type, endpoint)];
            }
            Kind::Custom { key_usages, .. } => params.key_usages.clone_from(key_usages),
        }
        Ok(params)
    }

    /// The extended key usages of its certificates.
    pub fn extended_key_usages(&self) -> &[ExtendedKeyUsagePurpose] {
        match &self.kind {
            Kind::Client { .. } => &[ExtendedKeyUsagePurpose::ClientAuth],
            Kind::IDevId { .. } => &[],
            Kind::Custom { extended_key_usages, .. } => extended_key_usages,
        }
    }

    /// One that its certificates must be good for when they are verified; those without any are good for all.
    pub fn usage(&self) -> KeyUsage {
        match self.extended_key_usages().first() {
            Some(ExtendedKeyUsagePurpose::ServerAuth) => KeyUsage::server_auth(),
            Some(ExtendedKeyUsagePurpose::CodeSigning) => KeyUsage::required_if_present(CODE_SIGNING),
            _ => KeyUsage::client_auth(),
        }
    }
}

/// A subjectAltName that holds a hardwareModuleName, which rcgen has no name for.
fn hardware_module_name(hardware_type: &[u64], endpoint: &EndpointName) -> CustomExtension {
    let content = yasna::construct_der(|writer| {
        writer.write_sequence(|names| {
            names.next().write_tagged_implicit(Tag::context(0), |other| {
                other.write_sequence(|other| {
                    other.next().write_oid(&ObjectIdentifier::from_slice(&HARDWARE_MODULE_NAME));
                    other.next().write_tagged(Tag::context(0), |name| {
                        name.write_sequence(|name| {
                            name.next().write_oid(&ObjectIdentifier::from_slice(hardware_type));
                            name.next().write_bytes(endpoint.as_str().as_bytes());
                        });
                    });
                });
            });
        });
    });
    CustomExtension::from_oid_content(&SUBJECT_ALT_NAME, content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::YEAR;
    use time::macros::datetime;

    const NOW: OffsetDateTime = datetime!(2026-06-01 12:00 UTC);

    fn profile(kind: Kind) -> Profile {
        Profile { name: "p".parse().unwrap(), subject: Subject::default(), kind }
    }

    fn custom(lifetime: Duration) -> Profile {
        let key_usages = vec![KeyUsagePurpose::DigitalSignature];
        profile(Kind::Custom { lifetime, key_usages, extended_key_usages: Vec::new() })
    }

    #[test]
    fn a_clients_certificate_never_leaves_the_years_of_its_ca() {
        let ca = Validity::of_authority(NOW, 15 * YEAR);
        let client = |lifetime| profile(Kind::Client { lifetime }).validity(NOW, ca).unwrap();
        assert_eq!(client(20 * YEAR), ca);
        assert_eq!(client(12 * YEAR).not_after, NOW + 12 * YEAR);
    }

    #[test]
    fn a_ca_that_leaves_a_device_less_than_ten_years_is_refused() {
        let ca = Validity::of_authority(NOW, 35 * YEAR);
        let later = NOW + 25 * YEAR + Duration::from_secs(1);
        let too_soon = Err(ProfileError::CaEndsTooSoon { until: ca.not_after.date() });
        for kind in [Kind::Client { lifetime: 20 * YEAR }, Kind::IDevId { hardware_type: vec![1, 3] }] {
            assert!(profile(kind.clone()).validity(NOW + 25 * YEAR, ca).is_ok(), "{kind:?}");
            assert_eq!(profile(kind).validity(later, ca), too_soon);
        }
    }

    #[test]
    fn a_custom_lifetime_is_given_in_full_or_not_at_all() {
        let ca = Validity::of_authority(NOW, 2 * YEAR);
        assert_eq!(custom(2 * YEAR).validity(NOW, ca).unwrap().not_after, ca.not_after);
        let longer = ProfileError::Longer { profile: "p".parse().unwrap(), until: ca.not_after.date() };
        assert_eq!(custom(3 * YEAR).validity(NOW, ca), Err(longer));
    }

    #[test]
    fn an_initial_device_identity_has_no_end_and_no_name_that_x520_cannot_write() {
        let idevid = profile(Kind::IDevId { hardware_type: vec![1, 3, 6, 1, 4, 1, 99999, 1] });
        let validity = idevid.validity(NOW, Validity::of_authority(NOW, 35 * YEAR)).unwrap();
        assert_eq!(validity.not_after, NO_END);
        assert!(idevid.certificate(&"SN-1.a".parse().unwrap(), validity, [1; 16]).is_ok());
        let refused = idevid.certificate(&"SN_1".parse().unwrap(), validity, [1; 16]).unwrap_err();
        assert_eq!(refused, ProfileError::NotPrintable("p".parse().unwrap()));
    }
}
