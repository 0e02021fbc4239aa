//! The frames between host and PN532 (user manual UM0701-02, section 6.2.1): bytes in, frames out.

/// The chip has understood a frame.
pub const ACK: [u8; 6] = [0x00, 0x00, 0xFF, 0x00, 0xFF, 0x00];
/// The chip has not.
pub const ERROR: [u8; 8] = [0x00, 0x00, 0xFF, 0x01, 0xFF, 0x7F, 0x81, 0x00];

const START: [u8; 2] = [0x00, 0xFF];
const FROM_HOST: u8 = 0xD4;
const TO_HOST: u8 = 0xD5;
// The longest extended frame holds 265 bytes; a host that sends more without a frame in it sends noise.
const LONGEST: usize = 1024;

/// What the host sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostFrame {
    /// Understood; or, to a chip that is at work, "abandon it".
    Ack,
    /// Please repeat.
    Nack,
    /// A command with its parameters.
    Command {
        /// Which command.
        code: u8,
        /// What follows it.
        parameters: Vec<u8>,
    },
    /// A frame with a wrong checksum or direction.
    Broken,
}

/// Finds the host's frames in its bytes, however they are cut.
#[derive(Debug, Default)]
pub struct Decoder {
    bytes: Vec<u8>,
}

impl Decoder {
    /// Adds what came in.
    pub fn push(&mut self, byte: u8) {
        self.bytes.push(byte);
    }

    /// Takes the next whole frame; `None` until more bytes come.
    pub fn next_frame(&mut self) -> Option<HostFrame> {
        match parse(&self.bytes) {
            Some((frame, used)) => {
                self.bytes.drain(..used);
                Some(frame)
            }
            None => {
                if self.bytes.len() > LONGEST {
                    self.bytes.clear();
                }
                None
            }
        }
    }
}

/// The first frame of `bytes` and where it ends.
fn parse(bytes: &[u8]) -> Option<(HostFrame, usize)> {
    let head = bytes.windows(START.len()).position(|window| window == START)? + START.len();
    let (length, start) = match *bytes.get(head..)? {
        [0x00, 0xFF, ..] => return Some((HostFrame::Ack, head + 2)),
        [0xFF, 0x00, ..] => return Some((HostFrame::Nack, head + 2)),
        [0xFF, 0xFF, high, low, check, ..] if sum(&[high, low, check]) == 0 => {
            (usize::from(u16::from_be_bytes([high, low])), head + 5)
        }
        [0xFF, 0xFF] | [0xFF, 0xFF, _] | [0xFF, 0xFF, _, _] | [] | [_] => return None,
        [length, check, ..] if sum(&[length, check]) == 0 => (usize::from(length), head + 2),
        _ => return Some((HostFrame::Broken, head)),
    };
    let end = start + length + 1;
    let body = bytes.get(start..end)?;
    let frame = match body {
        [FROM_HOST, code, parameters @ .., _] if sum(body) == 0 => {
            HostFrame::Command { code: *code, parameters: parameters.to_vec() }
        }
        _ => HostFrame::Broken,
    };
    Some((frame, end))
}

/// The frame that answers command `code` with `parameters`.
pub fn answer(code: u8, parameters: &[u8]) -> Vec<u8> {
    let mut body = vec![TO_HOST, code.wrapping_add(1)];
    body.extend_from_slice(parameters);

    let mut frame = vec![0x00, 0x00, 0xFF];
    match u8::try_from(body.len()) {
        Ok(length) => frame.extend([length, length.wrapping_neg()]),
        Err(_) => {
            let [high, low] = u16::try_from(body.len()).expect("answers are short").to_be_bytes();
            frame.extend([0xFF, 0xFF, high, low, sum(&[high, low]).wrapping_neg()]);
        }
    }
    frame.extend_from_slice(&body);
    frame.extend([sum(&body).wrapping_neg(), 0x00]);
    frame
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    // GetFirmwareVersion, from the user manual, section 7.2.2.
    const GET_FIRMWARE: [u8; 9] = [0x00, 0x00, 0xFF, 0x02, 0xFE, 0xD4, 0x02, 0x2A, 0x00];

    fn frames(bytes: &[u8]) -> Vec<HostFrame> {
        let mut decoder = Decoder::default();
        let hear = |byte: &u8| {
            decoder.push(*byte);
            decoder.next_frame()
        };
        bytes.iter().filter_map(hear).collect()
    }

    #[test]
    fn a_frame_is_found_behind_whatever_precedes_it() {
        let command = HostFrame::Command { code: 0x02, parameters: vec![] };
        assert_eq!(frames(&GET_FIRMWARE), std::slice::from_ref(&command));
        let bytes = [&[0x55, 0x55, 0x00][..], &ACK, &GET_FIRMWARE, &GET_FIRMWARE].concat();
        assert_eq!(frames(&bytes), [HostFrame::Ack, command.clone(), command]);
    }

    #[test]
    fn a_wrong_checksum_is_broken() {
        let mut bytes = GET_FIRMWARE;
        bytes[7] ^= 1;
        assert_eq!(frames(&bytes), [HostFrame::Broken]);
    }

    #[test]
    fn an_answer_is_framed_as_the_manual_says() {
        let expected = [0x00, 0x00, 0xFF, 0x06, 0xFA, 0xD5, 0x03, 0x32, 0x01, 0x06, 0x07, 0xE8, 0x00];
        assert_eq!(answer(0x02, &[0x32, 0x01, 0x06, 0x07]), expected);
    }

    proptest! {
        #[test]
        fn no_bytes_upset_the_decoder(bytes in prop::collection::vec(prop_oneof![Just(0u8), Just(0xFF), any::<u8>()], 0..400)) {
            frames(&bytes);
        }
    }
}
