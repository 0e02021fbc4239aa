//! The station's way to a controller on another host.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use factory_hil_tests::mes::controller::Controller;
use factory_proto::station::{HeartbeatRequest, line_controller_server::LineControllerServer};
use factory_station::{
    line::controllers::{Client, Controllers, NoAnswer},
    place::{ClientFiles, Place},
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};

/// Writes `CA.pem`, and a certificate with its key for each name.
fn certify(folder: &Path, ca_name: &str, names: &[&str]) -> anyhow::Result<()> {
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate()?;
    fs::write(folder.join(format!("{ca_name}.pem")), ca.self_signed(&key)?.pem())?;
    let issuer = Issuer::new(ca, key);
    for name in names {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new([(*name).to_owned()])?.signed_by(&key, &issuer)?;
        fs::write(folder.join(format!("{name}.pem")), certificate.pem())?;
        fs::write(folder.join(format!("{name}.key")), key.serialize_pem())?;
        fs::set_permissions(folder.join(format!("{name}.key")), PermissionsExt::from_mode(0o600))?;
    }
    Ok(())
}

async fn beat(controllers: &Controllers) -> Result<(), NoAnswer> {
    let call = |mut client: Client, _| async move { client.heartbeat(HeartbeatRequest::default()).await };
    controllers.ask(Duration::from_secs(5), call).await.map(drop)
}

#[tokio::test]
async fn a_station_and_a_controller_on_another_host_prove_to_each_other_who_they_are() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    certify(folder, "ca", &["localhost", "line-1.example"])?;
    certify(folder, "other-ca", &["stranger.example"])?;
    let read = |name: &str| fs::read(folder.join(name));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let uri: tonic::transport::Uri =
        format!("https://localhost:{}", listener.local_addr()?.port()).parse()?;
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(read("localhost.pem")?, read("localhost.key")?))
        .client_ca_root(Certificate::from_pem(read("ca.pem")?));
    let service = LineControllerServer::new(Controller::new(&folder.join("results.jsonl"))?);
    let server = Server::builder().tls_config(tls)?.add_service(service);
    let serving = tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));

    let files = |ca: &str, name: &str| ClientFiles {
        section: "controller-tls",
        ca: folder.join(ca),
        crl: None,
        certificate: folder.join(format!("{name}.pem")),
        key: folder.join(format!("{name}.key")),
    };
    let at = |files: ClientFiles| Controllers::at(&[Place::Tls { uri: uri.clone(), files }]);
    beat(&at(files("ca.pem", "line-1.example"))?).await.map_err(|error| anyhow::anyhow!("{error}"))?;
    for (ca, name, says) in [
        ("ca.pem", "stranger.example", "https://localhost"),
        ("other-ca.pem", "line-1.example", "certificate"),
    ] {
        let Err(NoAnswer::Away(why)) = beat(&at(files(ca, name))?).await else { panic!("{name} got in") };
        assert!(why.contains(says), "{why}");
    }
    let mixed = ClientFiles { key: folder.join("localhost.key"), ..files("ca.pem", "line-1.example") };
    for (bad, says) in [(files("ca.pem", "nobody"), "nobody.pem"), (mixed, "cannot be used together")] {
        let error = at(bad).err().expect("there is no such pair").to_string();
        assert!(error.contains(says), "{error}");
    }
    serving.abort();
    Ok(())
}
