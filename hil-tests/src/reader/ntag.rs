//! An NTAG213, 215 or 216 in the field (NXP data sheet rev. 3.2): its memory, its lock bits, its wear. Takes
//! ISO 14443-3 frames without their CRC; knows nothing of readers.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// Bytes in a page.
pub const PAGE: usize = 4;
/// What the tag acknowledges with, in four bits.
const NAK_ARGUMENT: u8 = 0x0;

/// Which tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// 144 bytes.
    Ntag213,
    /// 504 bytes.
    Ntag215,
    /// 888 bytes.
    Ntag216,
    /// A MIFARE Classic 1K that found its way to the wrong line: selectable, and deaf to Type 2 commands.
    MifareClassic,
}

impl Kind {
    /// Number of pages; the last five are lock bytes, configuration (two), password and PACK.
    fn pages(self) -> usize {
        match self {
            Self::Ntag213 => 45,
            Self::Ntag215 => 135,
            Self::Ntag216 => 231,
            Self::MifareClassic => 0,
        }
    }

    /// Size byte of the capability container.
    fn area(self) -> u8 {
        match self {
            Self::Ntag213 => 0x12,
            Self::Ntag215 => 0x3E,
            _ => 0x6D,
        }
    }

    /// Storage byte of GET_VERSION.
    fn storage(self) -> u8 {
        match self {
            Self::Ntag213 => 0x0F,
            Self::Ntag215 => 0x11,
            _ => 0x13,
        }
    }

    /// Answers to REQA (as a PN532 reports it) and SELECT.
    pub fn atqa_sak(self) -> ([u8; 2], u8) {
        match self {
            Self::MifareClassic => ([0x00, 0x44], 0x08),
            _ => ([0x00, 0x44], 0x00),
        }
    }
}

/// What is wrong with a tag.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct TagFaults {
    /// These pages hold what was written only as long as the tag has power.
    pub worn: BTreeSet<u8>,
    /// These pages refuse a write.
    pub refuses: BTreeSet<u8>,
    /// The tag leaves while it programs this page: half of it is stored, no answer. Once.
    pub tear_at: Option<u8>,
    /// The tag leaves before it hears the write to this page. Once.
    pub leave_before: Option<u8>,
}

/// What comes back through the air.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nothing.
    Silence,
    /// Four bits, 0xA.
    Ack,
    /// Four bits that say no.
    Nak(u8),
    /// Bytes with a CRC.
    Data(Vec<u8>),
}

/// A tag.
#[derive(Clone, Debug)]
pub struct Tag {
    kind: Kind,
    uid: [u8; 7],
    pages: Vec<[u8; PAGE]>,
    faults: TagFaults,
    /// What worn pages fall back to.
    fading: Vec<(usize, [u8; PAGE])>,
    writes: usize,
    present: bool,
    active: bool,
}

impl Tag {
    /// A tag as it leaves the factory, or with all its lock bits set.
    pub fn new(kind: Kind, uid: [u8; 7], locked: bool, faults: TagFaults) -> Self {
        let mut pages = vec![[0; PAGE]; kind.pages()];
        if let [.., dynamic_lock, config_0, config_1, _, _] = &mut pages[..] {
            *dynamic_lock = if locked { [0xFF, 0xFF, 0xFF, 0xBD] } else { [0, 0, 0, 0xBD] };
            *config_0 = [0x04, 0x00, 0x00, 0xFF];
            *config_1 = [0x00, 0x05, 0x00, 0x00];
        }
        if let [first, second, third, container, data, more, ..] = &mut pages[..] {
            let [a, b, c, d, e, f, g] = uid;
            *first = [a, b, c, 0x88 ^ a ^ b ^ c];
            *second = [d, e, f, g];
            *third = [d ^ e ^ f ^ g, 0x48, 0, 0];
            *container = [0xE1, 0x10, kind.area(), 0x00];
            if locked {
                third[2..].fill(0xFF);
                container[3] = 0x0F;
            }
            (*data, *more) = match kind {
                // Lock Control TLV: 12 lock bits at byte 160, 8 bytes each; then the empty message.
                Kind::Ntag213 => ([0x01, 0x03, 0xA0, 0x0C], [0x34, 0x03, 0x00, 0xFE]),
                _ => ([0x03, 0x00, 0xFE, 0x00], [0; PAGE]),
            };
        }
        Self { kind, uid, pages, faults, fading: Vec::new(), writes: 0, present: true, active: false }
    }

