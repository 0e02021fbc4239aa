//! A ledger that is not the one that stations were answered from is found out by what they bring back.

use std::{fs, path::Path, process::Command};

use factory_proto::{
    ledger_head::{METADATA, SignedLedgerHead},
    signer::{DescribeRequest, signer_client::SignerClient},
};
use tokio::runtime::Handle;
use tonic::{Code, Request, Status, metadata::MetadataValue};

use crate::{
    orders::USUAL,
    request::unit,
    rig::{Rig, Server},
};

/// What a call hands out, when it brings `head`.
async fn call(server: &Server, head: Option<&[u8]>) -> Result<Option<Vec<u8>>, Status> {
    let mut request = Request::new(DescribeRequest {});
    if let Some(head) = head {
        request.metadata_mut().insert_bin(METADATA, MetadataValue::from_bytes(head));
    }
    let answer = SignerClient::new(server.connect().await).describe(request).await?;
    Ok(answer.metadata().get_bin(METADATA).map(|head| head.to_bytes().unwrap().to_vec()))
}

/// Asks until the head covers `records` records.
async fn head_of(server: &Server, records: u64) -> Vec<u8> {
    loop {
        if let Some(head) = call(server, None).await.unwrap()
            && SignedLedgerHead::decode(&head).unwrap().1.sequence >= records
        {
            return head;
        }
        tokio::task::yield_now().await;
    }
}

fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(done.success());
}

#[tokio::test]
async fn a_ledger_that_holds_what_was_signed_of_it_goes_on_after_a_kill() {
    let rig = Rig::commissioned();
    let server = rig.serve();
    server.open(USUAL).await;
    server.ask(unit("one")).await.unwrap();
    let old = head_of(&server, 3).await;
    server.ask(unit("two")).await.unwrap();
    let new = head_of(&server, 5).await;
    server.kill();
    let server = rig.serve();
    for head in [&old, &new] {
        call(&server, Some(head)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_ledger_rolled_back_cut_or_swapped_stops_the_signer_for_everybody() {
    let check = async |tamper: &dyn Fn(&Rig), sentence: &str| {
        let rig = Rig::commissioned();
        let server = rig.serve();
        server.open(USUAL).await;
        server.ask(unit("one")).await.unwrap();
        server.kill();
        copy(&rig.path("ledger"), &rig.path("ledger-before"));
        let server = rig.serve();
        server.ask(unit("two")).await.unwrap();
        let head = head_of(&server, 5).await;
        server.kill();
        tamper(&rig);

        let server = rig.serve();
        let mut health = server.health().await;
        health.until(true).await;
        let refused = call(&server, Some(&head)).await.unwrap_err();
        assert_eq!(refused.code(), Code::DataLoss, "{refused}");
        assert!(refused.message().contains(sentence), "{refused}");
        // A station that brings nothing is refused from then on as well.
        let refused = server.ask(unit("three")).await.unwrap_err();
        assert_eq!(refused.code(), Code::DataLoss, "{refused}");
        assert!(refused.message().contains("restore the newest copy of its ledger"), "{refused}");
        health.until(false).await;
    };
    let rolled_back = |rig: &Rig| {
        fs::remove_dir_all(rig.path("ledger")).unwrap();
        copy(&rig.path("ledger-before"), &rig.path("ledger"));
    };
    check(&rolled_back, "the ledger ends at record 3, and its head was signed at record 5").await;
    let begun_anew = |rig: &Rig| fs::remove_dir_all(rig.path("ledger")).unwrap();
    check(&begun_anew, "the ledger is empty, and its head was signed at record 5").await;
    let swapped = |rig: &Rig| {
        // Begun anew, and used since.
        fs::remove_dir_all(rig.path("ledger")).unwrap();
        let server = rig.serve();
        tokio::task::block_in_place(|| Handle::current().block_on(server.open(USUAL)));
        server.kill();
    };
    check(&swapped, "the ledger is another one than its head was signed of").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_ledger_that_was_rolled_back_and_has_grown_again_is_another_one() {
    let rig = Rig::commissioned();
    let server = rig.serve();
    server.open(USUAL).await;
    server.kill();
    copy(&rig.path("ledger"), &rig.path("ledger-before"));
    let server = rig.serve();
    server.ask(unit("one")).await.unwrap();
    let head = head_of(&server, 3).await;
    server.kill();
    fs::remove_dir_all(rig.path("ledger")).unwrap();
    copy(&rig.path("ledger-before"), &rig.path("ledger"));
    let server = rig.serve();
    for name in ["two", "three", "four"] {
        server.ask(unit(name)).await.unwrap();
    }
    let refused = call(&server, Some(&head)).await.unwrap_err();
    assert!(refused.message().contains("record 3 of the ledger is another one"), "{refused}");
}

#[tokio::test]
async fn a_head_that_is_not_ours_stops_nobody_but_who_brings_it() {
    let rig = Rig::commissioned();
    let server = rig.serve();
    server.open(USUAL).await;
    let other = Rig::commissioned();
    let elsewhere = other.serve();
    elsewhere.open(USUAL).await;
    let foreign = head_of(&elsewhere, 1).await;
    for head in [foreign.as_slice(), b"", b"\x00\x01\x02", &[0xff; 4000]] {
        let refused = call(&server, Some(head)).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
        assert!(refused.message().contains("none that this signer has signed"), "{refused}");
    }
    let own = head_of(&server, 1).await;
    for at in [10, own.len() - 5] {
        let mut forged = own.clone();
        forged[at] ^= 1;
        assert!(call(&server, Some(&forged)).await.is_err(), "byte {at}");
    }
    call(&server, Some(&own)).await.unwrap();
    server.ask(unit("one")).await.unwrap();
}
