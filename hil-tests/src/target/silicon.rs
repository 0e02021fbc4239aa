//! What a chip may be made of: its bus as another master sees it, and its core as a debugger drives it. QEMU is one
//! such thing, the light chip another.

use std::{
    collections::BTreeSet,
    io::{self, ErrorKind},
    time::Duration,
};

/// The stack pointer's number.
pub const SP: u32 = 13;
/// The link register.
pub const LR: u32 = 14;
/// The program counter.
pub const PC: u32 = 15;
/// The program status register; bit 24 is the Thumb state.
pub const XPSR: u32 = 25;

/// Bus and core. Addresses are the chip's, words are little-endian.
pub trait Silicon {
    /// Reads a word.
    fn read_word(&mut self, address: u32) -> io::Result<u32>;

    /// Writes `size` (1, 2 or 4) bytes in one bus cycle.
    fn write(&mut self, address: u32, size: u32, value: u32) -> io::Result<()>;

    /// Reads `length` bytes; `length` is not zero.
    fn read_block(&mut self, address: u32, length: usize) -> io::Result<Vec<u8>>;

    /// Writes bytes, which are not none.
    fn write_block(&mut self, address: u32, bytes: &[u8]) -> io::Result<()>;

    /// Drives a GPIO pin from outside the chip.
    fn drive_pin(&mut self, pin: u32, high: bool) -> io::Result<()>;

    /// Reads a register of the halted core.
    fn read_register(&mut self, number: u32) -> io::Result<u32>;

    /// Writes a register of the halted core.
    fn write_register(&mut self, number: u32, value: u32) -> io::Result<()>;

    /// Lets the core run until it meets one of `breakpoints` or is halted.
    fn run(&mut self, breakpoints: BTreeSet<u32>) -> io::Result<()>;

    /// Executes one instruction, interrupts masked. A core that sleeps in WFI goes on sleeping.
    fn step(&mut self) -> io::Result<()>;

    /// Waits for a running core to stop by itself; true when it did.
    fn stopped_within(&mut self, patience: Duration) -> io::Result<bool>;

    /// Stops the core if it runs.
    fn halt(&mut self) -> io::Result<()>;

    /// Writes a word.
    fn write_word(&mut self, address: u32, value: u32) -> io::Result<()> {
        self.write(address, 4, value)
    }
}

/// Whether `error` means that the silicon died under the debugger, as QEMU does in a lockup.
pub fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof)
}
