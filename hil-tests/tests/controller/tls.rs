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
use factory_proto::station::{
    HeartbeatRequest, ValidateUnitRequest, line_controller_client::LineControllerClient,
};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs, version::TLS13};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt as _;

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

/// A way to the controller for whoever has the certificate with this name, or none.
async fn connect(
    folder: &Path,
    controller: &ControllerProcess,
    certificate: Option<&str>,
) -> anyhow::Result<LineControllerClient<Channel>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join("ca.pem"))?)?;
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots);
    let mut config = match certificate {
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
    Ok(LineControllerClient::new(channel))
}

/// Reports the first result of this station, if it gets so far.
async fn report(
    folder: &Path,
    controller: &ControllerProcess,
    certificate: Option<&str>,
    station: &str,
) -> anyhow::Result<u64> {
    let mut client = connect(folder, controller, certificate).await?;
    let mut answers = client.report_results(tokio_stream::once(result(station, 1))).await?.into_inner();
    Ok(answers.message().await?.context("no answer")?.acknowledged_sequence)
}

/// A controller for stations with a certificate, which is `localhost` to them.
fn serve(ground: &Ground, names: &[&str]) -> anyhow::Result<ControllerProcess> {
    let folder = ground.folder.path();
    certify(folder, "ca", &[&["localhost"], names].concat())?;
    let mut command = Command::new(programs().join("reference-controller"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--store", &ground.store]);
    for (flag, file) in
        [("--certificate", "localhost.pem"), ("--key", "localhost.key"), ("--client-ca", "ca.pem")]
    {
        command.arg(flag).arg(folder.join(file));
    }
    ControllerProcess::spawn(command)
}

/// That a station was told it is not this one.
fn is_another(refused: &Status, station: &str) {
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    let info = refused.get_details_error_info().expect("google.rpc.ErrorInfo");
    assert_eq!((info.reason.as_str(), info.domain.as_str()), ("STATION_NOT_CERTIFIED", "factory.station.v1"));
    assert_eq!(
        (info.metadata["station"].as_str(), info.metadata["certificate"].as_str()),
        (station, "line-1")
    );
}

#[tokio::test]
async fn a_station_speaks_for_itself_alone() -> anyhow::Result<()> {
    let ground = Ground::sqlite()?;
    let controller = serve(&ground, &["Line-1"])?;
    let mut client = connect(ground.folder.path(), &controller, Some("Line-1")).await?;
    for station in ["line-2", "line-1.example", "", "line"] {
        let question = ValidateUnitRequest { station: station.to_owned(), ..Default::default() };
        is_another(&client.validate_unit(question).await.unwrap_err(), station);
        let beat = HeartbeatRequest { station: station.to_owned(), ..Default::default() };
        is_another(&client.heartbeat(beat).await.unwrap_err(), station);
        let alone = tokio_stream::once(result(station, 1));
        let mut answers = client.report_results(alone).await?.into_inner();
        is_another(&answers.message().await.unwrap_err(), station);
    }
    assert!(ground.kept()?.is_empty());

    // Behind a report of its own, which is kept, and before another one, which it has to send again.
    let mixed = [result("line-1", 1), result("line-2", 1), result("line-1", 2)];
    let mut answers = client.report_results(tokio_stream::iter(mixed)).await?.into_inner();
    let refused = loop {
        match answers.message().await {
            Ok(answer) => assert_eq!(answer.context("it ends with an error")?.acknowledged_sequence, 1),
            Err(refused) => break refused,
        }
    };
    is_another(&refused, "line-2");
    ground.has(&["line-1"], 1..=1)?;

    let question = ValidateUnitRequest { station: "line-1".to_owned(), ..Default::default() };
    client.validate_unit(question).await?;
    client.heartbeat(HeartbeatRequest { station: "LINE-1".to_owned(), ..Default::default() }).await?;
    Ok(())
}

#[tokio::test]
async fn only_stations_that_their_ca_knows_may_report() -> anyhow::Result<()> {
    let ground = Ground::sqlite()?;
    let folder = ground.folder.path();
    let controller = serve(&ground, &["line-1"])?;
    certify(folder, "other-ca", &["line-2"])?;

    report(folder, &controller, None, "line-1").await.expect_err("it shows no certificate");
    report(folder, &controller, Some("line-2"), "line-2").await.expect_err("nobody knows its CA");
    assert!(ground.kept()?.is_empty());
    assert_eq!(report(folder, &controller, Some("line-1"), "line-1").await?, 1);
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
