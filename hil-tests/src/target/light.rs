//! An nRF51822 without QEMU, for lines of many nests: the same firmware and the vendor's own flash algorithm, on a core
//! that costs next to nothing, at the pace that a board is said to have. One thread is the core; it sleeps in WFI, and
//! while flash or converter need their time.

mod core;
mod map;

use std::{
    collections::BTreeSet,
    io::{self, ErrorKind, Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread,
    time::{Duration, Instant},
};

pub use self::map::Pace;
use self::{
    core::{Core, Executed},
    map::Map,
};
use super::silicon::{PC, SP, Silicon, XPSR};
use crate::work::{AtWork, Work};

/// Instructions between two looks at what the debugger wants.
const BURST: usize = 2_000;
/// Time that is owed is waited for once it comes to this; a shorter wait lasts longer than it should.
const WORTH_A_WAIT: Duration = Duration::from_millis(1);

/// The chip; it is gone when this is dropped.
pub struct Light {
    shared: Arc<Shared>,
    uart: UnixStream,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    core: Core,
    map: Map,
    execution: Execution,
    breakpoints: BTreeSet<u32>,
    until: Option<Instant>,
    /// While the core executes, or its parts need their time.
    at_work: Option<AtWork>,
    off: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Execution {
    Halted,
    Running,
    Asleep,
    Faulted { at: u32 },
}

impl Light {
    /// Powers one, its core halted. The second value is the far end of its UART; `work` counts how long it works.
    pub fn start(pace: Pace, work: Work) -> io::Result<(Self, UnixStream)> {
        let (uart, far_end) = UnixStream::pair()?;
        let state = State {
            core: Core::default(),
            map: Map::new(pace),
            execution: Execution::Halted,
            breakpoints: BTreeSet::new(),
            until: None,
            at_work: None,
            off: false,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let (clock, mouth) = (shared.clone(), uart.try_clone()?);
        thread::spawn(move || clock.tick(&mouth, &work));
        let (ear, line) = (shared.clone(), uart.try_clone()?);
        thread::spawn(move || ear.listen(line));
        Ok((Self { shared, uart }, far_end))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }
}

impl Drop for Light {
    fn drop(&mut self) {
        self.state().off = true;
        self.shared.changed.notify_all();
        // Whoever listens to it reads its end.
        let _ = self.uart.shutdown(Shutdown::Both);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of the chip panics")
    }

    /// The core's own thread.
    fn tick(&self, mut uart: &UnixStream, work: &Work) {
        let mut state = self.state();
        while !state.off {
            let works = state.execution == Execution::Running || state.until.is_some();
            state.at_work = works.then(|| state.at_work.take().unwrap_or_else(|| work.begin()));
            if let Some(left) = state.until.map(|until| until.saturating_duration_since(Instant::now())) {
                if left.is_zero() {
                    state.until = None;
                } else {
                    state = self.changed.wait_timeout(state, left).expect("no holder of the chip panics").0;
                    continue;
                }
            }
            if state.execution != Execution::Running {
                self.changed.notify_all();
                state = self.changed.wait(state).expect("no holder of the chip panics");
                continue;
            }
            state.burst();
            let said = state.map.says();
            if !said.is_empty() && uart.write_all(&said).is_err() {
                return;
            }
            // The debugger may have been waiting all the while.
            drop(state);
            thread::yield_now();
            state = self.state();
        }
    }

    fn listen(&self, mut line: UnixStream) {
        let mut chunk = [0; 256];
        while let Ok(count @ 1..) = line.read(&mut chunk) {
            let mut state = self.state();
            state.map.hears(&chunk[..count]);
            if state.execution == Execution::Asleep {
                state.execution = Execution::Running;
            }
            self.changed.notify_all();
        }
    }
}

impl State {
    fn burst(&mut self) {
        for _ in 0..BURST {
            if self.breakpoints.contains(&self.core.r[PC as usize]) {
                self.execution = Execution::Halted;
            } else {
                self.step();
            }
            let waits = self.execution != Execution::Running;
            if waits || self.map.owed() >= WORTH_A_WAIT {
                return self.pay();
            }
        }
    }

    fn step(&mut self) {
        self.execution = match self.core.execute(&mut self.map) {
            Ok(Executed::Sleep) if !self.map.is_pending() => Execution::Asleep,
            Ok(Executed::On | Executed::Sleep) => self.execution,
            Ok(Executed::Breakpoint) => Execution::Halted,
            Err(fault) => Execution::Faulted { at: fault.at },
        };
        if self.map.takes_reset() {
            self.reset();
        }
    }

    /// The time that is owed begins now.
    fn pay(&mut self) {
        let owed = self.map.takes_time();
        if !owed.is_zero() {
            self.until = Some(Instant::now() + owed);
        }
    }

    fn reset(&mut self) {
        self.map.reset();
        self.core = Core::reset(&mut self.map);
        self.until = None;
    }

    fn register(&mut self, number: u32) -> io::Result<&mut u32> {
        self.core.r.get_mut(number as usize).ok_or_else(|| io::Error::other(format!("no register {number}")))
    }

    /// What the debugger finds.
    fn look(&self) -> io::Result<bool> {
        match self.execution {
            Execution::Faulted { at } => {
                Err(io::Error::new(ErrorKind::UnexpectedEof, format!("hard fault at {at:#010x}")))
            }
            Execution::Halted => Ok(self.until.is_none()),
            Execution::Running | Execution::Asleep => Ok(false),
        }
    }
}

fn nothing_at(address: u32) -> io::Error {
    io::Error::other(format!("nothing is at {address:#010x}"))
}

impl Silicon for Light {
    fn read_word(&mut self, address: u32) -> io::Result<u32> {
        self.state().map.read(address, 4).ok_or_else(|| nothing_at(address))
    }

    fn write(&mut self, address: u32, size: u32, value: u32) -> io::Result<()> {
        let mut state = self.state();
        state.map.write(address, size, value).ok_or_else(|| nothing_at(address))?;
        if state.map.takes_reset() {
            state.reset();
        }
        Ok(())
    }

    fn read_block(&mut self, address: u32, length: usize) -> io::Result<Vec<u8>> {
        self.state().map.read_block(address, length).ok_or_else(|| nothing_at(address))
    }

    fn write_block(&mut self, address: u32, bytes: &[u8]) -> io::Result<()> {
        let map = &mut self.state().map;
        (address..).zip(bytes).try_for_each(|(address, byte)| {
            map.write(address, 1, (*byte).into()).ok_or_else(|| nothing_at(address))
        })
    }

    fn drive_pin(&mut self, pin: u32, high: bool) -> io::Result<()> {
        self.state().map.drive_pin(pin, high);
        Ok(())
    }

    fn read_register(&mut self, number: u32) -> io::Result<u32> {
        let mut state = self.state();
        if number == XPSR { Ok(state.core.status()) } else { state.register(number).copied() }
    }

    fn write_register(&mut self, number: u32, value: u32) -> io::Result<()> {
        let mut state = self.state();
        match number {
            XPSR => state.core.set_status(value),
            PC => *state.register(number)? = value & !1,
            SP => *state.register(number)? = value & !3,
            _ => *state.register(number)? = value,
        }
        Ok(())
    }

    fn run(&mut self, breakpoints: BTreeSet<u32>) -> io::Result<()> {
        let mut state = self.state();
        state.breakpoints = breakpoints;
        state.execution = Execution::Running;
        state.pay();
        self.shared.changed.notify_all();
        Ok(())
    }

    fn step(&mut self) -> io::Result<()> {
        let mut state = self.state();
        state.step();
        state.pay();
        if !matches!(state.execution, Execution::Faulted { .. }) {
            state.execution = Execution::Halted;
        }
        state.look().map(drop)
    }

    fn stopped_within(&mut self, patience: Duration) -> io::Result<bool> {
        let state = self.state();
        let goes_on = |state: &mut State| matches!(state.look(), Ok(false));
        let waited = self.shared.changed.wait_timeout_while(state, patience, goes_on);
        waited.expect("no holder of the chip panics").0.look()
    }

    fn halt(&mut self) -> io::Result<()> {
        let mut state = self.state();
        state.look()?;
        state.execution = Execution::Halted;
        self.shared.changed.notify_all();
        Ok(())
    }
}
