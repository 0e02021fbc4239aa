//! SW-DP and its one AHB-AP (ARM IHI 0031): registers, sticky errors, posted reads, auto-increment.
//! What lies behind an address is the bus's affair.

use std::io;

use super::{bus::Bus, chip::FLASH, silicon::is_gone, wire::Wire};

/// Why a transfer was not acknowledged with OK.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nack {
    /// The debug port is there and refuses.
    Fault,
    /// Nobody drives the line.
    NoAnswer,
}

/// The debug port of one powered chip.
pub struct DebugPort {
    bus: Bus,
    wire: Wire,
    transfers_left: Option<u64>,
    control: u32,
    select: u32,
    read_buffer: u32,
    transfer_size: u32,
    increments: bool,
    address: u32,
}

const DPIDR: u32 = 0x0BB1_1477;
const STICKY_OVERRUN: u32 = 1 << 1;
const STICKY_COMPARE: u32 = 1 << 4;
const STICKY_ERROR: u32 = 1 << 5;
const WRITE_DATA_ERROR: u32 = 1 << 7;
const STICKY: u32 = STICKY_OVERRUN | STICKY_COMPARE | STICKY_ERROR | WRITE_DATA_ERROR;
const POWERED_UP: u32 = 0xF << 28;

const CSW: u32 = 0x00;
const TAR: u32 = 0x04;
const DRW: u32 = 0x0C;
const BANKED_FIRST: u32 = 0x10;
const BANKED_LAST: u32 = 0x1C;
/// The address wraps within this many bytes when it increments.
const INCREMENT_WINDOW: u32 = 0x400;

impl DebugPort {
    /// A port in its power-on state. `transfers` is how many it answers before its cable comes off.
    pub fn new(bus: Bus, transfers: Option<u64>) -> Self {
        Self {
            bus,
            wire: Wire::default(),
            transfers_left: transfers,
            control: 0,
            select: 0,
            read_buffer: 0,
            transfer_size: 4,
            increments: false,
            address: 0,
        }
    }

    /// Clocks bits through the line outside a transfer.
    pub fn sequence(&mut self, bits: u32, count: u32) {
        self.wire.sequence(bits, count);
    }

    /// Holds the chip in reset, or releases it.
    pub fn drive_reset(&mut self, low: bool) -> io::Result<()> {
        self.bus.core.drive_reset(low)
    }

    /// Reads the DP register at `register` (0, 4, 8 or 12).
    pub fn read_dp(&mut self, register: u8) -> Result<u32, Nack> {
        self.transfer(register == 0)?;
        Ok(match (register, self.select & 0xf) {
            (0x0, _) => DPIDR,
            (0x4, 0) => self.control,
            (0x4, 1) => 0x40, // DLCR: one turnaround cycle
            (0x4, _) => 0,
            _ => self.read_buffer,
        })
    }

    /// Writes the DP register at `register`.
    pub fn write_dp(&mut self, register: u8, value: u32) -> Result<(), Nack> {
        self.transfer(false)?;
        match register {
            0x0 => {
                let clears =
                    [(1, STICKY_COMPARE), (2, STICKY_ERROR), (3, WRITE_DATA_ERROR), (4, STICKY_OVERRUN)];
                for (_, flag) in clears.iter().filter(|(bit, _)| value >> bit & 1 == 1) {
                    self.control &= !flag;
                }
            }
            0x4 if self.select & 0xf == 0 => {
                let requests = value & 0x5000_0000;
                // Each power-up request is acknowledged at once, in the bit above it.
                self.control = self.control & STICKY | value & 0x0f4d | requests | requests << 1;
            }
            0x8 => self.select = value,
            _ => {}
        }
        Ok(())
    }

    /// Reads `register` of the selected AP `count` times; the answers are those that posted reads give:
    /// each that of the read before, the last one waiting in RDBUFF.
    pub fn read_ap(&mut self, register: u8, count: usize) -> Result<Vec<u32>, Nack> {
        let mut answers = vec![self.read_buffer];
        if self.is_fast_block(register, count) {
            self.begin_ap_transfers(count)?;
            answers.extend(self.or_fault(|port| port.bus.read_words(port.address, count))?);
            self.advance(4 * count);
        } else {
            for _ in 0..count {
                self.begin_ap_transfers(1)?;
                answers.push(self.read_ap_register(register)?);
            }
        }
        self.read_buffer = answers.pop().expect("it was made with one element");
        Ok(answers)
    }

    /// Writes `values` to `register` of the selected AP, one after the other.
    pub fn write_ap(&mut self, register: u8, values: &[u32]) -> Result<(), Nack> {
        if self.is_fast_block(register, values.len()) {
            self.begin_ap_transfers(values.len())?;
            self.or_fault(|port| port.bus.write_words(port.address, values))?;
            self.advance(4 * values.len());
            return Ok(());
        }
        for value in values {
            self.begin_ap_transfers(1)?;
            self.write_ap_register(register, *value)?;
        }
        Ok(())
    }

