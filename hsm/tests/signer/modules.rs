//! The same suite on several PKCS#11 implementations, each as its own project ships it.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
};

use factory_proto::signer::signer_client::SignerClient;
use nix::{
    sys::{
        prctl::set_pdeathsig,
        signal::{Signal, killpg},
    },
    unistd::Pid,
};
use serde_json::Value;
use tonic::Code;

use crate::{
    orders::USUAL,
    request::{head, unit},
    rig::{Rig, SOFTHSM},
};

const PIN: &str = "271828314";
const P11_KIT_CLIENT: &str = "/usr/lib/x86_64-linux-gnu/pkcs11/p11-kit-client.so";
const NSS: &str = "/usr/lib/x86_64-linux-gnu/libsoftokn3.so";

/// A token of one implementation, and what runs for it.
struct Token {
    rig: Rig,
    server: Option<Remote>,
}

/// The process that holds a token, and those that it makes for its clients.
struct Remote(Child);

impl Drop for Remote {
    fn drop(&mut self) {
        let group = Pid::from_raw(i32::try_from(self.0.id()).unwrap());
        let _ = killpg(group, Signal::SIGKILL);
        let _ = self.0.wait();
    }
}

fn run(mut command: Command) {
    let done = command.output().unwrap();
    assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
}

fn rig() -> Rig {
    let rig = Rig::new();
    rig.write_pin("user-pin", PIN, 0o600);
    rig
}

fn softhsm() -> Token {
    Token { rig: rig(), server: None }
}

/// SoftHSM behind p11-kit's remoting: another process holds the token.
fn p11_kit() -> Token {
    let mut rig = rig();
    let mut init = Command::new("softhsm2-util");
    init.args(["--init-token", "--free", "--label", "factory", "--so-pin", "87654321", "--pin", PIN]);
    init.env("SOFTHSM2_CONF", rig.path("softhsm2.conf"));
    run(init);
    let server = remote(&rig);
    let socket = format!("unix:path={}", rig.path("p11-kit.sock").display());
    rig.configure(SOFTHSM, P11_KIT_CLIENT);
    rig.set("P11_KIT_SERVER_ADDRESS", &socket);
    Token { rig, server: Some(server) }
}

/// The process that holds the token.
fn remote(rig: &Rig) -> Remote {
    let socket = rig.path("p11-kit.sock");
    let mut server = Command::new("p11-kit");
    server.args(["server", "-f", "--provider", SOFTHSM, "-n"]).arg(&socket).arg("pkcs11:token=factory");
    server.env("SOFTHSM2_CONF", rig.path("softhsm2.conf")).stdout(Stdio::piped()).stderr(Stdio::null());
    server.process_group(0);
    // SAFETY: prctl is async-signal-safe; nothing else happens between fork and exec.
    unsafe { server.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?)) };
    let mut server = server.spawn().unwrap();
    // It says where it listens when it does.
    let mut said = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut said).unwrap();
    assert!(said.contains("P11_KIT_SERVER_ADDRESS"), "{said}");
    Remote(server)
}

/// NSS, which Firefox and many others use.
fn nss() -> Token {
    let rig = rig();
    let database = rig.path("nss");
    fs::create_dir(&database).unwrap();
    let mut init = Command::new("certutil");
    init.arg("-N").arg("-d").arg(format!("sql:{}", database.display())).arg("-f").arg(rig.path("user-pin"));
    run(init);
    let arguments = format!(
        "configdir='sql:{}' certPrefix='' keyPrefix='' secmod='secmod.db' flags=",
        database.display()
    );
    rig.configure(
        &format!("module = \"{SOFTHSM}\""),
        &format!("module = \"{NSS}\"\nmodule-arguments = \"{arguments}\""),
    );
    rig.configure("token-label = \"factory\"", "token-label = \"NSS Certificate DB\"");
    Token { rig, server: None }
}

/// What every token must do: the ceremony, the judgement, certificates, heads, and all of it again after a kill.
async fn works(token: &Token, fit: bool) {
    let rig = &token.rig;
    let made = rig.command("init").arg("--transcript").arg(rig.path("done.json")).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let done: Value = serde_json::from_slice(&fs::read(rig.path("done.json")).unwrap()).unwrap();
    for key in done["keys"].as_array().unwrap() {
        assert_eq!(
            (&key["attributes"]["Sensitive"], &key["attributes"]["Extractable"]),
            (&true.into(), &false.into())
        );
    }
    let judged = rig.command("check").output().unwrap();
    assert_eq!(judged.status.success(), fit, "{}", String::from_utf8_lossy(&judged.stdout));

    let server = rig.serve();
    server.open(USUAL).await;
    let requests: Vec<_> = (0..20).map(|number| unit(&format!("unit-{number}"))).collect();
    let mut calls = tokio::task::JoinSet::new();
    let channel = server.connect().await;
    for request in requests.clone() {
        let mut client = SignerClient::new(channel.clone());
        calls.spawn(async move { client.issue(request).await.unwrap().into_inner().certificate });
    }
    assert_eq!(calls.join_all().await.len(), 20);
    let answer = server.ask(requests[0].clone()).await.unwrap();
    SignerClient::new(channel).sign_head(head("line-1")).await.unwrap();
    fs::write(rig.path("device.der"), &answer.certificate).unwrap();
    let mut convert = Command::new("openssl");
    convert
        .args(["x509", "-inform", "DER", "-in", "device.der", "-out", "device.pem"])
        .current_dir(rig.path(""));
    run(convert);
    let mut verify = Command::new("openssl");
    verify.args(["verify", "-x509_strict", "-CAfile", "ca.pem", "device.pem"]).current_dir(rig.path(""));
    run(verify);
    server.kill();

    let server = rig.serve();
    assert_eq!(server.ask(requests[0].clone()).await.unwrap(), answer);
    server.ask(unit("later")).await.unwrap();
    assert!(server.terminate().0.success());
    // What is there is never made again.
    let (said, good) = {
        let done = rig.command("init").output().unwrap();
        (String::from_utf8(done.stderr).unwrap(), done.status.success())
    };
    assert!(!good && said.contains("nothing was changed"), "{said}");
    rig.write_pin("user-pin", "161803398", 0o600);
    let (said, code) = rig.serve_in_vain();
    assert!(
        said.contains("refused the PIN, which is not tried again") && code == Some(78),
        "{code:?} {said}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn softhsm_works() {
    works(&softhsm(), true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn softhsm_in_another_process_behind_p11_kit_works() {
    works(&p11_kit(), true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_token_whose_process_dies_is_used_again_when_there_is_another() {
    let mut token = p11_kit();
    assert!(token.rig.init().status.success());
    let server = token.rig.serve();
    server.open(USUAL).await;
    server.ask(unit("one")).await.unwrap();
    let mut health = server.health().await;
    health.until(true).await;
    drop(token.server.take());
    let two = unit("two");
    let refused = server.ask(two.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    health.until(false).await;
    fs::remove_file(token.rig.path("p11-kit.sock")).unwrap();
    token.server = Some(remote(&token.rig));
    health.until(true).await;
    // What was counted is signed now.
    server.ask(two).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn nss_works() {
    // It makes keys in software, and says so.
    works(&nss(), false).await;
}
