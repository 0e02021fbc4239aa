//! Months on a line: tokens are pulled, sessions die, modules hang, and PINs are changed.

use std::fs;

use factory_proto::signer::IssueRequest;
use tonic::Code;

use crate::{
    faulty::Faulty,
    request::{Csr, issue, p256},
    rig::{HealthWatch, Rig, Server, said},
};

/// EX_CONFIG: systemd must not start it again by itself.
const NEEDS_A_HUMAN: Option<i32> = Some(78);
// CKR_… and CKF_USER_PIN_… of PKCS#11 v2.40.
const PIN_INCORRECT: u32 = 0xa0;
const DEVICE_ERROR: u32 = 0x30;
const FINAL_TRY: u32 = 0x20000;
const LOCKED: u32 = 0x40000;

fn request() -> IssueRequest {
    issue(Csr::default().signed_by(&p256()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_token_that_was_away_signs_when_it_is_back_without_a_restart() {
    let rig = Rig::commissioned();
    let server = rig.serve();
    let mut health = server.health().await;
    health.until(true).await;

    fs::rename(rig.path("tokens"), rig.path("gone")).unwrap();
    let request = request();
    let refused = server.issue(request.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    health.until(false).await;

    fs::rename(rig.path("gone"), rig.path("tokens")).unwrap();
    health.until(true).await;
    server.issue(request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_token_that_goes_while_nobody_asks_is_noticed() {
    let rig = Rig::commissioned();
    rig.configure("[subject]", "look-every = \"100ms\"\n[subject]");
    let server = rig.serve();
    let mut health = server.health().await;
    health.until(true).await;
    fs::rename(rig.path("tokens"), rig.path("gone")).unwrap();
    health.until(false).await;
}

/// One issuance while the module does as told once; how often it was started in all.
async fn check(order: &str, starts: usize) {
    let faulty = Faulty::commissioned();
    let server = faulty.serve();
    faulty.order(order);
    server.issue(request()).await.unwrap_or_else(|refused| panic!("{order}: {refused}"));
    assert!(faulty.followed(), "{order}");
    assert_eq!(faulty.calls("C_Initialize"), starts, "{order}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_a_session_can_suffer_costs_the_request_nothing() {
    check("once C_Sign close", 1).await;
    check("once C_Sign logout", 1).await;
    check("once C_SignInit close", 1).await;
    check(&format!("once C_Sign fail {DEVICE_ERROR}"), 1).await;
}

/// A signer whose module misbehaves as told, which a request has met and its health says.
async fn unwell(order: &str) -> (Faulty, Server, HealthWatch, IssueRequest) {
    let faulty = Faulty::commissioned();
    let server = faulty.serve();
    let mut health = server.health().await;
    faulty.order(order);
    let request = request();
    server.issue(request.clone()).await.unwrap_err();
    health.until(false).await;
    (faulty, server, health, request)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_module_that_fails_fresh_sessions_too_is_loaded_again() {
    let order = format!("C_OpenSession fail {DEVICE_ERROR}\nC_Sign fail {DEVICE_ERROR}");
    let (faulty, server, mut health, request) = unwell(&order).await;
    assert!(faulty.calls("C_Finalize") > 0);

    faulty.behave();
    health.until(true).await;
    server.issue(request).await.unwrap();
    let starts = faulty.calls("C_Initialize");
    assert_eq!(faulty.calls("C_Finalize"), starts - 1, "what is started again was finished before");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn while_it_is_away_a_request_does_not_touch_the_module() {
    let order = format!("C_Initialize fail {DEVICE_ERROR}\nC_Sign fail {DEVICE_ERROR}");
    let (faulty, server, _health, request) = unwell(&order).await;
    let sessions = faulty.calls("C_OpenSession");
    for _ in 0..20 {
        assert_eq!(server.issue(request.clone()).await.unwrap_err().code(), Code::Unavailable);
    }
    assert_eq!(faulty.calls("C_OpenSession"), sessions);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_call_that_hangs_for_a_while_is_told_and_hurts_nothing_for_good() {
    let faulty = Faulty::commissioned();
    faulty.rig.configure("[subject]", "sign-deadline = \"100ms\"\n[subject]");
    let server = faulty.serve();
    let mut health = server.health().await;
    faulty.order("C_Sign hang");
    let request = request();
    assert_eq!(server.issue(request.clone()).await.unwrap_err().code(), Code::Unavailable);
    health.until(false).await;
    faulty.behave();
    health.until(true).await;
    server.issue(request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_call_that_hangs_for_good_ends_the_process_and_the_next_one_goes_on() {
    let faulty = Faulty::commissioned();
    faulty.rig.configure("[subject]", "sign-deadline = \"100ms\"\nhang-limit = \"500ms\"\n[subject]");
    let server = faulty.serve();
    faulty.order("C_Sign hang");
    let request = request();
    server.issue(request.clone()).await.unwrap_err();
    let (status, log) = server.ended();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("this one ends so that the service manager starts it afresh"), "{log}");

    faulty.behave();
    faulty.serve().issue(request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_pin_that_is_refused_while_it_serves_is_never_tried_again() {
    let faulty = Faulty::commissioned();
    let server = faulty.serve();
    let mut health = server.health().await;
    let before = faulty.calls("C_Login");
    faulty.order(&format!("C_Login fail {PIN_INCORRECT}\nC_Sign fail {DEVICE_ERROR}"));
    let request = request();
    server.issue(request.clone()).await.unwrap_err();
    health.until(false).await;
    faulty.behave();
    for _ in 0..3 {
        assert_eq!(server.issue(request.clone()).await.unwrap_err().code(), Code::Unavailable);
    }
    assert_eq!(faulty.calls("C_Login"), before + 1);
    let (_, log) = server.terminate();
    assert!(log.contains("the token is left alone"), "{log}");
}

#[test]
fn a_token_on_its_last_try_or_locked_is_left_alone() {
    for (flag, sentence) in [(FINAL_TRY, "has one try for its PIN left"), (LOCKED, "is locked")] {
        let faulty = Faulty::commissioned();
        faulty.order(&format!("C_GetTokenInfo flags {flag}"));
        let (text, code) = said(faulty.command().output().unwrap());
        assert!(text.contains(sentence), "{text}");
        assert_eq!(code, NEEDS_A_HUMAN);
        assert_eq!(faulty.calls("C_Login"), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_damaged_ledger_needs_a_human() {
    let rig = Rig::commissioned();
    let server = rig.serve();
    server.issue(request()).await.unwrap();
    server.kill();
    let mut entries = fs::read_dir(rig.path("ledger")).unwrap().map(|entry| entry.unwrap().path());
    let segment = entries.find(|path| path.to_string_lossy().contains("/segment-")).unwrap();
    let mut bytes = fs::read(&segment).unwrap();
    // In the first record, which has another behind it: nothing that a crash can leave behind.
    bytes[100] ^= 0xff;
    fs::write(segment, bytes).unwrap();

    let (text, code) = rig.serve_in_vain();
    assert!(text.contains("is damaged"), "{text}");
    assert_eq!(code, NEEDS_A_HUMAN, "{text}");
}
