//! The moments of a process that writes our log (`station/journal/src/segment.rs`): it is watched through ptrace, and
//! so is the program that ships. Of its threads only the committer is watched; the others run at full speed.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use nix::{
    errno::Errno,
    libc,
    sys::{
        ptrace,
        signal::Signal,
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use tokio::sync::oneshot;

use super::{Held, Trap};

/// What the thread is called that writes a log.
const COMMITTER: &str = "journal";
/// A hundred times what a thread takes to its first instruction on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);
/// Where the kind of a record stands behind the record's beginning.
const KIND_AT: usize = 32;
/// More than a batch of a quiet line; what is longer is looked at no further.
const LONGEST_BATCH: usize = 1 << 20;

/// Three instants in the life of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Edge {
    /// Nothing of it is on disk.
    BeforeWrite,
    /// It is written, not synced.
    BeforeSync,
    /// It is durable; nobody was told.
    AfterSync,
}

impl Edge {
    /// All, in their order.
    pub const ALL: [Self; 3] = [Self::BeforeWrite, Self::BeforeSync, Self::AfterSync];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::BeforeWrite => "before it is written",
            Self::BeforeSync => "before it is synced",
            Self::AfterSync => "before anybody is told",
        }
    }
}

/// What a record is for, with its code in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The program's own.
    Program = 1,
    /// How far a receiver got.
    Cursor = 2,
}

fn moment(kind: Kind, edge: Edge) -> String {
    format!("{kind:?} {}", edge.name())
}

/// Watches one process until it ends.
#[derive(Debug)]
pub struct LogWatch {
    trap: Arc<Trap>,
}

impl LogWatch {
    /// Watches process `pid`, which has opened its log.
    pub fn of(pid: Pid) -> anyhow::Result<Self> {
        let thread = committer(pid)?;
        let trap = Arc::new(Trap::default());
        let (begun, beginning) = mpsc::channel();
        let tracer = Tracer {
            pid,
            thread: Pid::from_raw(thread),
            trap: trap.clone(),
            kinds: Vec::new(),
            syncs: false,
        };
        // The kernel takes orders about a traced thread from one thread only.
        thread::spawn(move || {
            let attached = tracer.attach();
            let go_on = attached.is_ok();
            let _ = begun.send(attached);
            if go_on {
                // It ends with the process that is watched.
                let _ = tracer.watch();
            }
        });
        beginning.recv()?.context("the process cannot be traced")?;
        Ok(Self { trap })
    }

    /// Holds the process at the `nth` write from now that has a record of this kind, counted from 1.
    pub fn arm(&self, kind: Kind, nth: u32, edge: Edge) -> oneshot::Receiver<Held> {
        self.trap.arm(&moment(kind, edge), nth)
    }
}

fn committer(pid: Pid) -> anyhow::Result<i32> {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).context("the process has ended")?;
        for thread in threads {
            let path = thread?.path();
            // A thread may have ended meanwhile.
            let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
            if name.trim_end() == COMMITTER {
                let id = path.file_name().and_then(|id| id.to_str()?.parse().ok());
                return id.context("a thread is listed under its number");
            }
        }
        // A thread names itself when it runs for the first time, and nothing tells when that was.
        thread::sleep(Duration::from_millis(1));
    }
    bail!("no thread of the process is called {COMMITTER}")
}

struct Tracer {
    pid: Pid,
    thread: Pid,
    trap: Arc<Trap>,
    /// What the batch under way has.
    kinds: Vec<Kind>,
    syncs: bool,
}

impl Tracer {
    fn attach(&self) -> nix::Result<()> {
        ptrace::seize(self.thread, ptrace::Options::PTRACE_O_TRACESYSGOOD)?;
        ptrace::interrupt(self.thread)
    }

