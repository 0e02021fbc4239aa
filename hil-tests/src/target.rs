//! One nest of the virtual fixture: a place for a board, a debug probe on a socket, a serial line, and a
//! control socket for what an operator's hands do. One thread owns the nest; all others ask it.

mod bus;
mod chip;
mod cobs;
mod console;
mod core_debug;
mod debug_port;
mod light;
mod probe_server;
mod qemu;
mod request;
mod rom_table;
mod silicon;
mod wire;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::mpsc,
};

use self::{
    bus::Bus,
    chip::{Chip, Circuit, FLASH},
    console::{Console, DeviceProgram, Wiring},
    core_debug::CoreDebug,
    debug_port::DebugPort,
    request::Answer,
};
pub use self::{
    bus::StuckLow,
    console::DeviceEnd,
    light::Pace,
    request::{Board, Client, Faults, FlashImage, Request, State},
};
use crate::{control, work::Work};

/// The board's firmware, as the linker made it.
pub const FIRMWARE_ELF: &str = env!("FIRMWARE_ELF");
/// The same as Intel HEX.
pub const FIRMWARE_HEX: &str = env!("FIRMWARE_HEX");

/// Serves a nest in `dir` for as long as the process lives; calls `ready` when everything is there.
///
/// Children die with the thread that calls this.
pub fn serve(dir: &Path, device_program: &Path, ready: impl FnOnce()) -> anyhow::Result<()> {
    let (jobs, inbox) = mpsc::channel::<Job>();
    let handle = NestHandle(jobs);
    let (control_socket, probe_socket) = (dir.join("control.sock"), dir.join("probe.sock"));
    for stale in [&control_socket, &probe_socket] {
        match fs::remove_file(stale) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    let work = Work::default();
    let mut nest = Nest {
        dir: dir.to_owned(),
        device_program: device_program.to_owned(),
        console: Console::open(&dir.join("console"), work.clone())?,
        loaded: None,
        probe_hosts: 0,
        work: work.clone(),
    };
    probe_server::serve(&probe_socket, handle.clone(), work)?;
    control::serve(&control_socket, move |request: Request| handle.ask(move |nest| nest.obey(request)))?;
    ready();
    for job in inbox {
        job(&mut nest);
    }
    Ok(())
}

type Job = Box<dyn FnOnce(&mut Nest) + Send>;

/// The way to the nest from other threads.
#[derive(Clone)]
struct NestHandle(mpsc::Sender<Job>);

impl NestHandle {
    /// Has the nest's own thread do `what`, and waits for it.
    fn ask<T: Send + 'static>(&self, what: impl FnOnce(&mut Nest) -> T + Send + 'static) -> T {
        let (answer, answered) = mpsc::sync_channel(1);
        let job = Box::new(move |nest: &mut Nest| {
            // Whoever asked is waiting below.
            let _ = answer.send(what(nest));
        });
        self.0.send(job).expect("the nest lives as long as the process");
        answered.recv().expect("the nest does every job")
    }

    /// The same with the debug port of the board in the nest, if there is one.
    fn with_port<T: Send + 'static>(
        &self,
        what: impl FnOnce(Option<&mut DebugPort>) -> T + Send + 'static,
    ) -> T {
        self.ask(|nest| what(nest.loaded.as_mut().map(|loaded| &mut loaded.port)))
    }
}

struct Nest {
    dir: PathBuf,
    device_program: PathBuf,
    console: Console,
    loaded: Option<Loaded>,
    probe_hosts: u64,
    work: Work,
}

struct Loaded {
    serial: String,
    port: DebugPort,
}

impl Nest {
    fn obey(&mut self, request: Request) -> Result<Answer, String> {
        match request {
            Request::Load(board) => self.load(board).map_err(|error| format!("board not loaded: {error}"))?,
            Request::Unload => self.unload().map_err(|error| format!("board not unloaded: {error}"))?,
            Request::State => {}
            Request::Flash { length } => return self.look_into_flash(length),
            Request::Work => return Ok(Answer::Work(self.work.take())),
        }
        let line = self.console.state();
        Ok(Answer::State(State {
            loaded: self.loaded.as_ref().map(|loaded| loaded.serial.clone()),
            firmware: line.firmware,
            fcc_running: line.fcc_running,
            probe_hosts: self.probe_hosts,
            device_end: line.device_end,
        }))
    }

    /// Puts a factory-fresh board in, in place of the one that is there.
    fn load(&mut self, board: Board) -> io::Result<()> {
        self.unload()?;
        if !board.has_plain_serial() {
            return Err(io::Error::other(format!("serial {:?} is not plain", board.serial)));
        }
        let Board { serial, board_id, faults, pace } = board;
        let arguments = faults.device_args.into_iter().map(Into::into).collect();
        let device = DeviceProgram::factory_fresh(&self.device_program, &self.dir, &serial, arguments)?;
        self.console.plug(Some(Wiring { device, garbage: faults.garbage }))?;
        let circuit = Circuit {
            rail_3v3_mv: faults.rail_3v3_mv,
            dead_clock: faults.silent,
            log: self.dir.join("qemu.log"),
            pace,
            work: self.work.clone(),
        };
        let chip = Chip::power_up(circuit, self.console.clone())?;
        let bus = Bus::new(CoreDebug::new(chip), board_id, faults.stuck_low);
        self.loaded = Some(Loaded { serial, port: DebugPort::new(bus, faults.yank_after) });
        Ok(())
    }

    fn unload(&mut self) -> io::Result<()> {
        self.loaded = None;
        self.console.plug(None)
    }

    /// Looks at flash from outside, not through the debug port.
    fn look_into_flash(&mut self, length: u32) -> Result<Answer, String> {
        let loaded = self.loaded.as_mut().ok_or("no board in the nest")?;
        if length == 0 || length > FLASH.end {
            return Err(format!("flash has {} bytes", FLASH.end));
        }
        let bytes = loaded.port.x_ray(length);
        bytes.map(|bytes| Answer::Flash(FlashImage::new(&bytes))).map_err(|error| error.to_string())
    }
}