    /// Which tag it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Its unique id.
    pub fn uid(&self) -> &[u8] {
        &self.uid
    }

    /// Its memory.
    pub fn pages(&self) -> &[[u8; PAGE]] {
        &self.pages
    }

    /// Writes that came as far as its memory.
    pub fn writes(&self) -> usize {
        self.writes
    }

    /// The field is off, or the tag out of it: it forgets that it was selected.
    pub fn lose_power(&mut self) {
        self.active = false;
        for (at, data) in self.fading.drain(..).rev() {
            self.pages[at] = data;
        }
    }

    /// Out of the field, or back in it.
    pub fn set_present(&mut self, present: bool) {
        self.present = present;
        self.lose_power();
    }

    /// Whether it is in the field.
    pub fn is_present(&self) -> bool {
        self.present
    }

    /// REQA, anticollision and SELECT; heard only in the field.
    pub fn select(&mut self) {
        self.active = self.present;
    }

    /// One command to the selected tag.
    pub fn command(&mut self, frame: &[u8]) -> Answer {
        if !self.active || self.kind == Kind::MifareClassic {
            return Answer::Silence;
        }
        let answer = match *frame {
            [0x30, page] => self.read(page),
            [0x3A, first, last] => self.fast_read(first, last),
            [0xA2, page, a, b, c, d] => self.write(page, [a, b, c, d]),
            [0x60] => Answer::Data(vec![0x00, 0x04, 0x04, 0x02, 0x01, 0x00, self.kind.storage(), 0x03]),
            [0x50, 0x00] => Answer::Silence, // HLTA
            _ => Answer::Nak(NAK_ARGUMENT),
        };
        if matches!(answer, Answer::Nak(_) | Answer::Silence) {
            self.active = false;
        }
        answer
    }

    /// Four pages; behind the last comes the first.
    fn read(&self, page: u8) -> Answer {
        if usize::from(page) >= self.pages.len() {
            return Answer::Nak(NAK_ARGUMENT);
        }
        let pages = self.readable().cycle().skip(usize::from(page)).take(4);
        Answer::Data(pages.flatten().collect())
    }

    fn fast_read(&self, first: u8, last: u8) -> Answer {
        let (first, last) = (usize::from(first), usize::from(last));
        if first > last || last >= self.pages.len() {
            return Answer::Nak(NAK_ARGUMENT);
        }
        Answer::Data(self.readable().skip(first).take(last - first + 1).flatten().collect())
    }

