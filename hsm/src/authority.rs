//! The CA's certificate: read and checked at the start, and what every issued certificate is held against.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use aws_lc_rs::rand;
use factory_proto::ids::EndpointName;
use rcgen::{Issuer, KeyPair};
use rustls_pki_types::{CertificateDer, UnixTime, pem::PemObject};
use time::OffsetDateTime;
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{
    csr::DeviceKey,
    profile::{self, CaEndsTooSoon, Validity},
    token::{
        TokenError,
        key::{RemoteKey, SignDigest},
    },
};

/// The device-identity CA.
pub struct Authority {
    certificate: CertificateDer<'static>,
    point: Vec<u8>,
    validity: Validity,
}

/// Why a CA certificate cannot be used; each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// Not there.
    #[error(
        "CA certificate {} cannot be read: make the CA with `factory-signerd init`, \
         or restore the certificate that it wrote", path.display()
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// No PEM, or several certificates.
    #[error(
        "{} does not hold exactly one certificate in PEM: restore what `factory-signerd init` wrote",
        .0.display()
    )]
    NotOne(PathBuf),
    /// A certificate of something else.
    #[error(
        "CA certificate {} is not usable ({fault}): set `certificate` of the [[authority]] to the CA's",
        path.display()
    )]
    Unsuitable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// Another CA's, or another token's.
    #[error(
        "the key in the token does not belong to the CA certificate: correct `key-label` or `certificate` of the [[authority]]"
    )]
    OtherKey,
    /// Too old to issue what the platform takes.
    #[error(transparent)]
    EndsTooSoon(#[from] CaEndsTooSoon),
    /// The token did not sign at all.
    #[error(transparent)]
    Token(#[from] TokenError),
}

/// What is wrong with a certificate that we have just signed: our fault, or the token's.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// No path to the CA: signature, names, dates or usages.
    #[error("it does not verify against the CA certificate")]
    Path(#[source] webpki::Error),
    /// It cannot even be parsed.
    #[error("it cannot be parsed")]
    Malformed,
    /// The certificate of another device.
    #[error("its {0} is not what was asked for")]
    Differs(&'static str),
}

impl Authority {
    /// Reads the certificate at `path` (PEM) and checks that it can stand above device certificates.
    pub fn read(path: &Path) -> Result<Self, AuthorityError> {
        let text =
            fs::read(path).map_err(|source| AuthorityError::Unreadable { path: path.to_owned(), source })?;
        let mut certificates = CertificateDer::pem_slice_iter(&text);
        match (certificates.next(), certificates.next()) {
            (Some(Ok(certificate)), None) => Self::new(certificate)
                .map_err(|fault| AuthorityError::Unsuitable { path: path.to_owned(), fault }),
            _ => Err(AuthorityError::NotOne(path.to_owned())),
        }
    }

    /// Checks a certificate; the error says in a few words what is wrong with it.
    pub fn new(certificate: CertificateDer<'static>) -> Result<Self, &'static str> {
        let (rest, parsed) = X509Certificate::from_der(&certificate).map_err(|_| "it cannot be parsed")?;
        if !rest.is_empty() {
            return Err("other bytes follow it");
        }
        if !parsed.is_ca() {
            return Err("it is no CA");
        }
        if !matches!(parsed.key_usage(), Ok(Some(usage)) if usage.value.key_cert_sign()) {
            return Err("it may not sign certificates");
        }
        parsed.verify_signature(None).map_err(|_| "it is not signed by its own key")?;
        if written_issuer(&certificate).as_deref() != Some(parsed.subject().as_raw()) {
            return Err("its subject would be written differently as the issuer of others");
        }
        let validity = Validity {
            not_before: parsed.validity().not_before.to_datetime(),
            not_after: parsed.validity().not_after.to_datetime(),
        };
        let point = parsed.public_key().subject_public_key.data.to_vec();
        Ok(Self { certificate, point, validity })
    }

    /// The certificate, DER.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Whether its subject holds this CN.
    pub fn is_called(&self, name: &str) -> bool {
        let parsed = X509Certificate::from_der(&self.certificate);
        parsed.is_ok_and(|(_, it)| it.subject().iter_common_name().any(|cn| cn.as_str() == Ok(name)))
    }

    /// The public key's point (SEC 1, uncompressed).
    pub fn point(&self) -> &[u8] {
        &self.point
    }

    /// From when to when the CA is valid.
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// Has something signed and verifies it with the public key in the certificate.
    pub fn check_key(&self, signer: &dyn SignDigest) -> Result<(), AuthorityError> {
        use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};

        // A text that can be no certificate, nor anything else that we would sign.
        let mut nonce = [0; 16];
        rand::fill(&mut nonce).expect("the system's random numbers do not fail once it has booted");
        let challenge = [b"factory-signerd: is this the certificate's key? ".as_slice(), &nonce].concat();
        let signature = RemoteKey::new(signer, &self.point).sign_message(&challenge)?;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.point)
            .verify(&challenge, &signature)
            .map_err(|_| AuthorityError::OtherKey)
    }

    /// Holds a certificate that we have just signed against what was asked for.
    pub fn verify(
        &self,
        issued: &CertificateDer<'_>,
        endpoint: &EndpointName,
        key: &DeviceKey,
        now: OffsetDateTime,
    ) -> Result<(), VerifyError> {
        let anchor = anchor_from_trusted_cert(&self.certificate).map_err(VerifyError::Path)?;
        let since_epoch = (now - OffsetDateTime::UNIX_EPOCH).unsigned_abs();
        EndEntityCert::try_from(issued)
            .map_err(VerifyError::Path)?
            .verify_for_usage(
                &[webpki::aws_lc_rs::ECDSA_P256_SHA256],
                &[anchor],
                &[],
                UnixTime::since_unix_epoch(since_epoch),
                KeyUsage::client_auth(),
                None,
                None,
            )
            .map_err(VerifyError::Path)?;

        let (_, parsed) = X509Certificate::from_der(issued).map_err(|_| VerifyError::Malformed)?;
        if parsed.public_key().raw != key.spki() {
            return Err(VerifyError::Differs("public key"));
        }
        let mut names = parsed.subject().iter_common_name().map(|name| name.as_str());
        if (names.next(), names.next()) != (Some(Ok(endpoint.as_str())), None) {
            return Err(VerifyError::Differs("common name"));
        }
        Ok(())
    }
}

/// The issuer's name as rcgen writes it, which is not for every subject what it has read: of a repeated
/// attribute (DC=com, DC=example) it keeps one. Found out with throwaway keys.
fn written_issuer(ca: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let issuer = Issuer::from_ca_cert_der(ca, KeyPair::generate().ok()?).ok()?;
    let endpoint = "probe".parse().expect("an endpoint name");
    let now = OffsetDateTime::UNIX_EPOCH;
    let validity = Validity { not_before: now, not_after: now };
    let probe = profile::device(&endpoint, &profile::Subject::default(), validity, [1; 16])
        .signed_by(&KeyPair::generate().ok()?, &issuer)
        .ok()?;
    let (_, parsed) = X509Certificate::from_der(probe.der()).ok()?;
    Some(parsed.issuer().as_raw().to_vec())
}
