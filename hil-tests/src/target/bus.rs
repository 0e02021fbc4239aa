//! What lies where in the nRF51822, as its debug port sees it: memories, factory and user registers,
//! peripherals (nRF51 series reference manual, chapters 5 to 8). Debug registers are the core's.

use std::{io, ops::Range};

use super::{
    chip::{FLASH, NVMC_CONFIG, NVMC_WRITE_ENABLED, RAM, UICR},
    core_debug::CoreDebug,
};

/// A flash cell that cannot hold a one, as the debug port reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct StuckLow {
    /// Of the word, a multiple of four.
    pub address: u32,
    /// The bits that read zero.
    pub mask: u32,
}

/// The chip's bus.
pub struct Bus {
    /// The core and its debug registers.
    pub core: CoreDebug,
    device_id: [u32; 2],
    stuck_low: Vec<StuckLow>,
}

const FICR: Range<u32> = 0x1000_0000..0x1000_0100;
/// The information pages; what is not assigned in them reads erased.
const INFORMATION: Range<u32> = 0x1000_0000..0x1000_2000;
const NVMC: Range<u32> = 0x4001_E000..0x4001_F000;
const PERIPHERALS: Range<u32> = 0x4000_0000..0x4002_0000;
const GPIO: Range<u32> = 0x5000_0000..0x5000_1000;
const SYSTEM_CONTROL: Range<u32> = 0xE000_E000..0xE000_F000;

impl Bus {
    /// `board_id` tells one chip's factory registers from another's (QEMU's are all the same).
    pub fn new(core: CoreDebug, board_id: u32, stuck_low: Vec<StuckLow>) -> Self {
        let device_id = [0xA000_0000_u32.wrapping_add(board_id), 0x5EED_0000_u32.wrapping_add(board_id)];
        Self { core, device_id, stuck_low }
    }

    /// Whether `address` is flash or RAM, where words may be moved in blocks.
    pub fn is_plain_memory(address: u32) -> bool {
        FLASH.contains(&address) || RAM.contains(&address)
    }

    /// Reads the word that holds `address`; the byte lanes stay where they are.
    pub fn read(&mut self, address: u32, size: u32) -> io::Result<u32> {
        if !address.is_multiple_of(size) {
            return Err(io::Error::other(format!("unaligned read at {address:#010x}")));
        }
        let word = address & !3;
        if let Some(value) = self.core.read(word)? {
            return Ok(value);
        }
        match word {
            _ if FLASH.contains(&word) => Ok(self.read_words(word, 1)?[0]),
            _ if RAM.contains(&word) || UICR.contains(&word) => self.core.chip.memory().read_word(word),
            _ if FICR.contains(&word) => Ok(self.factory_register(word)),
            _ if INFORMATION.contains(&word) => Ok(!0),
            _ if is_device(word) => self.core.chip.memory().read_word(word),
            _ => Err(io::Error::other(format!("read of unmapped {address:#010x}"))),
        }
    }

    /// Writes `size` bytes at `address`, taken from their byte lanes of `lanes`.
    pub fn write(&mut self, address: u32, size: u32, lanes: u32) -> io::Result<()> {
        if !address.is_multiple_of(size) {
            return Err(io::Error::other(format!("unaligned write at {address:#010x}")));
        }
        if self.core.write(address & !3, lanes)? {
            return Ok(());
        }
        let value = lanes >> (8 * (address & 3)) & u32::MAX >> (32 - 8 * size);
        match address {
            _ if FLASH.contains(&address) => self.core.chip.flash_memory().write(address, size, value),
            _ if RAM.contains(&address) => self.core.chip.memory().write(address, size, value),
            _ if UICR.contains(&address) => self.write_user_register(address & !3, value),
            _ if INFORMATION.contains(&address) => Ok(()),
            // A write to the flash controller may start an erasure.
            _ if NVMC.contains(&address) => self.core.chip.flash_memory().write(address, size, value),
            _ if is_device(address) => self.core.chip.memory().write(address, size, value),
            _ => Err(io::Error::other(format!("write of unmapped {address:#010x}"))),
        }
    }

    /// Reads words of plain memory.
    pub fn read_words(&mut self, address: u32, count: usize) -> io::Result<Vec<u32>> {
        let bytes = self.core.chip.memory().read_block(address, 4 * count)?;
        let words = bytes.chunks_exact(4).zip((address..).step_by(4)).map(|(bytes, address)| {
            let word = u32::from_le_bytes(bytes.try_into().expect("chunks of four"));
            self.stuck_low
                .iter()
                .filter(|cell| cell.address == address)
                .fold(word, |word, cell| word & !cell.mask)
        });
        Ok(words.collect())
    }

    /// Writes words of plain memory.
    pub fn write_words(&mut self, address: u32, words: &[u32]) -> io::Result<()> {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let chip = &mut self.core.chip;
        let memory = if FLASH.contains(&address) { chip.flash_memory() } else { chip.memory() };
        memory.write_block(address, &bytes)
    }

    /// QEMU lets UICR be overwritten at will; in silicon it is flash, behind the flash controller.
    fn write_user_register(&mut self, address: u32, value: u32) -> io::Result<()> {
        let memory = self.core.chip.memory();
        if memory.read_word(NVMC_CONFIG)? != NVMC_WRITE_ENABLED {
            return Ok(());
        }
        let old = memory.read_word(address)?;
        memory.write_word(address, old & value)
    }

    fn factory_register(&self, address: u32) -> u32 {
        match address - FICR.start {
            0x10 => 0x400, // CODEPAGESIZE
            0x14 => 0x100, // CODESIZE
            0x34 => 2,     // NUMRAMBLOCK
            0x38..=0x40 => 0x2000,
            0x5c => 0x72, // CONFIGID
            0x60 => self.device_id[0],
            0x64 => self.device_id[1],
            _ => !0,
        }
    }
}

fn is_device(address: u32) -> bool {
    PERIPHERALS.contains(&address) || GPIO.contains(&address) || SYSTEM_CONTROL.contains(&address)
}
