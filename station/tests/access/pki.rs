//! A CA for connections, and what it gives to the station and to those who call.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use factory_station::place::ClientFiles;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyPair, PKCS_ECDSA_P256_SHA256, RevokedCertParams, SanType, SerialNumber,
    date_time_ymd,
};

use crate::daemon::replace;

pub struct Pki {
    pub pem: String,
    pub issuer: Issuer<'static, KeyPair>,
}

impl Pki {
    pub fn new() -> Self {
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = key();
        let pem = ca.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(ca, key) }
    }

    /// For the station file.
    pub fn section(&self) -> &'static str {
        "[tls]\ncertificate = \"tls.pem\"\nkey = \"tls.key\"\nclient-ca = \"clients.pem\"\n"
    }

    /// Gives the station in this folder a certificate for localhost; replaces what is there.
    pub fn equip(&self, folder: &Path) {
        let (certificate, key) = self.give("localhost", ExtendedKeyUsagePurpose::ServerAuth, |_| {});
        replace(&folder.join("tls.key"), &key);
        replace(&folder.join("tls.pem"), &certificate);
        replace(&folder.join("clients.pem"), &self.pem);
    }

    /// What somebody with this name, a DNS name or a URI, has; written to the folder.
    pub fn files(&self, folder: &Path, name: &str) -> ClientFiles {
        self.files_with(folder, name, |_| {})
    }

    pub fn files_with(
        &self,
        folder: &Path,
        name: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> ClientFiles {
        let (certificate, key) = self.give(name, ExtendedKeyUsagePurpose::ClientAuth, change);
        let stem = name.replace(['/', ':'], "-");
        let path = |ending: &str| folder.join(format!("{stem}.{ending}"));
        replace(&path("pem"), &certificate);
        replace(&path("key"), &key);
        replace(&path("ca"), &self.pem);
        fs::set_permissions(path("key"), PermissionsExt::from_mode(0o600)).unwrap();
        ClientFiles {
            section: "client",
            ca: path("ca"),
            crl: None,
            certificate: path("pem"),
            key: path("key"),
        }
    }

    /// Certificate and key, PEM.
    pub fn give(
        &self,
        name: &str,
        usage: ExtendedKeyUsagePurpose,
        change: impl FnOnce(&mut CertificateParams),
    ) -> (String, String) {
        let mut params = CertificateParams::default();
        let san = name.to_owned().try_into().unwrap();
        params.subject_alt_names =
            vec![if name.contains(':') { SanType::URI(san) } else { SanType::DnsName(san) }];
        params.extended_key_usages = vec![usage];
        change(&mut params);
        let key = key();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

/// The first list of a CA, which has withdrawn the certificates with these numbers; good until the end of a year.
pub fn crl(issuer: &Issuer<'_, KeyPair>, withdrawn: &[u64], until: i32) -> String {
    later_crl(issuer, 1, withdrawn, until)
}

/// The list of a CA with this number.
pub fn later_crl(issuer: &Issuer<'_, KeyPair>, number: u64, withdrawn: &[u64], until: i32) -> String {
    let revoked = |serial: &u64| RevokedCertParams {
        serial_number: SerialNumber::from(*serial),
        revocation_time: date_time_ymd(2026, 1, 1),
        reason_code: None,
        invalidity_date: None,
    };
    let list = CertificateRevocationListParams {
        this_update: date_time_ymd(2025, 1, 1),
        next_update: date_time_ymd(until, 12, 31),
        crl_number: SerialNumber::from(number),
        issuing_distribution_point: None,
        revoked_certs: withdrawn.iter().map(revoked).collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    list.signed_by(issuer).unwrap().pem().unwrap()
}

pub fn key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()
}