    /// All pages as a reader sees them: password and PACK read as zero.
    fn readable(&self) -> impl Iterator<Item = [u8; PAGE]> + Clone + '_ {
        let secret = self.pages.len() - 2;
        self.pages.iter().enumerate().map(move |(page, data)| if page < secret { *data } else { [0; PAGE] })
    }

    fn write(&mut self, page: u8, data: [u8; PAGE]) -> Answer {
        if self.faults.leave_before == Some(page) {
            self.faults.leave_before = None;
            self.set_present(false);
            return Answer::Silence;
        }
        let at = usize::from(page);
        if at < 2 || at >= self.pages.len() || self.locked(at) || self.faults.refuses.contains(&page) {
            return Answer::Nak(NAK_ARGUMENT);
        }
        self.writes += 1;
        if self.faults.tear_at == Some(page) {
            self.faults.tear_at = None;
            self.pages[at][..2].copy_from_slice(&data[..2]);
            self.set_present(false);
            return Answer::Silence;
        }
        if self.faults.worn.contains(&page) {
            self.fading.push((at, self.pages[at]));
        }
        self.program(at, data);
        Answer::Ack
    }

    fn program(&mut self, at: usize, data: [u8; PAGE]) {
        // Lock bits and the capability container are one-time programmable: bits are only ever set.
        let set_only = match at {
            2 => 2..4,
            3 => 0..4,
            _ if at == self.dynamic_lock_page() => 0..3,
            _ => {
                self.pages[at] = data;
                return;
            }
        };
        for byte in set_only {
            self.pages[at][byte] |= data[byte];
        }
    }

    fn dynamic_lock_page(&self) -> usize {
        self.pages.len() - 5
    }

    fn locked(&self, at: usize) -> bool {
        let [_, _, low, high] = self.pages[2];
        let dynamic_locks = self.dynamic_lock_page();
        match at {
            3..16 => u16::from_le_bytes([low, high]) & (1 << at) != 0,
            16.. if at < dynamic_locks => {
                let pages_per_bit = if self.kind == Kind::Ntag213 { 2 } else { 16 };
                let bit = (at - 16) / pages_per_bit;
                self.pages[dynamic_locks][bit / 8] & (1 << (bit % 8)) != 0
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selected(locked: bool, faults: TagFaults) -> Tag {
        let mut tag = Tag::new(Kind::Ntag213, [4, 1, 2, 3, 4, 5, 6], locked, faults);
        tag.select();
        tag
    }

    #[test]
    fn a_fresh_ntag213_is_that_of_the_data_sheet() {
        let Answer::Data(first) = selected(false, TagFaults::default()).command(&[0x30, 2]) else {
            panic!("no data")
        };
        let expected = [0x04, 0x48, 0, 0, 0xE1, 0x10, 0x12, 0, 0x01, 0x03, 0xA0, 0x0C, 0x34, 0x03, 0, 0xFE];
        assert_eq!(first, expected);
    }

    #[test]
    fn a_locked_tag_refuses_every_page_of_its_data() {
        for page in 3..40 {
            let mut tag = selected(true, TagFaults::default());
            assert_eq!(tag.command(&[0xA2, page, 0, 0, 0, 0]), Answer::Nak(0), "page {page}");
            assert_eq!(tag.writes(), 0);
        }
    }

    #[test]
    fn a_torn_page_is_half_written_and_the_tag_is_gone() {
        let mut tag = selected(false, TagFaults { tear_at: Some(8), ..Default::default() });
        assert_eq!(tag.command(&[0xA2, 8, 1, 2, 3, 4]), Answer::Silence);
        assert_eq!(tag.pages()[8], [1, 2, 0, 0]);
        assert!(!tag.is_present());
    }

    #[test]
    fn a_worn_page_forgets_when_the_power_goes() {
        let mut tag = selected(false, TagFaults { worn: [8].into(), ..Default::default() });
        assert_eq!(tag.command(&[0xA2, 8, 1, 2, 3, 4]), Answer::Ack);
        assert_eq!(tag.pages()[8], [1, 2, 3, 4]);
        tag.lose_power();
        assert_eq!(tag.pages()[8], [0; PAGE]);
    }

    #[test]
    fn lock_bits_are_never_cleared() {
        let mut tag = selected(false, TagFaults::default());
        assert_eq!(tag.command(&[0xA2, 2, 0, 0, 0x80, 0]), Answer::Ack);
        assert_eq!(tag.command(&[0xA2, 2, 0, 0, 0, 0]), Answer::Ack);
        assert_eq!(tag.pages()[2], [3 ^ 4 ^ 5 ^ 6, 0x48, 0x80, 0]);
        assert_eq!(tag.command(&[0xA2, 7, 0, 0, 0, 0]), Answer::Nak(0));
    }
}
