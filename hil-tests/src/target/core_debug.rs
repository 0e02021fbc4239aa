//! The debug registers of a Cortex-M0 (ARM DDI 0419, chapter C1), which QEMU does not have: halting,
//! stepping, core registers, breakpoints, vector catch, reset.

use std::{collections::BTreeSet, io, mem, time::Duration};

use super::{
    chip::{Chip, RAM},
    rom_table,
    silicon::{LR, PC, SP, XPSR},
};

/// The core under its debugger.
pub struct CoreDebug {
    /// The chip it sits in.
    pub chip: Chip,
    execution: Execution,
    reset_seen: bool,
    held_in_reset: bool,
    control: u32,
    exceptions: u32,
    fault_status: u32,
    transfer_data: u32,
    /// Registers that QEMU's stub does not show (process stack, CONTROL, PRIMASK) keep what the host wrote.
    hidden: [u32; 32],
    breakpoints: BreakpointUnit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Execution {
    Running,
    Halted,
    LockedUp,
}

#[derive(Debug, Default)]
struct BreakpointUnit {
    enabled: bool,
    comparators: [u32; 4],
}

const CPUID_TO_ROM: std::ops::RangeInclusive<u32> = 0xE000_0000..=0xE00F_FFFF;
const DWT_CTRL: u32 = 0xE000_1000;
const BP_CTRL: u32 = 0xE000_2000;
const BP_COMP_FIRST: u32 = 0xE000_2008;
const BP_COMP_LAST: u32 = 0xE000_2014;
const AIRCR: u32 = 0xE000_ED0C;
const DFSR: u32 = 0xE000_ED30;
const DHCSR: u32 = 0xE000_EDF0;
const DCRSR: u32 = 0xE000_EDF4;
const DCRDR: u32 = 0xE000_EDF8;
const DEMCR: u32 = 0xE000_EDFC;

const C_DEBUGEN: u32 = 1;
const C_HALT: u32 = 1 << 1;
const C_STEP: u32 = 1 << 2;
const S_REGRDY: u32 = 1 << 16;
const S_HALT: u32 = 1 << 17;
const S_LOCKUP: u32 = 1 << 19;
const S_RETIRE: u32 = 1 << 24;
const S_RESET: u32 = 1 << 25;
const VC_CORERESET: u32 = 1;
const DFSR_HALTED: u32 = 1;
const DFSR_BREAKPOINT: u32 = 1 << 1;
const DFSR_VECTOR_CATCH: u32 = 1 << 3;

/// A host that asks whether the core stopped may wait this long: over a real probe the question takes as long.
const POLL: Duration = Duration::from_millis(1);

impl CoreDebug {
    /// The core of a chip that was just powered, which found no code to run.
    pub fn new(chip: Chip) -> Self {
        Self {
            chip,
            execution: Execution::LockedUp,
            reset_seen: true,
            held_in_reset: false,
            control: 0,
            exceptions: 0,
            fault_status: 0,
            transfer_data: 0,
            hidden: [0; 32],
            breakpoints: BreakpointUnit::default(),
        }
    }

    /// Reads a debug register, when `address` is one.
    pub fn read(&mut self, address: u32) -> io::Result<Option<u32>> {
        Ok(Some(match address {
            DWT_CTRL => 1 << 28,
            BP_CTRL => 4 << 4 | u32::from(self.breakpoints.enabled),
            BP_COMP_FIRST..=BP_COMP_LAST => self.breakpoints.comparators[comparator(address)],
            DFSR => self.fault_status,
            DHCSR => self.status()?,
            DCRSR => 0,
            DCRDR => self.transfer_data,
            DEMCR => self.exceptions,
            _ if let Some(value) = rom_table::read(address) => value,
            _ if is_unused_private(address) => 0,
            _ => return Ok(None),
        }))
    }

