//! A folder with a token, PIN files and a configuration, and the signer's processes in it.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    thread::{self, JoinHandle},
};

use factory_proto::signer::{
    IssueRequest, IssueResponse, OpenOrderRequest, Order, signer_client::SignerClient,
};
use nix::{
    sys::{prctl::set_pdeathsig, signal::Signal},
    unistd::Pid,
};
use tempfile::TempDir;
use tonic::{
    Status, Streaming,
    transport::{Channel, Endpoint},
};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
    health_client::HealthClient,
};

use crate::orders;

/// Debian's SoftHSM.
pub const SOFTHSM: &str = "/usr/lib/softhsm/libsofthsm2.so";
pub const PIN: &str = "4321";

pub struct Rig {
    folder: TempDir,
    environment: Vec<(&'static str, String)>,
}

impl Rig {
    /// A folder that is ready for `init`.
    pub fn new() -> Self {
        let rig = Self { folder: tempfile::tempdir().unwrap(), environment: Vec::new() };
        fs::create_dir(rig.path("tokens")).unwrap();
        fs::write(
            rig.path("softhsm2.conf"),
            format!("directories.tokendir = {}\n", rig.path("tokens").display()),
        )
        .unwrap();
        rig.write_pin("user-pin", PIN, 0o600);
        rig.write_pin("so-pin", "87654321", 0o600);
        orders::make_keys(rig.folder.path());
        let folder = rig.folder.path().display();
        fs::write(
            rig.config(),
            format!(
                r#"socket = "{folder}/signer.sock"
module = "{SOFTHSM}"
token-label = "factory"
pin-credential = "{folder}/user-pin"
so-pin-credential = "{folder}/so-pin"
ledger = "{folder}/ledger"
order-keys = ["{folder}/orders.pem"]

[subject]
organization = "Example Devices"
country = "DE"

[[authority]]
name = "devices"
key-label = "device-identity-ca"
certificate = "{folder}/ca.pem"

[provenance]
key-label = "provenance"
certificate = "{folder}/provenance.pem"
"#
            ),
        )
        .unwrap();
        rig
    }

    /// A folder in which `init` has been run.
    pub fn commissioned() -> Self {
        let rig = Self::new();
        let done = rig.init();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        rig
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn socket(&self) -> PathBuf {
        self.path("signer.sock")
    }

    fn config(&self) -> PathBuf {
        self.path("signer.toml")
    }

    /// Replaces a piece of the configuration.
    pub fn configure(&self, old: &str, new: &str) {
        let text = fs::read_to_string(self.config()).unwrap();
        assert!(text.contains(old), "{old:?} is not in {text}");
        fs::write(self.config(), text.replacen(old, new, 1)).unwrap();
    }

    /// Sets an environment variable for the signer's processes.
    pub fn set(&mut self, name: &'static str, value: &str) {
        self.environment.push((name, value.to_owned()));
    }

    pub fn write_pin(&self, name: &str, pin: &str, mode: u32) {
        fs::write(self.path(name), format!("{pin}\n")).unwrap();
        fs::set_permissions(self.path(name), PermissionsExt::from_mode(mode)).unwrap();
    }

    /// `factory-signerd VERB --config FILE` with this folder's token.
    pub fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_factory-signerd"));
        command.args([verb, "--config"]).arg(self.config());
        command.env("SOFTHSM2_CONF", self.path("softhsm2.conf")).env_remove("RUST_LOG");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        // SAFETY: prctl is async-signal-safe; nothing else happens between fork and exec.
        unsafe { command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?)) };
        command
    }

    pub fn init(&self) -> Output {
        self.command("init").output().unwrap()
    }

    /// Starts serving; returns when calls are answered.
    pub fn serve(&self) -> Server {
        self.serve_as(self.command("serve"))
    }

    /// As [`Rig::serve`], with a command that was prepared.
    pub fn serve_as(&self, command: Command) -> Server {
        Server::start(command, &self.socket())
    }

    /// Starts serving, which must fail; returns what was said and the exit code.
    pub fn serve_in_vain(&self) -> (String, Option<i32>) {
        said(self.command("serve").output().unwrap())
    }

    /// Every file of the token and the CA, by name.
    pub fn stored(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files = vec![(self.path("ca.pem"), fs::read(self.path("ca.pem")).unwrap())];
        for token in fs::read_dir(self.path("tokens")).unwrap() {
            for object in fs::read_dir(token.unwrap().path()).unwrap() {
                let path = object.unwrap().path();
                files.push((path.clone(), fs::read(path).unwrap()));
            }
        }
        files.sort();
        files
    }
}

