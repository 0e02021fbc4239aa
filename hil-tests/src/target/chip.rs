//! One nRF51822 on its board: QEMU, and what QEMU lacks of the silicon. It is erased when new, its UICR
//! survives a reset, lockup does not kill it, and its supply can be measured at its pins.

use std::{collections::BTreeSet, io, ops::Range, os::unix::net::UnixStream, path::PathBuf, time::Duration};

use super::{
    console::Console,
    light::{Light, Pace},
    qemu::Qemu,
    silicon::{PC, Silicon, XPSR},
};
use crate::work::Work;

/// Code memory.
pub const FLASH: Range<u32> = 0..0x4_0000;
/// Data memory.
pub const RAM: Range<u32> = 0x2000_0000..0x2000_4000;
/// User information configuration registers.
pub const UICR: Range<u32> = 0x1000_1000..0x1000_1100;
/// The flash controller's configuration register.
pub const NVMC_CONFIG: u32 = 0x4001_E504;
/// Its value while flash may be written.
pub const NVMC_WRITE_ENABLED: u32 = 1;
const NVMC_READ_ONLY: u32 = 0;
const NVMC_ERASE_ENABLED: u32 = 2;
const NVMC_ERASE_ALL: u32 = 0x4001_E50C;
const AIRCR: u32 = 0xE000_ED0C;
const AIRCR_RESET: u32 = 0x05FA_0004;
/// The board's ADC sits on the pins below this one, bit 0 on pin 0, and reads millivolts.
const ADC_PINS: u32 = 16;
const FLASH_PAGE: usize = 0x400;
/// Reads of the canary before a reset is given up; one or two suffice.
const RESET_PATIENCE: usize = 10_000;

/// What a board is made of.
#[derive(Clone)]
pub struct Circuit {
    /// What the ADC reads on the 3.3 V rail, in millivolts.
    pub rail_3v3_mv: u16,
    /// The core never leaves reset by itself: its clock is dead. Code that a debugger puts into RAM runs.
    pub dead_clock: bool,
    /// Where QEMU complains.
    pub log: PathBuf,
    /// It is no QEMU, but a light chip of this pace.
    pub pace: Option<Pace>,
    /// Counts how long a light chip works.
    pub work: Work,
}

impl Circuit {
    /// Powers one; the second value is the far end of its UART.
    fn silicon(&self) -> io::Result<(Box<dyn Silicon>, UnixStream)> {
        Ok(match self.pace {
            None => {
                let (qemu, uart) = Qemu::start(&self.log)?;
                (Box::new(qemu), uart)
            }
            Some(pace) => {
                let (light, uart) = Light::start(pace, self.work.clone())?;
                (Box::new(light), uart)
            }
        })
    }
}

/// The chip. Its core is halted until it is run.
pub struct Chip {
    silicon: Box<dyn Silicon>,
    circuit: Circuit,
    console: Console,
    flash_changed: bool,
    /// Flash and UICR as they were when the core was last let loose on its own code.
    kept: Option<Kept>,
}

struct Kept {
    flash: Vec<u8>,
    uicr: Vec<u8>,
}

impl Chip {
    /// Puts a chip fresh from the fab on the board; its UART is wired to `console`.
    pub fn power_up(circuit: Circuit, console: Console) -> io::Result<Self> {
        let (silicon, uart) = circuit.silicon()?;
        console.connect(uart)?;
        let mut chip = Self { silicon, circuit, console, flash_changed: false, kept: None };
        chip.erase()?;
        chip.drive_adc()?;
        Ok(chip)
    }

    /// The bus, for accesses that leave flash as it is.
    pub fn memory(&mut self) -> &mut dyn Silicon {
        &mut *self.silicon
    }

    /// The bus, for accesses that may change flash.
    pub fn flash_memory(&mut self) -> &mut dyn Silicon {
        self.flash_changed = true;
        &mut *self.silicon
    }

    /// Reads a register of the halted core, by QEMU's number.
    pub fn read_register(&mut self, number: u32) -> io::Result<u32> {
        self.silicon.read_register(number)
    }

    /// Writes a register of the halted core, by QEMU's number.
    pub fn write_register(&mut self, number: u32, value: u32) -> io::Result<()> {
        self.silicon.write_register(number, value)
    }

