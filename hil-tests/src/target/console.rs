//! The board's serial line, on a pseudo-terminal that the station opens. The chip's UART has it until the
//! firmware says `fcc start`; from then the device program has it until it ends or the chip is reset.
//! Changes nothing on its way, unless the board's fault is a UART that talks rubbish.

mod device_program;
mod watch;

use std::{
    fs::File,
    io::{self, Read, Write},
    os::{fd::AsFd, unix::fs::OpenOptionsExt, unix::net::UnixStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    thread,
    time::Duration,
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    libc::O_NOCTTY,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::termios::{FlushArg, tcflush},
};

pub use self::device_program::{DeviceEnd, DeviceProgram};
use self::watch::{Event, Watch};
use crate::{
    pty::Pty,
    work::{AtWork, Work},
};

/// A handle on the line; all clones are the same line.
#[derive(Clone)]
pub struct Console(Arc<Shared>);

struct Shared {
    port: Pty,
    link: PathBuf,
    line: Mutex<Line>,
    work: Work,
}

/// What a board brings to the line.
pub struct Wiring {
    /// What answers after `fcc start`.
    pub device: DeviceProgram,
    /// The UART's pin driver is broken: each byte becomes many others.
    pub garbage: bool,
}

/// What an onlooker knows of the line.
#[derive(Debug, Default, Clone)]
pub struct LineState {
    /// The version that the firmware gave when it last booted.
    pub firmware: Option<String>,
    /// Whether the device program has the line.
    pub fcc_running: bool,
    /// How the last device program of this board ended.
    pub device_end: Option<DeviceEnd>,
}

#[derive(Default)]
struct Line {
    wiring: Option<Wiring>,
    uart: Option<UnixStream>,
    /// Tells the UART and the device program of now from those whose last words are still in a pipe.
    epoch: u64,
    watch: Watch,
    device: Option<device_program::Running>,
    starting: Option<AtWork>,
    answering: Option<AtWork>,
    state: LineState,
}

/// A UART that takes no more loses what comes.
const UART_PATIENCE: Duration = Duration::from_millis(20);
/// So many wrong bytes for a right one.
const GARBAGE_PER_BYTE: usize = 600;

impl Console {
    /// Opens the pseudo-terminal and links it at `link`; nothing is connected to it yet. `work` counts how long the
    /// device program starts and answers.
    pub fn open(link: &Path, work: Work) -> io::Result<Self> {
        let port = Pty::open(link)?;
        // Whoever writes to a serial line does not wait for its reader; what does not fit is lost.
        fcntl(&port.master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let console = Self(Arc::new(Shared { port, link: link.to_owned(), line: Mutex::default(), work }));
        let reader = console.clone();
        thread::spawn(move || reader.carry_from_port());
        Ok(console)
    }

    /// Plugs a board in, or takes it out. The line begins empty.
    pub fn plug(&self, wiring: Option<Wiring>) -> io::Result<()> {
        let mut line = self.line();
        *line = Line { wiring, epoch: line.epoch + 1, ..Line::default() };
        // An open port forgets nothing by itself.
        let port = File::options().read(true).custom_flags(O_NOCTTY).open(&self.0.link)?;
        tcflush(&port, FlushArg::TCIFLUSH)?;
        Ok(())
    }

    /// Connects the UART of a chip that was powered just now.
    pub fn connect(&self, uart: UnixStream) -> io::Result<()> {
        uart.set_write_timeout(Some(UART_PATIENCE))?;
        let mut line = self.line();
        line.epoch += 1;
        line.chip_restarts();
        line.uart = Some(uart.try_clone()?);
        let (console, epoch) = (self.clone(), line.epoch);
        thread::spawn(move || console.carry_from_uart(uart, epoch));
        Ok(())
    }

    /// The chip is reset: the device program dies, the UART has the line.
    pub fn chip_reset(&self) {
        self.line().chip_restarts();
    }

    /// What is to be seen of the line.
    pub fn state(&self) -> LineState {
        let line = self.line();
        LineState { fcc_running: line.device.is_some(), ..line.state.clone() }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.0.line.lock().expect("no holder of the line panics")
    }

    fn carry_from_port(&self) {
        let master = &self.0.port.master;
        let mut chunk = [0; 4096];
        loop {
            let mut ready = [PollFd::new(master.as_fd(), PollFlags::POLLIN)];
            match poll(&mut ready, PollTimeout::NONE)
                .map_err(io::Error::from)
                .and_then(|_| (&*master).read(&mut chunk))
            {
                Ok(count) => self.line().hear(&chunk[..count], &self.0.work),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return tracing::error!(%error, "the console is gone"),
            }
        }
    }

    fn carry_from_uart(&self, mut uart: UnixStream, epoch: u64) {
        let mut chunk = [0; 4096];
        while let Ok(count @ 1..) = uart.read(&mut chunk) {
            let mut line = self.line();
            if line.epoch != epoch {
                return;
            }
            let events = line.watch.feed(&chunk[..count]);
            let booted = events.iter().any(|event| matches!(event, Event::Booted(_)));
            if booted {
                // Its firmware would not boot if it had not been reset.
                line.chip_restarts();
            }
            let uart_had_the_line = line.device.is_none();
            for event in events {
                match event {
                    Event::Booted(version) => line.state.firmware = Some(version),
                    Event::FccStarted => self.hand_over(&mut line, epoch),
                }
            }
            // The host may answer `fcc start` at once, so it learns of it when the program is there.
            if uart_had_the_line {
                self.say(&line.mangle(&chunk[..count]));
            }
            if let Some(device) = &mut line.device {
                device.release();
            }
        }
    }

    fn hand_over(&self, line: &mut Line, epoch: u64) {
        if line.device.is_some() {
            return;
        }
        let Some(wiring) = &line.wiring else { return };
        line.starting = Some(self.0.work.begin());
        let console = self.clone();
        match wiring.device.start(move |output, identity| console.carry_from_device(output, identity, epoch))
        {
            Ok(device) => line.device = Some(device),
            Err(error) => line.state.device_end = Some(DeviceEnd::NotStarted(error.to_string())),
        }
    }

    fn carry_from_device(&self, mut output: UnixStream, identity: device_program::Identity, epoch: u64) {
        let mut chunk = [0; 4096];
        while let Ok(count @ 1..) = output.read(&mut chunk) {
            let mut line = self.line();
            if !line.is_device(identity, epoch) {
                return;
            }
            self.say(&line.mangle(&chunk[..count]));
            // What it says first is its banner.
            let done = line.starting.take().or_else(|| line.answering.take());
            drop(done);
        }
        identity.await_end();
        let mut line = self.line();
        if line.is_device(identity, epoch)
            && let Some(device) = line.device.take()
        {
            line.answering = None;
            line.state.device_end = Some(device.end());
        }
    }

    fn say(&self, mut bytes: &[u8]) {
        while let Ok(count @ 1..) = (&self.0.port.master).write(bytes) {
            bytes = &bytes[count..];
        }
        if !bytes.is_empty() {
            tracing::warn!(bytes = bytes.len(), "the console overran: nobody reads it");
        }
    }
}

impl Line {
    fn chip_restarts(&mut self) {
        self.watch = Watch::default();
        self.state.firmware = None;
        (self.starting, self.answering) = (None, None);
        if self.device.take().is_some() {
            self.state.device_end = Some(DeviceEnd::Killed);
        }
    }

    fn is_device(&self, identity: device_program::Identity, epoch: u64) -> bool {
        self.epoch == epoch && self.device.as_ref().is_some_and(|device| device.identity() == identity)
    }

    fn hear(&mut self, bytes: &[u8], work: &Work) {
        if self.device.is_some() {
            self.answering.get_or_insert_with(|| work.begin());
        }
        let listener = match (&mut self.device, &mut self.uart) {
            (Some(device), _) => Some(device.line()),
            (None, uart) => uart.as_mut(),
        };
        if let Some(Err(error)) = listener.map(|listener| listener.write_all(bytes)) {
            tracing::debug!(%error, "bytes for the board were lost");
        }
    }

    fn mangle(&self, bytes: &[u8]) -> Vec<u8> {
        if !self.wiring.as_ref().is_some_and(|wiring| wiring.garbage) {
            return bytes.to_vec();
        }
        // Never a line end: 0x80 to 0xff.
        let noise = |byte: &u8| {
            (0..GARBAGE_PER_BYTE)
                .map(|n| n.to_le_bytes()[0].wrapping_mul(151).wrapping_add(*byte) | 0x80)
                .collect::<Vec<_>>()
        };
        bytes.iter().flat_map(noise).collect()
    }
}
