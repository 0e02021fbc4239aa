//! What the light chip's core finds at which address: memories, the flash controller, the UART, the pins (nRF51
//! series reference manual, chapters 5, 6, 14 and 29). Says how long the real parts take.

use std::{collections::VecDeque, ops::Range, time::Duration};

use serde::{Deserialize, Serialize};

use crate::target::chip::{FLASH, NVMC_CONFIG, RAM, UICR};

/// How long a board takes for what it does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Pace {
    /// To erase a page of flash, or all of it.
    pub erase: Duration,
    /// To write a word of flash.
    pub write: Duration,
    /// From a reset to its firmware's first word.
    pub boot: Duration,
    /// To sample its rail, the longest part of its self-test.
    pub self_test: Duration,
}

/// Memories, peripherals, and the time that they owe.
pub struct Map {
    flash: Vec<u8>,
    ram: Vec<u8>,
    uicr: Vec<u8>,
    pins: u32,
    nvmc: u32,
    received: VecDeque<u8>,
    has_received: bool,
    has_sent: bool,
    sent: Vec<u8>,
    pace: Pace,
    owed: Duration,
    reset: bool,
}

const PAGE: usize = 0x400;
const FICR: Range<u32> = 0x1000_0000..0x1000_0100;
const NVMC_READY: u32 = 0x4001_E400;
const NVMC_ERASE_PAGE: u32 = 0x4001_E508;
const NVMC_ERASE_ALL: u32 = 0x4001_E50C;
const NVMC_ERASE_UICR: u32 = 0x4001_E514;
const WRITES: u32 = 1;
const ERASES: u32 = 2;
const UART_RXDRDY: u32 = 0x4000_2108;
const UART_TXDRDY: u32 = 0x4000_211C;
const UART_RXD: u32 = 0x4000_2518;
const UART_TXD: u32 = 0x4000_251C;
const GPIO_IN: u32 = 0x5000_0510;
const AIRCR: u32 = 0xE000_ED0C;
const AIRCR_RESET: u32 = 0x05FA_0004;
const PERIPHERALS: Range<u32> = 0x4000_0000..0x4002_0000;
const GPIO: Range<u32> = 0x5000_0000..0x5000_1000;
const SYSTEM: Range<u32> = 0xE000_E000..0xE000_F000;

impl Map {
    /// A chip that was powered just now.
    pub fn new(pace: Pace) -> Self {
        Self {
            flash: vec![0xff; FLASH.len()],
            ram: vec![0; RAM.len()],
            uicr: vec![0xff; UICR.len()],
            pins: 0,
            nvmc: 0,
            received: VecDeque::new(),
            has_received: false,
            has_sent: false,
            sent: Vec::new(),
            pace,
            owed: Duration::ZERO,
            reset: false,
        }
    }

    /// The peripherals as after a reset; the memories stay.
    pub fn reset(&mut self) {
        (self.nvmc, self.has_received, self.has_sent) = (0, false, false);
        self.received.clear();
        self.sent.clear();
        self.owed = self.pace.boot;
    }

    /// Whether a reset was asked for, once.
    pub fn takes_reset(&mut self) -> bool {
        std::mem::take(&mut self.reset)
    }

    /// How long the parts need for what they were told to do, once.
    pub fn takes_time(&mut self) -> Duration {
        std::mem::take(&mut self.owed)
    }

    /// What is still owed.
    pub fn owed(&self) -> Duration {
        self.owed
    }

    /// What the UART has to say, once.
    pub fn says(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.sent)
    }

    /// Bytes come to the UART.
    pub fn hears(&mut self, bytes: &[u8]) {
        self.received.extend(bytes);
        self.has_received = true;
    }

    /// Whether something waits that ends a WFI.
    pub fn is_pending(&self) -> bool {
        self.has_received
    }

    /// Drives a pin from outside.
    pub fn drive_pin(&mut self, pin: u32, high: bool) {
        self.pins = self.pins & !(1 << pin) | u32::from(high) << pin;
    }

    /// Reads `size` bytes; `None` where nothing is, and off their boundary.
    pub fn read(&mut self, address: u32, size: u32) -> Option<u32> {
        if !address.is_multiple_of(size) {
            return None;
        }
        if let Some(bytes) = self.memory(address, size as usize) {
            return Some(bytes.iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte)));
        }
        match address {
            NVMC_READY => Some(1),
            NVMC_CONFIG => Some(self.nvmc),
            UART_RXDRDY => Some(self.has_received.into()),
            UART_TXDRDY => Some(self.has_sent.into()),
            UART_RXD => {
                let byte = self.received.pop_front().unwrap_or_default();
                self.has_received = !self.received.is_empty();
                Some(byte.into())
            }
            GPIO_IN => {
                self.owed += self.pace.self_test;
                Some(self.pins)
            }
            _ if FICR.contains(&address) => Some(match address - FICR.start {
                0x10 => PAGE as u32,
                0x14 => (FLASH.len() / PAGE) as u32,
                _ => !0,
            }),
            _ if is_device(address) => Some(0),
            _ => None,
        }
    }

    /// Writes `size` bytes; `None` where nothing is, and off their boundary.
    pub fn write(&mut self, address: u32, size: u32, value: u32) -> Option<()> {
        if !address.is_multiple_of(size) {
            return None;
        }
        let in_flash = FLASH.contains(&address) || UICR.contains(&address);
        if in_flash && self.nvmc != WRITES {
            return Some(());
        }
        if let Some(bytes) = self.memory(address, size as usize) {
            for (byte, new) in bytes.iter_mut().zip(value.to_le_bytes()) {
                *byte = if in_flash { *byte & new } else { new };
            }
            if in_flash {
                self.owed += self.pace.write;
            }
            return Some(());
        }
        match address {
            NVMC_CONFIG => self.nvmc = value,
            NVMC_ERASE_PAGE if self.nvmc == ERASES && FLASH.contains(&value) => {
                let page = value as usize / PAGE * PAGE;
                self.flash[page..page + PAGE].fill(0xff);
                self.owed += self.pace.erase;
            }
            NVMC_ERASE_ALL if self.nvmc == ERASES && value == 1 => {
                self.flash.fill(0xff);
                self.uicr.fill(0xff);
                self.owed += self.pace.erase;
            }
            NVMC_ERASE_UICR if self.nvmc == ERASES && value == 1 => {
                self.uicr.fill(0xff);
                self.owed += self.pace.erase;
            }
            UART_RXDRDY => self.has_received = value != 0,
            UART_TXDRDY => self.has_sent = value != 0,
            UART_TXD => {
                self.sent.push(value.to_le_bytes()[0]);
                self.has_sent = true;
            }
            AIRCR if value == AIRCR_RESET => self.reset = true,
            _ if is_device(address) => {}
            _ => return None,
        }
        Some(())
    }

    /// Reads plain memory.
    pub fn read_block(&mut self, address: u32, length: usize) -> Option<Vec<u8>> {
        self.memory(address, length).map(|bytes| bytes.to_vec())
    }

    fn memory(&mut self, address: u32, length: usize) -> Option<&mut [u8]> {
        let memories = [(FLASH, &mut self.flash), (RAM, &mut self.ram), (UICR, &mut self.uicr)];
        let (range, bytes) = memories.into_iter().find(|(range, _)| range.contains(&address))?;
        let start = (address - range.start) as usize;
        bytes.get_mut(start..start + length)
    }
}

fn is_device(address: u32) -> bool {
    PERIPHERALS.contains(&address) || GPIO.contains(&address) || SYSTEM.contains(&address)
}
