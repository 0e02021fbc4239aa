//! A sim-device process under test, and its line.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use factory_fixtures::fcc::{
    FccError,
    frame::{Event, Scanner},
    message::Answer,
    status::TransportStatus,
};
use factory_hil_tests::device::store::{self, Holdings};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, Join, Lines, join},
    net::TcpStream,
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

/// Far beyond what any of these tests takes; only a hang gets there.
pub const GUARD: Duration = Duration::from_secs(30);

/// One boot of a device on a serial line. Killed when dropped.
pub struct Sim {
    pub child: Child,
    pub line: Join<ChildStdout, ChildStdin>,
}

/// A place for a device's storage, fresh for each test.
pub fn place() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let storage = directory.path().join("storage.json");
    (directory, storage)
}

pub fn held(storage: &Path) -> Holdings {
    store::read(storage).unwrap()
}

pub fn command(storage: &Path, switches: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sim-device"));
    command.arg("--storage").arg(storage).args(switches);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    // SAFETY: prctl with these arguments is async-signal-safe and touches no memory.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            // A crash is part of the tests: it shall leave no core behind.
            libc::prctl(libc::PR_SET_DUMPABLE, 0);
            Ok(())
        });
    }
    command
}

impl Sim {
    pub fn boot(storage: &Path, switches: &[&str]) -> Self {
        let mut child = command(storage, switches).spawn().unwrap();
        let line = join(child.stdout.take().unwrap(), child.stdin.take().unwrap());
        Self { child, line }
    }

    /// A device that misbehaves as a scenario, TOML, says.
    pub fn misbehaving(storage: &Path, scenario: &str) -> Self {
        let file = storage.with_extension("toml");
        fs::write(&file, scenario).unwrap();
        Self::boot(storage, &["--scenario", file.to_str().unwrap()])
    }

    /// The device's answer to these bytes, and the text around it.
    pub async fn exchange(&mut self, frame: &[u8]) -> (Result<Answer, FccError>, Vec<u8>) {
        let mut text = Vec::new();
        let exchange = exchange(&mut self.line, frame, |piece| text.extend_from_slice(piece));
        let answer = timeout(GUARD, exchange).await.expect("an exchange does not hang");
        (answer, text)
    }

    /// Sends bytes that need not be a frame.
    pub async fn send(&mut self, bytes: &[u8]) {
        self.line.write_all(bytes).await.unwrap();
        self.line.flush().await.unwrap();
    }

    /// Unplugs the station's side: the device reads to the end of what was sent.
    pub async fn hang_up(self) -> (Child, Vec<u8>) {
        let (mut output, input) = self.line.into_inner();
        drop(input);
        let mut heard = Vec::new();
        timeout(GUARD, output.read_to_end(&mut heard)).await.expect("the device ends").unwrap();
        (self.child, heard)
    }

    /// Exit code, once the device has ended by itself; none after a crash.
    pub async fn end(mut self) -> Option<i32> {
        timeout(GUARD, self.child.wait()).await.expect("the device ends").unwrap().code()
    }
}

/// One boot of a device on a network. Killed when dropped.
pub struct TcpSim {
    pub child: Child,
    pub address: String,
    console: Lines<BufReader<ChildStdout>>,
}

impl TcpSim {
    /// Learns the address as a station does: from the console.
    pub async fn boot(storage: &Path, switches: &[&str]) -> Self {
        let mut child = command(storage, &[&["--tcp"], switches].concat()).spawn().unwrap();
        let mut console = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = console.next_line().await.unwrap().unwrap();
        let address = first.strip_prefix("Client IP Address and Port :  ").unwrap().to_owned();
        let mut sim = Self { child, address, console };
        sim.waits_for_a_client().await;
        sim
    }

    pub async fn waits_for_a_client(&mut self) {
        let line = timeout(GUARD, self.console.next_line()).await.expect("the device waits for a client");
        assert_eq!(line.unwrap().unwrap(), "Client is waiting for incoming connection...");
    }

    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(&self.address).await.unwrap()
    }

    /// Exit code, once the device has ended by itself; none after a crash.
    pub async fn end(mut self) -> Option<i32> {
        timeout(GUARD, self.child.wait()).await.expect("the device ends").unwrap().code()
    }
}

/// All that comes before the other side hangs up, politely or not.
pub async fn to_the_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut heard = Vec::new();
    // What the device did not read resets the connection.
    let _ = timeout(GUARD, stream.read_to_end(&mut heard)).await.expect("the device hangs up");
    heard
}

/// What comes of these bytes, whatever they are: a station's session would not send most of them.
pub async fn exchange(
    line: &mut (impl AsyncRead + AsyncWrite + Unpin),
    bytes: &[u8],
    mut on_text: impl FnMut(&[u8]),
) -> Result<Answer, FccError> {
    line.write_all(bytes).await.map_err(FccError::Link)?;
    line.flush().await.map_err(FccError::Link)?;
    let mut scanner = Scanner::default();
    let mut chunk = [0; 4096];
    loop {
        let count = line.read(&mut chunk).await.map_err(FccError::Link)?;
        if count == 0 {
            on_text(&scanner.finish());
            return Err(FccError::Closed);
        }
        scanner.push(&chunk[..count]);
        while let Some(event) = scanner.next_event()? {
            match event {
                Event::Text(text) => on_text(&text),
                Event::Answer { status: TransportStatus::Ok, payload } => {
                    on_text(&scanner.finish());
                    return Ok(Answer::decode(&payload)?);
                }
                Event::Answer { status, .. } => return Err(FccError::Transport(status)),
            }
        }
    }
}

/// The one certificate request of an answer.
pub fn csr(answer: Answer) -> Vec<u8> {
    let [csr] = <[_; 1]>::try_from(answer.csrs).expect("one was asked for");
    csr.der
}