    /// The instruction at `address`, when there is memory.
    pub fn instruction_at(&mut self, address: u32) -> io::Result<Option<u16>> {
        if !FLASH.contains(&address) && !RAM.contains(&address) {
            return Ok(None);
        }
        let [low, high, third, fourth] = self.memory().read_word(address & !3)?.to_le_bytes();
        Ok(Some(u16::from_le_bytes(if address & 2 == 0 { [low, high] } else { [third, fourth] })))
    }

    /// Whether the core would execute anything if it ran. QEMU aborts where a core would lock up.
    pub fn can_run(&mut self) -> io::Result<bool> {
        let pc = self.read_register(PC)?;
        if FLASH.contains(&pc) && self.circuit.dead_clock {
            return Ok(false);
        }
        let thumb = self.read_register(XPSR)? >> 24 & 1 == 1;
        let erased = FLASH.contains(&pc) && self.memory().read_word(pc & !3)? == !0;
        Ok(thumb && !erased && self.instruction_at(pc)?.is_some())
    }

    /// Runs the core until it meets one of `breakpoints`. A `supervised` core runs a debugger's code.
    pub fn run(&mut self, breakpoints: BTreeSet<u32>, supervised: bool) -> io::Result<()> {
        // A flash algorithm runs hundreds of times, and a quarter of a megabyte each time would be felt.
        if self.flash_changed && !supervised {
            self.kept = Some(Kept {
                flash: self.memory().read_block(FLASH.start, FLASH.len())?,
                uicr: self.memory().read_block(UICR.start, UICR.len())?,
            });
            self.flash_changed = false;
        }
        // What runs in RAM may program flash.
        self.flash_changed |= supervised;
        self.silicon.run(breakpoints)
    }

    /// Executes one instruction.
    pub fn step(&mut self) -> io::Result<()> {
        self.silicon.step()
    }

    /// Stops the core if it runs.
    pub fn halt(&mut self) -> io::Result<()> {
        self.silicon.halt()
    }

    /// Waits for a running core to stop by itself; true when it did.
    pub fn stopped_within(&mut self, patience: Duration) -> io::Result<bool> {
        self.silicon.stopped_within(patience)
    }

    /// Resets the halted chip; its core then waits at the reset vector.
    pub fn reset(&mut self) -> io::Result<()> {
        self.console.chip_reset();
        let uicr = self.memory().read_block(UICR.start, UICR.len())?;
        // QEMU resets a little later; a canary that is reset too says when.
        self.memory().write_word(NVMC_CONFIG, NVMC_ERASE_ENABLED)?;
        self.memory().write_word(AIRCR, AIRCR_RESET)?;
        let mut looks = 0;
        while self.memory().read_word(NVMC_CONFIG)? != NVMC_READ_ONLY {
            looks += 1;
            if looks == RESET_PATIENCE {
                return Err(io::Error::other("the chip did not carry out a reset"));
            }
        }
        self.memory().write_block(UICR.start, &uicr)?;
        // QEMU's reset releases the pins.
        self.drive_adc()
    }

    /// Replaces an emulator that died of a lockup by one with the same flash.
    pub fn revive(&mut self) -> io::Result<()> {
        let (silicon, uart) = self.circuit.silicon()?;
        self.silicon = silicon;
        self.console.connect(uart)?;
        self.erase()?;
        self.drive_adc()?;
        let Some(kept) = &self.kept else { return Ok(()) };
        let memory = &mut *self.silicon;
        memory.write_word(NVMC_CONFIG, NVMC_WRITE_ENABLED)?;
        for (page, address) in kept.flash.chunks(FLASH_PAGE).zip((FLASH.start..).step_by(FLASH_PAGE)) {
            if page.iter().any(|byte| *byte != 0xff) {
                memory.write_block(address, page)?;
            }
        }
        memory.write_block(UICR.start, &kept.uicr)?;
        memory.write_word(NVMC_CONFIG, NVMC_READ_ONLY)
    }

    /// QEMU starts with zeroed flash; real parts come erased.
    fn erase(&mut self) -> io::Result<()> {
        let memory = self.memory();
        memory.write_word(NVMC_CONFIG, NVMC_ERASE_ENABLED)?;
        memory.write_word(NVMC_ERASE_ALL, 1)?;
        memory.write_word(NVMC_CONFIG, NVMC_READ_ONLY)
    }

    fn drive_adc(&mut self) -> io::Result<()> {
        for pin in 0..ADC_PINS {
            let high = self.circuit.rail_3v3_mv >> pin & 1 == 1;
            self.memory().drive_pin(pin, high)?;
        }
        Ok(())
    }
}
