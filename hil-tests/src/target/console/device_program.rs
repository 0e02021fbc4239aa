//! The program that answers as the FCC device: its standard input and output are the serial line.
//! Does not know what it says.

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    os::{fd::OwnedFd, unix::net::UnixStream, unix::process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    sync::mpsc,
    thread,
};

use nix::{
    sys::wait::{Id, WaitPidFlag, waitid},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};

use crate::child::Child;

/// How to start it for one board.
#[derive(Debug, Clone)]
pub struct DeviceProgram {
    program: PathBuf,
    storage: PathBuf,
    log: PathBuf,
    arguments: Vec<OsString>,
}

/// How a device program ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceEnd {
    /// By itself, with this status.
    Exited(i32),
    /// By this signal, which the simulator did not send.
    Crashed(i32),
    /// By a reset of the board.
    Killed,
    /// It never began.
    NotStarted(String),
}

/// A device program that has the line.
pub struct Running {
    child: Child,
    line: UnixStream,
    hold: Option<mpsc::Sender<()>>,
}

/// Tells one device program from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity(u32);

impl DeviceProgram {
    /// For a board `serial` that never ran one: what an earlier board of that serial left in `dir` goes.
    pub fn factory_fresh(
        program: &Path,
        dir: &Path,
        serial: &str,
        arguments: Vec<OsString>,
    ) -> io::Result<Self> {
        let storage = dir.join(format!("board-{serial}.fcc"));
        match fs::symlink_metadata(&storage) {
            Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(&storage)?,
            Ok(_) => fs::remove_file(&storage)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let log = dir.join(format!("device-{serial}.log"));
        File::create(&log)?;
        Ok(Self { program: program.to_owned(), storage, log, arguments })
    }

    /// Starts it. Once it is released, `carry` runs in a thread of its own with what the program says.
    pub fn start(&self, carry: impl FnOnce(UnixStream, Identity) + Send + 'static) -> io::Result<Running> {
        let (line, theirs) = UnixStream::pair()?;
        let mut command = Command::new(&self.program);
        command
            .arg("--storage")
            .arg(&self.storage)
            .args(&self.arguments)
            .stdin(OwnedFd::from(theirs.try_clone()?))
            .stdout(OwnedFd::from(theirs))
            .stderr(File::options().append(true).open(&self.log)?);
        let child = Child::spawn(command, Vec::new())?;
        line.set_write_timeout(Some(super::UART_PATIENCE))?;
        let (hold, released) = mpsc::channel();
        let (output, identity) = (line.try_clone()?, Identity(child.id()));
        thread::spawn(move || {
            // An error means that it was dropped before its release; its output ends then too.
            let _ = released.recv();
            carry(output, identity);
        });
        Ok(Running { child, line, hold: Some(hold) })
    }
}

impl Running {
    /// Which one it is.
    pub fn identity(&self) -> Identity {
        Identity(self.child.id())
    }

    /// Where what the host says goes.
    pub fn line(&mut self) -> &mut UnixStream {
        &mut self.line
    }

    /// Lets it be heard.
    pub fn release(&mut self) {
        self.hold = None;
    }

    /// Its end, which has come.
    pub fn end(mut self) -> DeviceEnd {
        match self.child.wait() {
            Ok(status) => DeviceEnd::from(status),
            Err(error) => DeviceEnd::NotStarted(error.to_string()),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Whoever still reads its output stops, even if a grandchild holds the other end.
        let _ = self.line.shutdown(std::net::Shutdown::Both);
    }
}

impl Identity {
    /// Waits for its end and leaves the status to be collected.
    pub fn await_end(self) {
        let pid = Pid::from_raw(self.0.cast_signed());
        // An error means that its status has been collected.
        let _ = waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
    }
}

impl From<ExitStatus> for DeviceEnd {
    fn from(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Exited(code),
            (None, signal) => Self::Crashed(signal.unwrap_or_default()),
        }
    }
}
