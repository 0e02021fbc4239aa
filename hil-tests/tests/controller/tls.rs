//! Across a network, the controller speaks with stations that prove who they are, and with nobody else.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Command,
    sync::Arc,
};

use anyhow::Context as _;
use factory_hil_tests::mes::process::ControllerProcess;
use factory_proto::station::line_controller_client::LineControllerClient;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs, version::TLS13};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::Endpoint;

use super::{Ground, programs, result};

/// A CA, and a certificate of it for each name.
fn certify(folder: &Path, ca_name: &str, names: &[&str]) -> anyhow::Result<()> {
    let key = || KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256);
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = key()?;
    fs::write(folder.join(format!("{ca_name}.pem")), ca.self_signed(&ca_key)?.pem())?;
    let issuer = Issuer::new(ca, ca_key);
    for name in names {
        let key = key()?;
        let certificate = CertificateParams::new([(*name).to_owned()])?.signed_by(&key, &issuer)?;
        fs::write(folder.join(format!("{name}.pem")), certificate.pem())?;
        let file = folder.join(format!("{name}.key"));
        fs::write(&file, key.serialize_pem())?;
        fs::set_permissions(file, Permissions::from_mode(0o600))?;
    }
    Ok(())
}

/// Reports one result as this station, if it gets so far.
async fn report(folder: &Path, controller: &ControllerProcess, station: Option<&str>) -> anyhow::Result<u64> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join("ca.pem"))?)?;
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots);
    let mut config = match station {
        Some(name) => config.with_client_auth_cert(
            vec![CertificateDer::from_pem_file(folder.join(format!("{name}.pem")))?],
            PrivateKeyDer::from_pem_file(folder.join(format!("{name}.key")))?,
        )?,
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let (connector, address) = (TlsConnector::from(Arc::new(config)), controller.address);
    let connect = tower::service_fn(move |_| {
        let connector = connector.clone();
        async move {
            let stream = TcpStream::connect(address).await?;
            let name = "localhost".try_into().expect("it is a name");
            Ok::<_, std::io::Error>(TokioIo::new(connector.connect(name, stream).await?))
        }
    });
    let channel = Endpoint::from_static("http://localhost").connect_with_connector(connect).await?;
    let reports = tokio_stream::once(result("line-1", 1));
    let mut answers = LineControllerClient::new(channel).report_results(reports).await?.into_inner();
    Ok(answers.message().await?.context("no answer")?.acknowledged_sequence)
}

#[tokio::test]
async fn only_stations_that_their_ca_knows_may_report() -> anyhow::Result<()> {
    let ground = Ground::sqlite()?;
    let folder = ground.folder.path();
    certify(folder, "ca", &["localhost", "line-1.example"])?;
    certify(folder, "other-ca", &["stranger.example"])?;
    let mut command = Command::new(programs().join("reference-controller"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--store", &ground.store]);
    for (flag, file) in
        [("--certificate", "localhost.pem"), ("--key", "localhost.key"), ("--client-ca", "ca.pem")]
    {
        command.arg(flag).arg(folder.join(file));
    }
    let controller = ControllerProcess::spawn(command)?;

    report(folder, &controller, None).await.expect_err("it shows no certificate");
    report(folder, &controller, Some("stranger.example")).await.expect_err("nobody knows its CA");
    assert!(ground.kept()?.is_empty());
    assert_eq!(report(folder, &controller, Some("line-1.example")).await?, 1);
    ground.has(&["line-1"], 1..=1)
}

#[test]
fn without_tls_it_listens_on_this_host_alone() -> anyhow::Result<()> {
    let ground = Ground::sqlite()?;
    for (arguments, reason) in [
        (&["--listen", "0.0.0.0:0"][..], "the network can see 0.0.0.0:0: name --certificate"),
        (&["--listen", "0.0.0.0:0", "--certificate", "a.pem"], "--key"),
    ] {
        let (fine, said) = ground.print(&[&["serve"], arguments].concat())?;
        assert!(!fine && said.contains(reason), "{said}");
    }
    Ok(())
}
