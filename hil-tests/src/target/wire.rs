//! The two-wire line below the debug port: which protocol it speaks, and whether a line reset was seen
//! (ARM IHI 0031, chapter B5). Knows nothing of registers.

/// A line that has just been powered: it speaks JTAG until told otherwise.
#[derive(Debug, Default)]
pub struct Wire {
    protocol: Protocol,
    consecutive_ones: u32,
    last_bits: u16,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    #[default]
    Jtag,
    /// After a line reset only a read of DPIDR is answered.
    SwdReset,
    Swd,
}

const LINE_RESET_BITS: u32 = 50;
/// Sent least significant bit first.
const JTAG_TO_SWD: u16 = 0xE79E;
const SWD_TO_JTAG: u16 = 0xE73C;

impl Wire {
    /// Clocks `count` bits through the line, least significant first.
    pub fn sequence(&mut self, bits: u32, count: u32) {
        for index in 0..count {
            self.bit(bits >> index & 1 == 1);
        }
    }

    fn bit(&mut self, high: bool) {
        self.last_bits = self.last_bits >> 1 | u16::from(high) << 15;
        self.consecutive_ones = if high { self.consecutive_ones + 1 } else { 0 };
        if self.consecutive_ones >= LINE_RESET_BITS && self.protocol == Protocol::Swd {
            self.protocol = Protocol::SwdReset;
        }
        match self.last_bits {
            JTAG_TO_SWD => self.protocol = Protocol::SwdReset,
            SWD_TO_JTAG => self.protocol = Protocol::Jtag,
            _ => {}
        }
    }

    /// Whether a transfer that begins now would be acknowledged.
    pub fn answers(&mut self, reads_dpidr: bool) -> bool {
        if self.protocol == Protocol::SwdReset && reads_dpidr {
            self.protocol = Protocol::Swd;
        }
        self.protocol == Protocol::Swd
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line_reset(wire: &mut Wire) {
        wire.sequence(!0, 32);
        wire.sequence(!0, 32);
        wire.sequence(0, 2);
    }

    #[test]
    fn a_fresh_line_answers_only_after_the_switch_to_swd_and_a_read_of_dpidr() {
        let mut wire = Wire::default();
        assert!(!wire.answers(true));
        line_reset(&mut wire);
        assert!(!wire.answers(true));
        wire.sequence(JTAG_TO_SWD.into(), 16);
        line_reset(&mut wire);
        assert!(!wire.answers(false));
        assert!(wire.answers(true));
        assert!(wire.answers(false));
    }

    #[test]
    fn a_line_reset_silences_the_line_until_dpidr_is_read() {
        let mut wire = Wire::default();
        wire.sequence(JTAG_TO_SWD.into(), 16);
        assert!(wire.answers(true));
        line_reset(&mut wire);
        assert!(!wire.answers(false));
        assert!(wire.answers(true));
    }
}
