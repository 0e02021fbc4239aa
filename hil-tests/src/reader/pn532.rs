//! The PN532's commands (user manual UM0701-02, section 7): parameters in, parameters out. Knows nothing of
//! frames and ports.

use std::collections::HashMap;

use super::{field::Field, ntag::Answer};

const DIAGNOSE: u8 = 0x00;
const GET_FIRMWARE_VERSION: u8 = 0x02;
const GET_GENERAL_STATUS: u8 = 0x04;
const READ_REGISTER: u8 = 0x06;
const WRITE_REGISTER: u8 = 0x08;
const SET_PARAMETERS: u8 = 0x12;
const SAM_CONFIGURATION: u8 = 0x14;
/// PowerDown: the chip sleeps until its line wakes it.
pub const POWER_DOWN: u8 = 0x16;
const RF_CONFIGURATION: u8 = 0x32;
/// InDataExchange: a command to the selected tag.
pub const IN_DATA_EXCHANGE: u8 = 0x40;
/// InCommunicateThru: bytes to the selected tag as they are.
pub const IN_COMMUNICATE_THRU: u8 = 0x42;
const IN_DESELECT: u8 = 0x44;
/// InListPassiveTarget: searches the field.
pub const IN_LIST_PASSIVE_TARGET: u8 = 0x4A;
const IN_RELEASE: u8 = 0x52;

// Registers CIU_TxMode and CIU_RxMode; bit 7 lets the chip make and check the CRC.
const TX_MODE: u16 = 0x6302;
const RX_MODE: u16 = 0x6303;
const CRC_ENABLED: u8 = 0x80;

const STATUS_OK: u8 = 0x00;
const STATUS_TIMEOUT: u8 = 0x01;
const STATUS_CRC: u8 = 0x02;
const STATUS_FRAMING: u8 = 0x13;
const STATUS_AUTHENTICATION: u8 = 0x14;
const STATUS_CONTEXT: u8 = 0x27;

/// What the chip does with a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Answers with these parameters.
    Parameters(Vec<u8>),
    /// Does not know the command, or not with these parameters.
    SyntaxError,
    /// Searches the field until a tag comes or the host speaks.
    Searching,
}

/// The chip.
#[derive(Debug)]
pub struct Pn532 {
    registers: HashMap<u16, u8>,
    /// Searches of the field before it gives up; 0xFF for ever.
    retries: u8,
    selected: bool,
}

impl Default for Pn532 {
    fn default() -> Self {
        let registers = HashMap::from([(TX_MODE, CRC_ENABLED), (RX_MODE, CRC_ENABLED)]);
        Self { registers, retries: 0xFF, selected: false }
    }
}

impl Pn532 {
    /// Executes one command.
    pub fn execute(&mut self, field: &mut Field, code: u8, parameters: &[u8]) -> Reply {
        let answer = match (code, parameters) {
            // Communication line test: the host's bytes come back.
            (DIAGNOSE, [0x00, ..]) => parameters.to_vec(),
            (DIAGNOSE, [0x01 | 0x02, ..]) => vec![STATUS_OK],
            (DIAGNOSE, [0x06, ..]) => vec![if self.selected { STATUS_OK } else { STATUS_CONTEXT }],
            (GET_FIRMWARE_VERSION, []) => vec![0x32, 0x01, 0x06, 0x07],
            (GET_GENERAL_STATUS, []) => self.general_status(),
            (READ_REGISTER, registers) => self.read_registers(registers),
            (WRITE_REGISTER, registers) => self.write_registers(registers),
            (SET_PARAMETERS, [_]) | (SAM_CONFIGURATION, [_, ..]) => vec![],
            (RF_CONFIGURATION, [item, values @ ..]) => self.configure(field, *item, values),
            (IN_LIST_PASSIVE_TARGET, [1 | 2, modulation @ 0..=4, ..]) => {
                return self.search(field, *modulation);
            }
            (IN_DATA_EXCHANGE, [target, frame @ ..]) => self.exchange(field, *target, frame),
            (IN_COMMUNICATE_THRU, frame) => self.communicate(field, frame),
            (IN_DESELECT | IN_RELEASE, [_]) => {
                self.deselect(field);
                vec![STATUS_OK]
            }
            (POWER_DOWN, [_, ..]) => {
                self.selected = false;
                field.switch(false);
                vec![STATUS_OK]
            }
            _ => return Reply::SyntaxError,
        };
        Reply::Parameters(answer)
    }

    fn general_status(&self) -> Vec<u8> {
        // Last error, external field, targets (each: number, two rates, modulation), SAM.
        let targets: &[u8] = if self.selected { &[1, 1, 0, 0, 0x10] } else { &[0] };
        [&[0, 0], targets, &[0x80]].concat()
    }

    fn read_registers(&self, addresses: &[u8]) -> Vec<u8> {
        let (addresses, _) = addresses.as_chunks::<2>();
        addresses.iter().map(|address| self.register(u16::from_be_bytes(*address))).collect()
    }

    fn write_registers(&mut self, settings: &[u8]) -> Vec<u8> {
        let (settings, _) = settings.as_chunks::<3>();
        self.registers
            .extend(settings.iter().map(|[high, low, value]| (u16::from_be_bytes([*high, *low]), *value)));
        vec![]
    }

    fn register(&self, address: u16) -> u8 {
        self.registers.get(&address).copied().unwrap_or_default()
    }