    fn watch(mut self) -> nix::Result<()> {
        loop {
            let signal = match waitpid(self.thread, Some(WaitPidFlag::__WALL)) {
                Ok(WaitStatus::PtraceSyscall(_)) => {
                    if let Ok(stop) = stop(self.thread) {
                        self.look_at(stop);
                    }
                    None
                }
                Ok(WaitStatus::Stopped(_, Signal::SIGTRAP) | WaitStatus::PtraceEvent(..)) => None,
                Ok(WaitStatus::Stopped(_, signal)) => Some(signal),
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => continue,
                Err(error) => return Err(error),
            };
            match ptrace::syscall(self.thread, signal) {
                // It was killed; its end is to be collected.
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn look_at(&mut self, stop: Stop) {
        match stop {
            Stop::Entry { call, file, buffer, length } if is_write(call) && self.is_segment(file) => {
                let kinds = self.kinds_in(buffer, length);
                // Zeros that are written ahead are no batch, and come behind one that is not synced yet.
                if !kinds.is_empty() {
                    self.kinds = kinds;
                    self.pass(Edge::BeforeWrite);
                }
            }
            Stop::Entry { call: libc::SYS_fdatasync, .. } => {
                self.syncs = true;
                self.pass(Edge::BeforeSync);
            }
            Stop::Exit if self.syncs => {
                self.syncs = false;
                self.pass(Edge::AfterSync);
                self.kinds.clear();
            }
            _ => {}
        }
    }

    fn pass(&self, edge: Edge) {
        for kind in &self.kinds {
            self.trap.pass(&moment(*kind, edge));
        }
    }

    fn is_segment(&self, file: u64) -> bool {
        let path = fs::read_link(format!("/proc/{}/fd/{file}", self.pid)).unwrap_or_default();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with("segment-") && name.ends_with(".log")
    }

    fn kinds_in(&self, buffer: u64, length: u64) -> Vec<Kind> {
        let length = usize::try_from(length).unwrap_or(usize::MAX).min(LONGEST_BATCH);
        let mut batch = vec![0; length];
        let read = File::open(format!("/proc/{}/mem", self.pid))
            .and_then(|memory| memory.read_exact_at(&mut batch, buffer));
        if read.is_err() {
            return Vec::new();
        }
        let there = |kind: &Kind| codes(&batch).any(|code| code == *kind as u8);
        [Kind::Program, Kind::Cursor].into_iter().filter(there).collect()
    }
}

/// The kinds of the records in a batch: each begins with the length of what follows its eight bytes of prefix.
fn codes(mut batch: &[u8]) -> impl Iterator<Item = u8> {
    std::iter::from_fn(move || {
        let kind = *batch.get(KIND_AT)?;
        let length = usize::try_from(u32::from_le_bytes(*batch.first_chunk()?)).ok()?;
        batch = batch.get(8 + length..).filter(|_| length > 0).unwrap_or_default();
        Some(kind)
    })
}

fn is_write(number: i64) -> bool {
    matches!(number, libc::SYS_write | libc::SYS_pwrite64)
}

/// Where in a system call the watched thread has stopped.
enum Stop {
    Entry { call: i64, file: u64, buffer: u64, length: u64 },
    Exit,
}

fn stop(thread: Pid) -> nix::Result<Stop> {
    let mut info = std::mem::MaybeUninit::<libc::ptrace_syscall_info>::zeroed();
    let size = size_of::<libc::ptrace_syscall_info>();
    // SAFETY: the kernel writes at most `size` bytes to `info`, for which all bytes zero is a value.
    let info = unsafe {
        Errno::result(libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, thread.as_raw(), size, info.as_mut_ptr()))?;
        info.assume_init()
    };
    if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
        return Ok(Stop::Exit);
    }
    // SAFETY: `op` says that this part of the union is there.
    let entry = unsafe { info.u.entry };
    let [file, buffer, length, ..] = entry.args;
    Ok(Stop::Entry { call: entry.nr.cast_signed(), file, buffer, length })
}
