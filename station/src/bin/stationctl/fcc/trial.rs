//! A CA that is made for one device and thrown away, so that a recipe can be tried without a signer. Nobody trusts
//! what it signs.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SubjectPublicKeyInfo,
};
use time::{Duration, OffsetDateTime};

const YEAR: Duration = Duration::days(365);

/// The CA, with as many others above it as a chain needs.
pub struct Trial {
    issuer: Issuer<'static, KeyPair>,
    /// Itself, and those above it, DER.
    certificates: Vec<Vec<u8>>,
}

impl Trial {
    /// Makes a CA for chains of `depth` certificates.
    pub fn new(depth: usize) -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate()?;
        let params = authority("Trial root, trusted by nobody");
        let root = params.self_signed(&key)?.der().to_vec();
        let mut trial = Self { issuer: Issuer::new(params, key), certificates: vec![root] };
        for number in 2..depth {
            let key = KeyPair::generate()?;
            let params = authority(&format!("Trial CA {number}, trusted by nobody"));
            let certificate = params.signed_by(&key, &trial.issuer)?.der().to_vec();
            trial.certificates.insert(0, certificate);
            trial.issuer = Issuer::new(params, key);
        }
        Ok(trial)
    }

    /// A device's certificate, and those that it is signed by, DER.
    pub fn certify(
        self,
        key: &[u8],
        endpoint_name: &str,
        account: Option<&str>,
    ) -> Result<(Vec<u8>, Vec<Vec<u8>>), rcgen::Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        if let Some(account) = account {
            params.distinguished_name.push(DnType::OrganizationalUnitName, account);
        }
        params.distinguished_name.push(DnType::CommonName, endpoint_name);
        // What a device's clock may be behind.
        params.not_before = OffsetDateTime::now_utc() - Duration::DAY;
        params.not_after = OffsetDateTime::now_utc() + 20 * YEAR;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&SubjectPublicKeyInfo::from_der(key)?, &self.issuer)?;
        Ok((certificate.der().to_vec(), self.certificates))
    }
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = OffsetDateTime::now_utc() - Duration::DAY;
    params.not_after = OffsetDateTime::now_utc() + 30 * YEAR;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}
