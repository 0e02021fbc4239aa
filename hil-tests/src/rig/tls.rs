//! Mutual TLS between the MES and the station of a line: what somebody would set up once, and the MES's way in.

use std::fs;

use anyhow::Context as _;
use factory_proto::station::station_client::StationClient;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use super::Rig;

/// The name in the MES's certificate.
pub const MES: &str = "mes.demo.example";
/// What the rig's station file says otherwise.
const PLAIN: &str = "listen-roles = [\"mes\", \"engineer\"]\n";

impl Rig {
    /// Has the station listen with TLS from its next start on, for an MES with a certificate, and for nobody else.
    pub fn secure(&mut self) -> anyhow::Result<()> {
        let key = KeyPair::generate()?;
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.distinguished_name.push(DnType::CommonName, "Demo Line Connections CA");
        fs::write(self.folder.join("line-ca.pem"), ca.self_signed(&key)?.pem())?;
        let issuer = Issuer::new(ca, key);
        let address = self.station.trim_start_matches("http://").parse::<std::net::SocketAddr>()?;
        let certify = |name: &str, san, usage| {
            let mut params = CertificateParams::default();
            params.subject_alt_names = vec![san];
            params.extended_key_usages = vec![usage];
            let key = KeyPair::generate()?;
            let certificate = params.signed_by(&key, &issuer)?.pem();
            fs::write(self.folder.join(format!("{name}.pem")), certificate)?;
            self.write_secret(&format!("{name}.key"), &key.serialize_pem())
        };
        certify("station", SanType::IpAddress(address.ip()), ExtendedKeyUsagePurpose::ServerAuth)?;
        certify("mes", SanType::DnsName(MES.try_into()?), ExtendedKeyUsagePurpose::ClientAuth)?;

        self.edit("station.toml", PLAIN, "")?;
        let tables = format!(
            r#"
[tls]
certificate = "station.pem"
key = "station.key"
client-ca = "line-ca.pem"

[roles]
mes = ["dns:{MES}"]
"#
        );
        let path = self.folder.join("station.toml");
        let file = fs::read_to_string(&path)?;
        fs::write(path, file + &tables)?;
        self.station = format!("https://{address}");
        Ok(())
    }

    /// The MES's connection to the station.
    pub async fn connect(&self) -> anyhow::Result<StationClient<Channel>> {
        let mut endpoint = Endpoint::from_shared(self.station.clone())?;
        if self.station.starts_with("https://") {
            let read = |name: &str| fs::read_to_string(self.folder.join(name));
            let tls = ClientTlsConfig::new()
                .ca_certificate(Certificate::from_pem(read("line-ca.pem")?))
                .identity(Identity::from_pem(read("mes.pem")?, read("mes.key")?));
            endpoint = endpoint.tls_config(tls)?;
        }
        let channel =
            endpoint.connect().await.with_context(|| format!("nobody answers at {}", self.station))?;
        Ok(StationClient::new(channel))
    }
}
