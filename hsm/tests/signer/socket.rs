//! The socket file's life.

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt,
};

use crate::{
    request::{Csr, issue, p256},
    rig::Rig,
};

#[tokio::test]
async fn a_stale_socket_is_replaced() {
    let rig = Rig::commissioned();
    rig.serve().kill();
    assert!(rig.socket().exists());
    rig.serve().issue(issue(Csr::default().signed_by(&p256()))).await.unwrap();
}

#[tokio::test]
async fn a_second_server_is_refused_and_the_first_goes_on() {
    let rig = Rig::commissioned();
    let first = rig.serve();
    let (text, _) = rig.serve_in_vain();
    assert!(text.contains("another server listens on"), "{text}");
    first.issue(issue(Csr::default().signed_by(&p256()))).await.unwrap();
}

#[test]
fn a_file_that_is_no_socket_is_left_alone() {
    let rig = Rig::commissioned();
    File::create(rig.socket()).unwrap();
    let (text, _) = rig.serve_in_vain();
    assert!(text.contains("exists and is no socket: remove it"), "{text}");
    assert!(rig.socket().exists());
}

#[test]
fn sigterm_ends_the_signer_well_and_leaves_no_socket() {
    let rig = Rig::commissioned();
    let server = rig.serve();
    let mode = fs::metadata(rig.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let (status, log) = server.terminate();
    assert!(status.success(), "{log}");
    assert!(!rig.socket().exists());
}