/// What a process that must have failed said on stderr, and its exit code.
pub fn said(output: Output) -> (String, Option<i32>) {
    assert!(!output.status.success());
    (String::from_utf8(output.stderr).unwrap(), output.status.code())
}

/// A signer that serves; killed when dropped.
pub struct Server {
    child: Child,
    log: Option<JoinHandle<String>>,
    socket: PathBuf,
    /// Where it listens for TLS, if it does.
    pub address: Option<SocketAddr>,
}

impl Server {
    fn start(mut command: Command, socket: &Path) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut log = String::new();
        while !log.contains(" serving ") {
            if stderr.read_line(&mut log).unwrap() == 0 {
                child.wait().unwrap();
                panic!("the signer did not start: {log}");
            }
        }
        let address = log.split("address=").nth(1).and_then(|rest| rest.split_whitespace().next());
        let address = address.map(|address| address.parse().unwrap());
        let rest = thread::spawn(move || {
            stderr.read_to_string(&mut log).unwrap();
            log
        });
        Self { child, log: Some(rest), socket: socket.to_owned(), address }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub async fn connect(&self) -> Channel {
        let uri = format!("unix:{}", self.socket.display());
        Endpoint::from_shared(uri).unwrap().connect().await.unwrap()
    }

    /// Opens a work order that allows much.
    pub async fn open(&self, order: &str) {
        self.open_signed(&orders::sign(self.folder(), &orders::generous(self.folder(), order)))
            .await
            .unwrap();
    }

    /// Opens a work order.
    pub async fn open_signed(&self, signed_order: &str) -> Result<Order, Status> {
        let request = OpenOrderRequest { signed_order: signed_order.to_owned() };
        let mut client = SignerClient::new(self.connect().await);
        client.open_order(request).await.map(tonic::Response::into_inner)
    }

    fn folder(&self) -> &Path {
        self.socket.parent().unwrap()
    }

    /// Asks for a certificate, of an order that allows much.
    pub async fn issue(&self, request: IssueRequest) -> Result<IssueResponse, Status> {
        if request.work_order == orders::USUAL {
            self.open(orders::USUAL).await;
        }
        self.ask(request).await
    }

    /// Asks for a certificate.
    pub async fn ask(&self, request: IssueRequest) -> Result<IssueResponse, Status> {
        let mut client = SignerClient::new(self.connect().await);
        client.issue(request).await.map(tonic::Response::into_inner)
    }

    /// Sends SIGTERM and waits; returns how it ended and all it logged.
    pub fn terminate(mut self) -> (ExitStatus, String) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).unwrap());
        nix::sys::signal::kill(pid, Signal::SIGTERM).unwrap();
        let status = self.child.wait().unwrap();
        (status, self.log.take().unwrap().join().unwrap())
    }

    /// Waits until it ends by itself; returns how, and all it logged.
    pub fn ended(mut self) -> (ExitStatus, String) {
        let status = self.child.wait().unwrap();
        (status, self.log.take().unwrap().join().unwrap())
    }

    /// What it says of its health, now and whenever that changes.
    pub async fn health(&self) -> HealthWatch {
        let mut client = HealthClient::new(self.connect().await);
        let request = HealthCheckRequest { service: "factory.signer.v1.Signer".to_owned() };
        HealthWatch(client.watch(request).await.unwrap().into_inner())
    }

    /// Ends it without a chance to clean up.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// A server's health as it changes.
pub struct HealthWatch(Streaming<HealthCheckResponse>);

impl HealthWatch {
    /// Waits for the next thing that is said.
    pub async fn next(&mut self) -> ServingStatus {
        self.0.message().await.unwrap().expect("the signer serves").status()
    }

    /// Waits until it is said that the signer serves, or does not.
    pub async fn until(&mut self, serves: bool) {
        let wanted = if serves { ServingStatus::Serving } else { ServingStatus::NotServing };
        while self.next().await != wanted {}
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
