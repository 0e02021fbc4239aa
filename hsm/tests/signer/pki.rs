//! A CA for connections, and what it gives to the signer and its stations.

use std::{fs, net::SocketAddr, os::unix::fs::PermissionsExt};

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    PKCS_ECDSA_P256_SHA256, SanType,
};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Error, Identity};

use crate::rig::Rig;

pub struct Pki {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, PEM.
pub struct Credential {
    pub certificate: String,
    pub key: String,
}

impl Pki {
    pub fn new() -> Self {
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = key();
        let pem = ca.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(ca, key) }
    }

    /// For a station that is known by `name`: a DNS name, or a URI.
    pub fn station(&self, name: &str) -> Credential {
        let name = name.to_owned().try_into().unwrap();
        let san = if format!("{name:?}").contains(':') { SanType::URI(name) } else { SanType::DnsName(name) };
        self.give(san, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn give(&self, name: SanType, usage: ExtendedKeyUsagePurpose) -> Credential {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![name];
        params.extended_key_usages = vec![usage];
        let key = key();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Credential { certificate, key: key.serialize_pem() }
    }

    /// Gives the rig's signer a certificate for loopback.
    pub fn equip(&self, rig: &Rig) {
        let signer =
            self.give(SanType::IpAddress("127.0.0.1".parse().unwrap()), ExtendedKeyUsagePurpose::ServerAuth);
        fs::write(rig.path("tls.key"), signer.key).unwrap();
        fs::set_permissions(rig.path("tls.key"), PermissionsExt::from_mode(0o600)).unwrap();
        fs::write(rig.path("tls.pem"), signer.certificate).unwrap();
        fs::write(rig.path("stations.pem"), &self.pem).unwrap();
    }

    /// Lets the rig's signer listen for TLS, and these be its peers; TOML.
    pub fn configure(&self, rig: &Rig, peers: &str) {
        self.equip(rig);
        let tls = r#"[tls]
certificate = "tls.pem"
key = "tls.key"
client-ca = "stations.pem"
"#;
        rig.configure("socket =", "listen = \"127.0.0.1:0\"\nsocket =");
        rig.configure("[subject]", &format!("{tls}\n{peers}\n[subject]"));
    }

    /// Connects, and trusts this CA.
    pub async fn connect(&self, address: SocketAddr, station: &Credential) -> Result<Channel, Error> {
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&self.pem))
            .identity(Identity::from_pem(&station.certificate, &station.key));
        Endpoint::from_shared(format!("https://{address}")).unwrap().tls_config(tls).unwrap().connect().await
    }
}

fn key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()
}
