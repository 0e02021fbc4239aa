//! A daemon in a folder, with a nest whose instruments are not there: enough for all that is refused or said.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, mpsc},
};

use factory_station::place::{ClientFiles, Place};
use tempfile::TempDir;
use tonic::transport::{Channel, Error};

use crate::pki::Pki;

/// Certificates that have one role each, and one that has two.
pub const ROLES: &str = r#"
[roles]
mes = ["dns:mes.example"]
engineer = ["uri:spiffe://example/engineer", "dns:both.example"]
operator = ["dns:operator.example"]
viewer = ["dns:viewer.example", "dns:both.example"]
"#;
pub const ENGINEER: &str = "spiffe://example/engineer";

pub struct Daemon {
    pub folder: TempDir,
    pub address: SocketAddr,
    process: Child,
    log: Arc<Mutex<String>>,
}

/// A folder with a station file; `listen` is its lines about that, `rest` its tables.
pub fn folder(listen: &str, rest: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    // For users who come to its socket.
    fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    fs::create_dir(folder.path().join("recipes")).unwrap();
    let file = format!(
        r#"name = "station-1"
state = "state"
recipes = "recipes"
signer = "signer.sock"
socket = "station.sock"
controllers = ["http://127.0.0.1:9"]
interlock.demanded = false
signatures.demanded = false
drain = "1s"
{listen}
{rest}
[[nest]]
name = "nest-1"
probe = "1366:0101:1"
console = "no-such-console"
tag-reader = "pn532_uart:no-such-reader"
"#
    );
    fs::write(folder.path().join("station.toml"), file).unwrap();
    folder
}

impl Daemon {
    /// With TLS and these tables.
    pub fn with_tls(pki: &Pki, rest: &str) -> Self {
        let folder = folder("listen = \"127.0.0.1:0\"", &format!("{rest}\n{}", pki.section()));
        pki.equip(folder.path());
        Self::start(folder)
    }

    /// Starts it and waits until it is up.
    pub fn start(folder: TempDir) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_factory-stationd"))
            .args(["serve", "--config"])
            .arg(folder.path().join("station.toml"))
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (log, (up, is_up)) = (Arc::new(Mutex::new(String::new())), mpsc::channel());
        let (lines, kept) = (BufReader::new(process.stderr.take().unwrap()), log.clone());
        std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                let mut kept = kept.lock().unwrap();
                kept.push_str(&line);
                kept.push('\n');
                if line.contains("station is up") {
                    let _ = up.send(());
                }
            }
        });
        // Ends with the log, and so with the process.
        let came_up = is_up.recv();
        let text = log.lock().unwrap().clone();
        assert!(came_up.is_ok(), "it did not come up: {text}");
        let address = text.split("address=").nth(1).and_then(|rest| rest.split_whitespace().next());
        let address = address.unwrap_or("127.0.0.1:1").parse().unwrap();
        Self { folder, address, process, log }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }

    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits until it has said this.
    pub async fn says(&self, text: &str) {
        while !self.log().contains(text) {
            tokio::task::yield_now().await;
        }
    }

    /// Ends as it should, and gives the folder back.
    pub fn stop(mut self) -> TempDir {
        let id = nix::unistd::Pid::from_raw(self.process.id().try_into().unwrap());
        nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM).unwrap();
        assert!(self.process.wait().unwrap().success(), "{}", self.log());
        std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap())
    }

    /// Ends at once, and gives the folder back.
    pub fn kill(mut self) -> TempDir {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap())
    }

    /// Where it is for whoever holds a certificate from `pki` for `name`.
    pub fn place(&self, pki: &Pki, name: &str) -> Place {
        let files = pki.files(self.folder.path(), name);
        self.place_with(files)
    }

    pub fn place_with(&self, files: ClientFiles) -> Place {
        let uri = format!("https://localhost:{}", self.address.port()).parse().unwrap();
        Place::Tls { uri, files }
    }

    pub async fn connect(&self, pki: &Pki, name: &str) -> Result<Channel, Error> {
        self.place(pki, name).way().unwrap().connect().await
    }

    /// What `stationctl` says, and whether it ended well.
    pub fn ctl(&self, prepare: impl FnOnce(&mut Command)) -> (String, bool) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stationctl"));
        command.stdin(Stdio::null());
        prepare(&mut command);
        let output = command.output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (String::from_utf8(said).unwrap(), output.status.success())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Writes a file whose time differs from that of the one before, whatever the clock's steps.
pub fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::set_permissions(&new, PermissionsExt::from_mode(0o600)).unwrap();
    fs::rename(new, path).unwrap();
}