    fn configure(&mut self, field: &mut Field, item: u8, values: &[u8]) -> Vec<u8> {
        match (item, values) {
            (0x01, [rf, ..]) => {
                let on = rf & 1 != 0;
                self.selected &= on;
                field.switch(on);
            }
            (0x05, [_, _, passive, ..]) => self.retries = *passive,
            _ => {} // timings
        }
        vec![]
    }

    fn search(&mut self, field: &mut Field, modulation: u8) -> Reply {
        // 0 is ISO 14443-3 type A; the tags of this field know no other.
        let found = if modulation == 0 { field.select() } else { None };
        self.selected = found.is_some();
        match found {
            Some(tag) => {
                self.registers.extend([(TX_MODE, CRC_ENABLED), (RX_MODE, CRC_ENABLED)]);
                let length = u8::try_from(tag.uid.len()).expect("an id has 4 or 7 bytes");
                let mut answer = vec![1, 1, tag.atqa[0], tag.atqa[1], tag.sak, length];
                answer.extend(tag.uid);
                Reply::Parameters(answer)
            }
            None if self.retries == 0xFF => Reply::Searching,
            None => Reply::Parameters(vec![0]),
        }
    }

    fn exchange(&mut self, field: &mut Field, target: u8, frame: &[u8]) -> Vec<u8> {
        if target != 1 || !self.selected {
            return vec![STATUS_CONTEXT];
        }
        if let [0x60 | 0x61, ..] = frame {
            // MIFARE Classic authentication to this command: GET_VERSION cannot go this way.
            field.exchange(&[]);
            return vec![STATUS_AUTHENTICATION];
        }
        match field.exchange(frame) {
            Answer::Silence => vec![STATUS_TIMEOUT],
            Answer::Ack => vec![STATUS_OK],
            Answer::Nak(_) => vec![STATUS_FRAMING],
            Answer::Data(bytes) => [&[STATUS_OK][..], &bytes].concat(),
        }
    }

    fn communicate(&mut self, field: &mut Field, frame: &[u8]) -> Vec<u8> {
        let makes_crc = self.register(TX_MODE) & CRC_ENABLED != 0;
        let checks_crc = self.register(RX_MODE) & CRC_ENABLED != 0;
        let frame = match frame.split_last_chunk::<2>() {
            _ if makes_crc => frame,
            Some((frame, crc)) if *crc == crc_a(frame) => frame,
            _ => return vec![STATUS_TIMEOUT],
        };
        match field.exchange(frame) {
            Answer::Silence => vec![STATUS_TIMEOUT],
            // Four bits without CRC look like a CRC error to a chip that checks it.
            Answer::Ack | Answer::Nak(_) if checks_crc => vec![STATUS_CRC],
            Answer::Ack => vec![STATUS_OK, 0x0A],
            Answer::Nak(code) => vec![STATUS_OK, code],
            Answer::Data(bytes) if checks_crc => [&[STATUS_OK][..], &bytes].concat(),
            Answer::Data(bytes) => [&[STATUS_OK][..], &bytes, &crc_a(&bytes)].concat(),
        }
    }

    fn deselect(&mut self, field: &mut Field) {
        if self.selected {
            field.exchange(&[0x50, 0x00]); // HLTA
        }
        self.selected = false;
    }
}

/// CRC_A of ISO/IEC 14443-3, annex B.
fn crc_a(bytes: &[u8]) -> [u8; 2] {
    let crc = bytes.iter().fold(0x6363_u16, |crc, byte| {
        let [low, _] = crc.to_le_bytes();
        let mut mixed = byte ^ low;
        mixed ^= mixed << 4;
        let mixed = u16::from(mixed);
        (crc >> 8) ^ (mixed << 8) ^ (mixed << 3) ^ (mixed >> 4)
    });
    crc.to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reader::ntag::{Kind, Tag, TagFaults};

    fn placed() -> Field {
        let mut field = Field::default();
        field.place(Tag::new(Kind::Ntag213, [4, 1, 2, 3, 4, 5, 6], false, TagFaults::default()));
        field
    }

    #[test]
    fn crc_a_is_that_of_the_standard() {
        assert_eq!(crc_a(&[0x00, 0x00]), [0xA0, 0x1E]);
        assert_eq!(crc_a(&[0x12, 0x34]), [0x26, 0xCF]);
    }

    #[test]
    fn a_chip_that_may_not_wait_says_that_there_is_no_tag() {
        let (mut chip, mut field) = (Pn532::default(), Field::default());
        assert_eq!(chip.execute(&mut field, IN_LIST_PASSIVE_TARGET, &[1, 0]), Reply::Searching);
        chip.execute(&mut field, RF_CONFIGURATION, &[0x05, 0x00, 0x01, 0x02]);
        assert_eq!(chip.execute(&mut field, IN_LIST_PASSIVE_TARGET, &[1, 0]), Reply::Parameters(vec![0]));
    }

    #[test]
    fn without_field_the_tag_has_to_be_selected_again() {
        let (mut chip, mut field) = (Pn532::default(), placed());
        let read = [1, 0x30, 0];
        let found = vec![1, 1, 0x00, 0x44, 0x00, 7, 4, 1, 2, 3, 4, 5, 6];
        assert_eq!(chip.execute(&mut field, IN_LIST_PASSIVE_TARGET, &[1, 0]), Reply::Parameters(found));
        chip.execute(&mut field, RF_CONFIGURATION, &[0x01, 0x00]);
        chip.execute(&mut field, RF_CONFIGURATION, &[0x01, 0x01]);
        assert_eq!(
            chip.execute(&mut field, IN_DATA_EXCHANGE, &read),
            Reply::Parameters(vec![STATUS_CONTEXT])
        );
    }
}