    /// Writes a debug register; false when `address` is none.
    pub fn write(&mut self, address: u32, value: u32) -> io::Result<bool> {
        match address {
            BP_CTRL if value & 2 != 0 => self.breakpoints.enabled = value & 1 != 0,
            BP_COMP_FIRST..=BP_COMP_LAST => self.breakpoints.comparators[comparator(address)] = value,
            DFSR => self.fault_status &= !value,
            DHCSR if value >> 16 == 0xA05F => self.control_core(value & 0xf)?,
            DHCSR => {}
            DCRSR => self.transfer_register(value)?,
            DCRDR => self.transfer_data = value,
            DEMCR => self.exceptions = value & 0x0100_0401,
            AIRCR if value >> 16 == 0x05FA && value & 4 != 0 => self.reset()?,
            _ if is_unused_private(address) => {}
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The emulator died: what is left is a core in lockup, with its flash.
    pub fn lock_up(&mut self, error: &io::Error) -> io::Result<()> {
        tracing::info!(%error, "the core locked up");
        self.execution = Execution::LockedUp;
        self.chip.revive()
    }

    /// The reset pin: the chip is reset when it goes high again.
    pub fn drive_reset(&mut self, low: bool) -> io::Result<()> {
        if low && !self.held_in_reset {
            self.stop()?;
            self.held_in_reset = true;
        } else if !low && self.held_in_reset {
            self.held_in_reset = false;
            self.reset()?;
        }
        Ok(())
    }

    /// Takes note of what a running core did meanwhile.
    fn settle(&mut self, patience: Duration) -> io::Result<()> {
        if self.execution != Execution::Running || self.held_in_reset {
            return Ok(());
        }
        match self.chip.stopped_within(patience) {
            Ok(false) => Ok(()),
            Ok(true) => {
                self.enter_debug(DFSR_BREAKPOINT);
                Ok(())
            }
            Err(error) => self.lock_up(&error),
        }
    }

    /// Stops a running core. It may turn out to have locked up.
    fn stop(&mut self) -> io::Result<()> {
        match self.chip.halt() {
            Ok(()) => Ok(()),
            Err(error) => self.lock_up(&error),
        }
    }

    fn status(&mut self) -> io::Result<u32> {
        self.settle(POLL)?;
        let mut status = self.control | S_REGRDY;
        status |= match self.execution {
            Execution::Running => S_RETIRE,
            Execution::Halted => S_HALT,
            Execution::LockedUp => S_LOCKUP,
        };
        if mem::take(&mut self.reset_seen) || self.held_in_reset {
            status |= S_RESET;
        }
        Ok(status)
    }

    fn enter_debug(&mut self, reason: u32) {
        self.execution = Execution::Halted;
        self.fault_status |= reason;
    }

    fn control_core(&mut self, control: u32) -> io::Result<()> {
        self.control = control;
        if self.held_in_reset {
            return Ok(());
        }
        self.settle(Duration::ZERO)?;
        let halted = self.execution == Execution::Halted;
        if control & C_DEBUGEN == 0 || control & (C_HALT | C_STEP) == 0 {
            if halted { self.resume() } else { Ok(()) }
        } else if control & C_HALT != 0 {
            if halted { Ok(()) } else { self.halt() }
        } else if halted {
            self.step()
        } else {
            Ok(())
        }
    }

    fn halt(&mut self) -> io::Result<()> {
        self.stop()?;
        if self.execution == Execution::LockedUp {
            // Where a core in lockup says it is (ARM DDI 0419, B1.5.15).
            self.chip.write_register(PC, 0xFFFF_FFFE)?;
        }
        self.enter_debug(DFSR_HALTED);
        Ok(())
    }

    fn step(&mut self) -> io::Result<()> {
        let pc = self.chip.read_register(PC)?;
        if self.is_breakpoint(pc)? {
            self.enter_debug(DFSR_BREAKPOINT);
        } else if self.chip.can_run()? {
            self.chip.step()?;
            self.enter_debug(DFSR_HALTED);
        } else {
            self.execution = Execution::LockedUp;
        }
        Ok(())
    }

    fn resume(&mut self) -> io::Result<()> {
        if !self.chip.can_run()? {
            self.execution = Execution::LockedUp;
            return Ok(());
        }
        let mut stops = BTreeSet::new();
        let debugged = self.control & C_DEBUGEN != 0;
        let in_ram = RAM.contains(&self.chip.read_register(PC)?);
        if debugged {
            stops.extend(self.breakpoints.addresses());
        }
        if debugged && in_ram {
            // A routine that a debugger called returns to a BKPT, at which QEMU would raise a fault.
            let return_to = self.chip.read_register(LR)? & !1;
            if self.is_breakpoint(return_to)? {
                stops.insert(return_to);
            }
        }
        self.chip.run(stops, debugged && in_ram)?;
        self.execution = Execution::Running;
        Ok(())
    }

    fn reset(&mut self) -> io::Result<()> {
        self.stop()?;
        self.chip.reset()?;
        self.reset_seen = true;
        if self.exceptions & VC_CORERESET != 0 && self.control & C_DEBUGEN != 0 {
            self.enter_debug(DFSR_VECTOR_CATCH);
            Ok(())
        } else {
            self.control &= C_DEBUGEN;
            self.resume()
        }
    }

    fn is_breakpoint(&mut self, address: u32) -> io::Result<bool> {
        Ok(self.chip.instruction_at(address)?.is_some_and(|instruction| instruction >> 8 == 0xbe))
    }

    fn transfer_register(&mut self, request: u32) -> io::Result<()> {
        if self.execution != Execution::Halted {
            return Ok(());
        }
        let (writes, selector) = (request >> 16 & 1 == 1, request & 0x1f);
        let shown = match selector {
            0..=15 => Some(selector),
            16 => Some(XPSR),
            17 => Some(SP), // the main stack pointer is the one in use
            _ => None,
        };
        match (shown, writes) {
            (Some(number), true) => self.chip.write_register(number, self.transfer_data)?,
            (Some(number), false) => self.transfer_data = self.chip.read_register(number)?,
            (None, true) => self.hidden[selector as usize] = self.transfer_data,
            (None, false) => self.transfer_data = self.hidden[selector as usize],
        }
        Ok(())
    }
}

impl BreakpointUnit {
    fn addresses(&self) -> impl Iterator<Item = u32> {
        let active = self.comparators.iter().filter(|comparator| self.enabled && **comparator & 1 == 1);
        active.flat_map(|comparator| {
            let (word, halves) = (comparator & 0x1fff_fffc, comparator >> 30);
            [(1, word), (2, word + 2)]
                .into_iter()
                .filter(move |(half, _)| halves & half != 0)
                .map(|(_, address)| address)
        })
    }
}

fn comparator(address: u32) -> usize {
    ((address - BP_COMP_FIRST) / 4) as usize
}

/// The private peripheral bus but for the system control space, which QEMU has.
fn is_unused_private(address: u32) -> bool {
    CPUID_TO_ROM.contains(&address) && !(0xE000_E000..0xE000_F000).contains(&address)
}