    /// Looks at flash from outside, not through the wire.
    pub fn x_ray(&mut self, length: u32) -> io::Result<Vec<u8>> {
        self.outliving_lockup(|port| port.bus.core.chip.memory().read_block(FLASH.start, length as usize))
    }

    /// The emulator may die of its firmware at any moment; a chip does not.
    fn outliving_lockup<T>(&mut self, access: impl Fn(&mut Self) -> io::Result<T>) -> io::Result<T> {
        match access(self) {
            Err(error) if is_gone(&error) => {
                self.bus.core.lock_up(&error)?;
                access(self)
            }
            result => result,
        }
    }

    fn transfer(&mut self, reads_dpidr: bool) -> Result<(), Nack> {
        self.use_cable(1)?;
        if self.wire.answers(reads_dpidr) { Ok(()) } else { Err(Nack::NoAnswer) }
    }

    fn begin_ap_transfers(&mut self, count: usize) -> Result<(), Nack> {
        self.use_cable(count as u64 - 1)?;
        self.transfer(false)?;
        if self.control & POWERED_UP != POWERED_UP {
            self.control |= STICKY_ERROR;
        }
        if self.control & STICKY == 0 { Ok(()) } else { Err(Nack::Fault) }
    }

    fn use_cable(&mut self, transfers: u64) -> Result<(), Nack> {
        let Some(left) = &mut self.transfers_left else { return Ok(()) };
        match left.checked_sub(transfers) {
            Some(rest) => *left = rest,
            None => {
                *left = 0;
                return Err(Nack::NoAnswer);
            }
        }
        Ok(())
    }

    fn ap_register(&self, register: u8) -> u32 {
        self.select & 0xf0 | u32::from(register)
    }

    fn is_memory_ap(&self) -> bool {
        self.select >> 24 == 0
    }

    fn read_ap_register(&mut self, register: u8) -> Result<u32, Nack> {
        if !self.is_memory_ap() {
            return Ok(0);
        }
        Ok(match self.ap_register(register) {
            CSW => 0x4300_0040 | u32::from(self.increments) << 4 | self.transfer_size.trailing_zeros(),
            TAR => self.address,
            DRW => {
                let value = self.or_fault(|port| port.bus.read(port.address, port.transfer_size))?;
                self.advance(self.transfer_size as usize);
                value
            }
            banked @ BANKED_FIRST..=BANKED_LAST => {
                self.or_fault(|port| port.bus.read(port.address & !0xf | banked & 0xf, 4))?
            }
            0xF8 => 0xF000_0003, // BASE: the ROM table
            0xFC => 0x0477_0021, // IDR: an AHB-AP
            _ => 0,
        })
    }

    fn write_ap_register(&mut self, register: u8, value: u32) -> Result<(), Nack> {
        if !self.is_memory_ap() {
            return Ok(());
        }
        match self.ap_register(register) {
            CSW => {
                self.transfer_size = 1 << (value & 7).min(2);
                self.increments = value >> 4 & 3 == 1;
            }
            TAR => self.address = value,
            DRW => {
                self.or_fault(|port| port.bus.write(port.address, port.transfer_size, value))?;
                self.advance(self.transfer_size as usize);
            }
            banked @ BANKED_FIRST..=BANKED_LAST => {
                self.or_fault(|port| port.bus.write(port.address & !0xf | banked & 0xf, 4, value))?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether the transfers may go to the bus as one: words of plain memory, within one increment window,
    /// with the cable certain to stay on.
    fn is_fast_block(&self, register: u8, count: usize) -> bool {
        let left_in_window = (INCREMENT_WINDOW - self.address % INCREMENT_WINDOW) as usize;
        count > 1
            && self.is_memory_ap()
            && self.ap_register(register) == DRW
            && self.transfer_size == 4
            && self.increments
            && self.address.is_multiple_of(4)
            && 4 * count <= left_in_window
            && Bus::is_plain_memory(self.address)
            && self.transfers_left.is_none_or(|left| left > count as u64)
    }

    fn advance(&mut self, bytes: usize) {
        if self.increments {
            let page = self.address - self.address % INCREMENT_WINDOW;
            self.address = page | ((self.address as usize + bytes) % INCREMENT_WINDOW as usize) as u32;
        }
    }

    /// A bus error sets the sticky flag: this and all later accesses fault until the host clears it.
    fn or_fault<T>(&mut self, access: impl Fn(&mut Self) -> io::Result<T>) -> Result<T, Nack> {
        self.outliving_lockup(access).map_err(|error| {
            tracing::debug!(%error, address = format_args!("{:#010x}", self.address), "bus error");
            self.control |= STICKY_ERROR;
            Nack::Fault
        })
    }
}
