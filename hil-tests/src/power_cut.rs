//! A disk whose power can be cut while somebody writes: an ext4 image on a loop device. Knows nothing of what is
//! written.
//!
//! The writer is stopped at a random moment and the image copied. What the kernel still holds in its page cache for
//! the filesystem is not in the image: it holds what the device was given, and that is what the copy mounts. Killing
//! a process shows nothing of this, as its writes outlive it in the cache.

use std::{
    ops::RangeInclusive,
    path::{Path, PathBuf},
    process::Command,
    sync::mpsc::{Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};

use crate::child::Child;

/// Somebody who writes to the disk.
pub struct Writer<A> {
    /// The process that writes, and the only one that does; leader of a process group of its own
    /// (`CommandExt::process_group(0)`). It is stopped alone, as a process that traces it must go on for it to stop,
    /// and killed with its group.
    pub child: Child,
    /// What is acknowledged, as it comes. Must end soon after `child` is dead, and hold nothing that was not
    /// acknowledged while it ran.
    pub acknowledged: Receiver<A>,
}

/// How often and when to cut.
pub struct Plan {
    /// So many cuts.
    pub rounds: u32,
    /// What all random moments follow from.
    pub seed: u64,
    /// A cut comes after so many acknowledgements of its round, and up to 3 ms.
    pub acknowledgements: RangeInclusive<u64>,
}

/// What was found after all cuts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Acknowledged in all rounds.
    pub acknowledged: u64,
    /// Not found any more, counted after each cut.
    pub lost: u64,
}

/// Why there are no such disks here; `None` where there are. Needs root, or what root may.
pub fn unavailable() -> Option<String> {
    if let Err(error) = own_mounts() {
        return Some(format!("mounts of our own are refused: {error}"));
    }
    ["losetup --find", "mkfs.ext4 -V", "mount --version"].into_iter().find_map(|probe| {
        let mut words = probe.split(' ');
        let output = Command::new(words.next()?).args(words).output();
        match output {
            Ok(output) if output.status.success() => None,
            Ok(output) => Some(format!("{probe}: {}", String::from_utf8_lossy(&output.stderr).trim())),
            Err(error) => Some(format!("{probe}: {error}")),
        }
    })
}

/// Cuts the power in each round and goes on with what is left on the disk. In each round `start` starts a writer that
/// writes below the path it is given, and `check` counts, after the cut, which of all acknowledgements so far are not
/// kept below that path; it may write there, as a program does that recovers.
///
/// `dir` must be empty, and is used up. The disk is seen by the calling thread and by processes that it starts, and
/// vanishes with them. Blocks.
///
/// # Errors
/// The disk cannot be made; the writer ends by itself; `start` or `check` fails.
pub fn cut_power<A>(
    dir: &Path,
    plan: &Plan,
    mut start: impl FnMut(&Path) -> anyhow::Result<Writer<A>>,
    mut check: impl FnMut(&Path, &[A]) -> anyhow::Result<u64>,
) -> anyhow::Result<Outcome> {
    own_mounts().context("cannot have mounts of our own")?;
    let disk = Disk::make(dir)?;
    let mut random = plan.seed;
    let mut acknowledged: Vec<A> = Vec::new();
    let mut outcome = Outcome::default();
    disk.mount()?;
    for round in 1..=plan.rounds {
        let written = disk.cut(start(&disk.place)?, moment(&mut random, plan));
        acknowledged.extend(written.with_context(|| format!("in round {round}"))?);
        let lost = check(&disk.place, &acknowledged);
        outcome.lost += lost.with_context(|| format!("after the cut of round {round}"))?;
    }
    disk.unmount()?;
    outcome.acknowledged = acknowledged.len() as u64;
    Ok(outcome)
}

/// After so many acknowledgements and so much time.
fn moment(random: &mut u64, plan: &Plan) -> (u64, Duration) {
    let (first, last) = (*plan.acknowledgements.start(), *plan.acknowledgements.end());
    let count = first + next(random) % (last - first + 1);
    (count, Duration::from_micros(next(random) % 3000))
}

/// SplitMix64 (Steele, Lea, Flood 2014): any seed will do, also 0.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// From now on, what this thread mounts is seen by it and its children alone.
fn own_mounts() -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
}

struct Disk {
    image: PathBuf,
    copy: PathBuf,
    /// Where it is mounted.
    place: PathBuf,
}

impl Disk {
    fn make(dir: &Path) -> anyhow::Result<Self> {
        let disk = Self { image: dir.join("image"), copy: dir.join("copy"), place: dir.join("disk") };
        std::fs::create_dir(&disk.place)?;
        std::fs::File::create_new(&disk.image)?.set_len(64 << 20)?;
        // What is initialised later would still be written after the writer is stopped.
        let eager = "lazy_itable_init=0,lazy_journal_init=0";
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-E", eager]).arg(&disk.image))?;
        Ok(disk)
    }

    fn mount(&self) -> anyhow::Result<()> {
        run(Command::new("mount").args(["-o", "loop"]).args([&self.image, &self.place]))
    }

    fn unmount(&self) -> anyhow::Result<()> {
        run(Command::new("umount").arg(&self.place))
    }

    /// Cuts the power under the writer; gives what it acknowledged, and the disk as it is mounted after that.
    fn cut<A>(&self, mut writer: Writer<A>, (count, more): (u64, Duration)) -> anyhow::Result<Vec<A>> {
        let mut acknowledged = Vec::new();
        while (acknowledged.len() as u64) < count {
            let next = writer.acknowledged.recv();
            acknowledged.push(next.context("the writer ended by itself; see what it printed")?);
        }
        let end = Instant::now() + more;
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            match writer.acknowledged.recv_timeout(left) {
                Ok(next) => acknowledged.push(next),
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => bail!("the writer ended by itself"),
            }
        }

        let pid = Pid::from_raw(i32::try_from(writer.child.id())?);
        kill(pid, Signal::SIGSTOP)?;
        while !is_stopped(pid)? {
            ensure!(writer.child.try_wait()?.is_none(), "the writer ended by itself");
            thread::yield_now();
        }
        let copied = self.copy_image();
        killpg(pid, Signal::SIGKILL)?;
        drop(writer.child);
        copied?;
        acknowledged.extend(writer.acknowledged);

        self.unmount()?;
        std::fs::rename(&self.copy, &self.image)?;
        self.mount()?;
        Ok(acknowledged)
    }

    /// The image as it was at one moment: the kernel may write in the background while it is copied.
    fn copy_image(&self) -> anyhow::Result<()> {
        for _ in 0..50 {
            run(Command::new("cp").arg("--sparse=always").args([&self.image, &self.copy]))?;
            if Command::new("cmp").arg("-s").args([&self.image, &self.copy]).status()?.success() {
                return Ok(());
            }
        }
        bail!("the image changes all the time although the writer is stopped")
    }
}

/// Whether all its threads are, as the kernel tells: a process that somebody traces is not reported to its parent
/// when it stops.
fn is_stopped(pid: Pid) -> anyhow::Result<bool> {
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        // It may end while the others are looked at.
        let Ok(stat) = std::fs::read_to_string(thread?.path().join("stat")) else { return Ok(false) };
        let state = stat.rsplit_once(") ").map(|(_, state)| state.starts_with(['T', 't']));
        if !state.with_context(|| format!("the kernel says of a thread of process {pid}: {stat}"))? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("{command:?} does not start"))?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} failed: {}", complaint.trim());
    Ok(())
}
