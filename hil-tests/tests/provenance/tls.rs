//! The station's way to a signer on another host: its client at the signer's own doors.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use factory_door::{
    doors::Door,
    guest::Identity,
    tls::{Tls, TlsFiles},
};
use factory_hsm::peer::{Entry, PeerAdmission, PeerDoors, Peers};
use factory_proto::{head::HeadStatement, signer::signer_server::SignerServer};
use factory_station::{
    place::{ClientFiles, Place},
    signer::{Signer, SignerError},
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256};
use tokio::net::{TcpListener, UnixListener};
use tonic::transport::Server;

use super::notary::SignerDaemon;

/// Writes `ca.pem`, and for each name its certificate and key.
fn certify(folder: &Path, names: &[&str]) {
    let key = || KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = key();
    fs::write(folder.join("ca.pem"), ca.self_signed(&ca_key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(ca, ca_key);
    for name in names {
        let key = key();
        let certificate = CertificateParams::new([(*name).to_owned()]).unwrap();
        let certificate = certificate.signed_by(&key, &issuer).unwrap();
        fs::write(folder.join(format!("{name}.pem")), certificate.pem()).unwrap();
        fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
        fs::set_permissions(folder.join(format!("{name}.key")), PermissionsExt::from_mode(0o600)).unwrap();
    }
}

fn head() -> HeadStatement {
    HeadStatement::new("line-1".to_owned(), [1; 16], (1, 9), [2; 32], [3; 32], 1, 1_764_000_000_000)
}

#[tokio::test]
async fn a_station_and_a_signer_on_another_host_prove_to_each_other_who_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    certify(folder, &["localhost", "line-1.example", "line-2.example"]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let tls = Tls::load(TlsFiles {
        certificate: folder.join("localhost.pem"),
        key: folder.join("localhost.key"),
        client_ca: folder.join("ca.pem"),
        client_crl: None,
    });
    let peers = Peers::new(vec![Entry {
        name: "line-1".parse().unwrap(),
        identity: Identity::named("line-1.example"),
        orders: None,
        rate: Some(("1/h".parse().unwrap(), 2.try_into().unwrap())),
    }]);
    let socket = UnixListener::bind(folder.join("signer.sock")).unwrap();
    let doors = PeerDoors::open([Door::Socket(socket), Door::Tls(listener, tls.unwrap())], peers);
    let server =
        Server::builder().layer(PeerAdmission::new()).add_service(SignerServer::new(SignerDaemon::new()));
    tokio::spawn(server.serve_with_incoming(doors));

    let station = |name: &str| {
        let files = ClientFiles {
            section: "signer-tls",
            ca: folder.join("ca.pem"),
            crl: None,
            certificate: folder.join(format!("{name}.pem")),
            key: folder.join(format!("{name}.key")),
        };
        let uri = format!("https://localhost:{port}").parse().unwrap();
        Signer::at(Place::Tls { uri, files }, folder).unwrap()
    };
    let ours = station("line-1.example");
    ours.sign_head(&head()).await.unwrap();
    ours.sign_head(&head()).await.unwrap();
    let refused = ours.sign_head(&head()).await.unwrap_err();
    assert!(matches!(refused, SignerError::TooMuch(_)), "{refused}");
    let refused = station("line-2.example").sign_head(&head()).await.unwrap_err();
    assert!(refused.to_string().contains("line-2.example"), "{refused}");
}
