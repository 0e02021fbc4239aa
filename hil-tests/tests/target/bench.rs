//! One `sim-target` process, and a station's hands and eyes on it.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read, Write},
    os::{
        fd::AsFd,
        unix::{fs::OpenOptionsExt, fs::PermissionsExt, process::CommandExt},
    },
    path::Path,
    process::{self, Child, Command, Stdio},
    sync::LazyLock,
    time::{Duration, Instant},
};

use factory_hil_tests::target::{Board, Client, FIRMWARE_ELF, Faults, State};
use nix::{
    libc::{O_NOCTTY, O_NONBLOCK},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        prctl,
        signal::{Signal, kill},
    },
    unistd::Pid,
};
use probe_rs::{
    Permissions, Session,
    config::{Registry, TargetSelector},
    flashing::{
        DownloadOptions, ElfLoader, ElfOptions, FileDownloadError, FlashError, FlashProgress,
        download_file_with_options,
    },
    probe::{DebugProbeSelector, list::Lister},
};
use tempfile::TempDir;

pub const CHIP: &str = "nRF51822_xxAA";
pub const PATIENCE: Duration = Duration::from_secs(20);
pub const VICTIMS_SELECTOR: &str = "VICTIMS_SELECTOR";
pub const IN_MID_FLASH: &str = "in mid-flash";

static REGISTRY: LazyLock<Registry> = LazyLock::new(Registry::from_builtin_families);

pub struct Bench {
    pub nest: Client,
    process: Child,
    dir: TempDir,
}

impl Bench {
    pub fn new(device_program: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("device");
        fs::write(&program, device_program).unwrap();
        fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
        let mut process = Command::new(env!("CARGO_BIN_EXE_sim-target"))
            .arg("--dir")
            .arg(dir.path())
            .arg("--device-program")
            .arg(program)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self { nest: Client::new(dir.path()), process, dir }
    }

    pub fn with_board(device_program: &str, faults: Faults) -> Self {
        let bench = Self::new(device_program);
        bench.nest.load(Board { faults, ..Board::new("SN-1", 1) }).unwrap();
        bench
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn selector(&self) -> String {
        format!("20b7:9db1:unix:{}", self.path().join("probe.sock").display())
    }

    pub fn console(&self) -> Console {
        let port = File::options()
            .read(true)
            .write(true)
            .custom_flags(O_NOCTTY | O_NONBLOCK)
            .open(self.path().join("console"));
        Console { port: port.unwrap() }
    }

    pub fn await_state(&self, wanted: impl Fn(&State) -> bool) {
        let start = Instant::now();
        while !wanted(&self.nest.state().unwrap()) {
            assert!(start.elapsed() < PATIENCE, "{:?}", self.nest.state());
            std::thread::yield_now();
        }
    }

    pub fn children(&self) -> Vec<Pid> {
        let id = self.process.id();
        let list = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
        list.split_whitespace().map(|pid| Pid::from_raw(pid.parse().unwrap())).collect()
    }

    pub fn terminate(&self) {
        kill(Pid::from_raw(self.process.id().cast_signed()), Signal::SIGTERM).unwrap();
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub struct Console {
    port: File,
}

impl Console {
    pub fn read_within(&mut self, patience: Duration) -> Option<u8> {
        let mut ready = [PollFd::new(self.port.as_fd(), PollFlags::POLLIN)];
        if poll(&mut ready, PollTimeout::try_from(patience).unwrap()).unwrap() == 0 {
            return None;
        }
        let mut byte = [0];
        self.port.read_exact(&mut byte).unwrap();
        Some(byte[0])
    }

    /// The next line, which ends as all do.
    pub fn line(&mut self) -> String {
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            let byte = self.read_within(PATIENCE);
            line.push(byte.unwrap_or_else(|| panic!("silence after {:?}", String::from_utf8_lossy(&line))));
        }
        let text = String::from_utf8(line).unwrap();
        text.trim_end_matches(['\r', '\n']).to_owned()
    }

    pub fn until(&mut self, wanted: &str) {
        while self.line() != wanted {}
    }

    pub fn ask(&mut self, command: &str) -> String {
        self.port.write_all(format!("{command}\n").as_bytes()).unwrap();
        self.line()
    }
}

/// Boots, tests and leaves the line to the device program.
pub fn provision(session: &mut Session, console: &mut Console) {
    session.core(0).unwrap().reset().unwrap();
    console.until("ready");
    console.ask("selftest");
    console.until("selftest done");
    assert_eq!(console.ask("provision"), "fcc start");
}

pub fn attach(selector: &str) -> Result<Session, probe_rs::Error> {
    attach_as(selector, CHIP)
}

pub fn attach_as(selector: &str, target: impl Into<TargetSelector>) -> Result<Session, probe_rs::Error> {
    let selector: DebugProbeSelector = selector.parse().unwrap();
    Lister::new().open(selector)?.attach_with_registry(target, Permissions::default(), &REGISTRY)
}

fn verified(progress: FlashProgress<'_>) -> DownloadOptions<'_> {
    let mut options = DownloadOptions::new();
    options.verify = true;
    options.progress = progress;
    options
}

pub fn flash_firmware(session: &mut Session, progress: FlashProgress<'_>) -> Result<(), FileDownloadError> {
    download_file_with_options(session, FIRMWARE_ELF, ElfLoader(ElfOptions::default()), verified(progress))
}

pub fn flash_bytes(session: &mut Session, bytes: &[u8]) -> Result<(), FlashError> {
    let mut loader = session.target().flash_loader();
    loader.add_data(0, bytes)?;
    loader.commit(session, verified(FlashProgress::empty()))
}

/// What the ELF file puts into flash, from address 0.
pub fn firmware_image() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let bin = dir.path().join("hilfw.bin");
    let status = Command::new("arm-none-eabi-objcopy")
        .args(["-O", "binary", FIRMWARE_ELF])
        .arg(&bin)
        .status()
        .unwrap();
    assert!(status.success());
    fs::read(bin).unwrap()
}

pub fn erased_but_for(image: &[u8], length: usize) -> Vec<u8> {
    let mut flash = image.to_vec();
    flash.resize(length, 0xff);
    flash
}

/// Runs the ignored test `victim` of this very program until it is in mid-flash, then kills it.
pub fn kill_a_host_in_mid_flash(selector: &str) {
    let parent = process::id();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "victim", "--ignored", "--nocapture"])
        .env(VICTIMS_SELECTOR, selector)
        .stdout(Stdio::piped());
    // SAFETY: only system calls between fork and exec.
    unsafe {
        command.pre_exec(move || {
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            assert_eq!(nix::unistd::getppid().as_raw().cast_unsigned(), parent);
            Ok(())
        });
    }
    let mut victim = command.spawn().unwrap();
    let lines = BufReader::new(victim.stdout.take().unwrap()).lines();
    let reached = lines.map_while(Result::ok).any(|line| line == IN_MID_FLASH);
    victim.kill().unwrap();
    victim.wait().unwrap();
    assert!(reached);
}

pub fn await_end_of(process: Pid) {
    let start = Instant::now();
    // A zombie waits for the init process only.
    let alive =
        || fs::read_to_string(format!("/proc/{process}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
    while alive() {
        assert!(start.elapsed() < PATIENCE, "{process} lives");
        std::thread::yield_now();
    }
}
