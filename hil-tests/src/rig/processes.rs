//! The processes of a line, for tests that kill, stop and watch them. A process is held by its pidfd, so that it is
//! never mistaken for a later one with the same number, and its end is an event.

use std::{
    fs,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, bail};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::Signal,
    unistd::Pid,
};

use super::Rig;

/// A process, wherever it is in its life.
#[derive(Debug)]
pub struct Running {
    /// Its number.
    pub pid: Pid,
    fd: OwnedFd,
}

/// What a nest of the virtual fixture is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Simulator {
    /// The board, its probe and its serial line.
    Target,
    /// The tag reader.
    Reader,
}

impl Running {
    fn open(pid: Pid) -> anyhow::Result<Self> {
        // SAFETY: the call takes two numbers.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
        let fd = i32::try_from(Errno::result(fd)?)?;
        // SAFETY: the kernel just made this descriptor for us.
        Ok(Self { pid, fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let none = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: no information goes along, and the descriptor is open.
        let sent = unsafe {
            libc::syscall(libc::SYS_pidfd_send_signal, self.fd.as_raw_fd(), signal as i32, none, 0)
        };
        Errno::result(sent)?;
        Ok(())
    }

    /// Waits until it has ended; `false` when it has not after `patience`.
    pub fn has_ended_within(&self, patience: Duration) -> anyhow::Result<bool> {
        let mut end = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
        Ok(poll(&mut end, PollTimeout::try_from(patience)?)? > 0)
    }
}

impl Rig {
    /// The station's daemon.
    pub fn station_process(&self) -> anyhow::Result<Running> {
        let daemon = self.daemon.as_ref().context("the station does not run")?;
        Running::open(Pid::from_raw(i32::try_from(daemon.child.id())?))
    }

    /// The signer.
    pub fn signer_process(&self) -> anyhow::Result<Running> {
        let signer = self.signer.as_ref().context("the signer does not run")?;
        Running::open(Pid::from_raw(i32::try_from(signer.child.id())?))
    }

    /// The program that answers as the device in a nest; `None` while none does.
    pub fn device_program(&self, nest: &str) -> anyhow::Result<Option<Running>> {
        let target = self.simulator(nest, Simulator::Target)?;
        for thread in fs::read_dir(format!("/proc/{}/task", target.pid))? {
            // A thread may have ended meanwhile, and so may a child.
            let children = fs::read_to_string(thread?.path().join("children")).unwrap_or_default();
            for child in children.split_whitespace() {
                let arguments = fs::read_to_string(format!("/proc/{child}/cmdline")).unwrap_or_default();
                if arguments.split('\0').any(|argument| argument == "--storage") {
                    return Ok(Running::open(Pid::from_raw(child.parse()?)).ok());
                }
            }
        }
        Ok(None)
    }

    /// A simulator of a nest.
    pub fn simulator(&self, nest: &str, which: Simulator) -> anyhow::Result<Running> {
        let nest = self.nests.iter().position(|name| name == nest).context("the line has no such nest")?;
        let offset = usize::from(which == Simulator::Reader);
        let process = self.simulators.get(2 * nest + offset).context("each nest has two simulators")?;
        Running::open(Pid::from_raw(i32::try_from(process.child.id())?))
    }

    /// All processes that serve as instruments of this line's station, or of one that is gone.
    pub fn instruments(&self) -> anyhow::Result<Vec<Running>> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let process = entry?.path();
            let Some(pid) = process.file_name().and_then(|name| name.to_str()?.parse().ok()) else {
                continue;
            };
            if instrument_kind(&process, &self.folder).is_some() {
                found.extend(Running::open(Pid::from_raw(pid)).ok());
            }
        }
        Ok(found)
    }

    /// The only instrument of a kind, as in `probe` and `tag-reader`.
    pub fn instrument(&self, kind: &str) -> anyhow::Result<Running> {
        let mut alike = self.instruments()?;
        alike.retain(|running| {
            let process = Path::new("/proc").join(running.pid.to_string());
            instrument_kind(&process, &self.folder).as_deref() == Some(kind)
        });
        match (alike.pop(), alike.pop()) {
            (Some(only), None) => Ok(only),
            (None, _) => bail!("no process is a {kind}"),
            (Some(_), Some(_)) => bail!("more than one process is a {kind}"),
        }
    }
}

/// What instrument a process is; `None` for all others, and for those that have ended.
fn instrument_kind(process: &Path, folder: &Path) -> Option<String> {
    // The daemon runs in the line's folder, and so does what it starts.
    if fs::read_link(process.join("cwd")).ok()? != folder.canonicalize().ok()? {
        return None;
    }
    let arguments = fs::read_to_string(process.join("cmdline")).ok()?;
    let mut arguments = arguments.split('\0').skip(1);
    (arguments.next()? == "instrument").then(|| arguments.next().map(str::to_owned))?
}
