//! A CA's certificate, with those above it: read and checked at the start, and what every issued certificate is held against.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use aws_lc_rs::rand;
use factory_proto::ids::EndpointName;
use rcgen::{ExtendedKeyUsagePurpose, Issuer, KeyPair};
use rustls_pki_types::{CertificateDer, UnixTime, pem::PemObject};
use time::OffsetDateTime;
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_parser::prelude::{FromDer, ParsedExtension, X509Certificate};

use crate::{
    chain,
    csr::DeviceKey,
    profile::{
        Subject, Validity,
        device::{Kind, Profile},
    },
    token::{
        TokenError,
        key::{RemoteKey, SignDigest},
    },
};

/// A CA for device identities.
pub struct Authority {
    /// Its own certificate first, then those above it, as far as they are known.
    chain: Vec<CertificateDer<'static>>,
    point: Vec<u8>,
    key_identifier: Vec<u8>,
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
    /// No PEM, or no certificate in it.
    #[error(
        "{} does not hold certificates in PEM, the CA's own first: restore what `factory-signerd` `init` or `import` wrote",
        .0.display()
    )]
    NoCertificate(PathBuf),
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
    /// Reads the certificates at `path` (PEM, the CA's own first) and checks that they can stand above device certificates.
    pub fn read(path: &Path) -> Result<Self, AuthorityError> {
        let text =
            fs::read(path).map_err(|source| AuthorityError::Unreadable { path: path.to_owned(), source })?;
        let chain = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|_| AuthorityError::NoCertificate(path.to_owned()))?;
        if chain.is_empty() {
            return Err(AuthorityError::NoCertificate(path.to_owned()));
        }
        Self::new(chain).map_err(|fault| AuthorityError::Unsuitable { path: path.to_owned(), fault })
    }

    /// Checks a CA's certificate and those above it; the error says in a few words what is wrong with them.
    pub fn new(chain: Vec<CertificateDer<'static>>) -> Result<Self, &'static str> {
        let certificate = chain.first().ok_or("there is none")?;
        let parsed = chain::parse(certificate)?;
        chain::check(&chain, 0)?;
        if written_issuer(certificate).as_deref() != Some(parsed.subject().as_raw()) {
            return Err("its subject would be written differently as the issuer of others");
        }
        let validity = Validity {
            not_before: parsed.validity().not_before.to_datetime(),
            not_after: parsed.validity().not_after.to_datetime(),
        };
        let key_identifier = key_identifier(&parsed).ok_or("it has no subject key identifier")?;
        let point = parsed.public_key().subject_public_key.data.to_vec();
        Ok(Self { point, key_identifier, validity, chain })
    }

    /// The certificate, DER.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.chain[0]
    }

    /// The certificate and those above it, DER.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// Whether its subject holds this CN.
    pub fn is_called(&self, name: &str) -> bool {
        let parsed = X509Certificate::from_der(self.certificate());
        parsed.is_ok_and(|(_, it)| it.subject().iter_common_name().any(|cn| cn.as_str() == Ok(name)))
    }

    /// The public key's point (SEC 1, uncompressed).
    pub fn point(&self) -> &[u8] {
        &self.point
    }

    /// Whether it may have such certificates below it, as far as its extended key usages say.
    pub fn may_issue(&self, profile: &Profile) -> bool {
        let Ok((_, parsed)) = X509Certificate::from_der(self.certificate()) else { return false };
        let Ok(Some(usages)) = parsed.extended_key_usage() else { return true };
        let usages = usages.value;
        let allowed = |usage: &ExtendedKeyUsagePurpose| match usage {
            ExtendedKeyUsagePurpose::ClientAuth => usages.client_auth,
            ExtendedKeyUsagePurpose::ServerAuth => usages.server_auth,
            ExtendedKeyUsagePurpose::CodeSigning => usages.code_signing,
            _ => false,
        };
        usages.any || profile.extended_key_usages().iter().all(allowed)
    }

    /// Its subject key identifier.
    pub fn key_identifier(&self) -> &[u8] {
        &self.key_identifier
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
        usage: KeyUsage,
        now: OffsetDateTime,
    ) -> Result<(), VerifyError> {
        let anchor = anchor_from_trusted_cert(self.certificate()).map_err(VerifyError::Path)?;
        let since_epoch = (now - OffsetDateTime::UNIX_EPOCH).unsigned_abs();
        EndEntityCert::try_from(issued)
            .map_err(VerifyError::Path)?
            .verify_for_usage(
                &[webpki::aws_lc_rs::ECDSA_P256_SHA256],
                &[anchor],
                &[],
                UnixTime::since_unix_epoch(since_epoch),
                usage,
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

fn key_identifier(certificate: &X509Certificate<'_>) -> Option<Vec<u8>> {
    let found = certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(identifier) => Some(identifier.0.to_vec()),
        _ => None,
    });
    found.filter(|identifier| !identifier.is_empty())
}

/// The issuer's name as rcgen writes it, which is not for every subject what it has read: of a repeated
/// attribute (DC=com, DC=example) it keeps one. Found out with throwaway keys.
fn written_issuer(ca: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let issuer = Issuer::from_ca_cert_der(ca, KeyPair::generate().ok()?).ok()?;
    let endpoint = "probe".parse().expect("an endpoint name");
    let now = OffsetDateTime::UNIX_EPOCH;
    let validity = Validity { not_before: now, not_after: now };
    let name = "probe".parse().expect("it is a name");
    let kind = Kind::Client { lifetime: Duration::ZERO };
    let profile = Profile { name, subject: Subject::default(), kind };
    let probe = profile
        .certificate(&endpoint, validity, [1; 16])
        .ok()?
        .signed_by(&KeyPair::generate().ok()?, &issuer)
        .ok()?;
    let (_, parsed) = X509Certificate::from_der(probe.der()).ok()?;
    Some(parsed.issuer().as_raw().to_vec())
}
