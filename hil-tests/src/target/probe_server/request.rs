//! What a host may ask of the probe, cut from its packets. Total: no bytes make it panic, and it holds
//! no more than one batch.

use std::io;

use crate::target::cobs;

/// Where a packet goes, its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Endpoint {
    /// The probe itself.
    Root = 0,
    /// The debug port.
    Swd = 1,
}

/// A request to the probe itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RootRequest {
    Identify,
    ReferenceClock,
    GetDivisor,
    SetDivisor(u16),
    Reset { low: bool },
    Unknown,
}

/// A request to the debug port; registers are 0, 4, 8 or 12.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SwdRequest {
    Sequence { bits: u32, count: u32 },
    ReadDp(u8),
    WriteDp(u8, u32),
    ReadAp(u8),
    WriteAp(u8, u32),
}

impl SwdRequest {
    /// Whether it is answered.
    pub fn is_transfer(&self) -> bool {
        !matches!(self, Self::Sequence { .. })
    }

    /// Whether it may be run together with `first`: the same AP access to the same register, or itself.
    pub fn continues(&self, first: &Self) -> bool {
        match (self, first) {
            (Self::ReadAp(register), Self::ReadAp(other)) => register == other,
            (Self::WriteAp(register, _), Self::WriteAp(other, _)) => register == other,
            _ => std::ptr::eq(self, first),
        }
    }

    /// What it writes to an access port.
    pub fn ap_value(&self) -> Option<u32> {
        match self {
            Self::WriteAp(_, value) => Some(*value),
            _ => None,
        }
    }
}

/// Bytes received and not yet understood.
#[derive(Debug, Default)]
pub struct Requests {
    stuffed: Vec<u8>,
    root: Vec<u8>,
    swd: Vec<u8>,
}

/// The host's batches are a few kilobytes.
const LIMIT: usize = 1 << 20;

impl Requests {
    /// Takes in what the host sent. A host that talks rubbish is an error.
    pub fn receive(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stuffed.extend_from_slice(bytes);
        while let Some(end) = self.stuffed.iter().position(|byte| *byte == 0) {
            let packet = cobs::decode(&self.stuffed[..end]);
            self.stuffed.drain(..=end);
            match packet.as_deref() {
                Some([0, root @ ..]) => self.root.extend_from_slice(root),
                Some([1, swd @ ..]) => self.swd.extend_from_slice(swd),
                _ => return Err(io::Error::other("packet for no endpoint")),
            }
        }
        if self.stuffed.len() + self.root.len() + self.swd.len() > LIMIT {
            return Err(io::Error::other("packet or batch without end"));
        }
        Ok(())
    }

    /// The next request to the probe, once it is whole.
    pub fn next_root(&mut self) -> Option<RootRequest> {
        let (request, length) = match *self.root.as_slice() {
            [0x00, ..] => (RootRequest::Identify, 1),
            [0x10, ..] => (RootRequest::ReferenceClock, 1),
            [0x11, ..] => (RootRequest::GetDivisor, 1),
            [0x12, low, high, ..] => (RootRequest::SetDivisor(u16::from_le_bytes([low, high])), 3),
            [0x12, ..] | [] => return None,
            [0x20, ..] => (RootRequest::Reset { low: true }, 1),
            [0x21, ..] => (RootRequest::Reset { low: false }, 1),
            _ => (RootRequest::Unknown, 1),
        };
        self.root.drain(..length);
        Some(request)
    }

    /// All whole requests to the debug port.
    pub fn take_swd(&mut self) -> Vec<SwdRequest> {
        let mut batch = Vec::new();
        let mut rest = self.swd.as_slice();
        while let Some((request, after)) = parse_swd(rest) {
            batch.push(request);
            rest = after;
        }
        self.swd = rest.to_vec();
        batch
    }
}

fn parse_swd(bytes: &[u8]) -> Option<(SwdRequest, &[u8])> {
    let (&command, rest) = bytes.split_first()?;
    let (is_sequence, is_read, is_ap) = (command & 0x20 != 0, command & 2 != 0, command & 1 != 0);
    let register = command & 0xc;
    if !is_sequence && is_read {
        return Some((if is_ap { SwdRequest::ReadAp(register) } else { SwdRequest::ReadDp(register) }, rest));
    }
    let (word, rest) = rest.split_first_chunk()?;
    let value = u32::from_le_bytes(*word);
    let request = match (is_sequence, is_ap) {
        // Thirty-two does not fit in five bits.
        (true, _) if command & 0x1f == 0 => SwdRequest::Sequence { bits: value, count: 32 },
        (true, _) => SwdRequest::Sequence { bits: value, count: u32::from(command & 0x1f) },
        (false, true) => SwdRequest::WriteAp(register, value),
        (false, false) => SwdRequest::WriteDp(register, value),
    };
    Some((request, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_batch_is_cut_at_its_commands_and_an_unfinished_one_waits() {
        let mut requests = Requests::default();
        let first = [1, 0x20, 1, 0, 0, 0, 0x2a, 2, 0, 0, 0, 0x02, 0x0f, 0x05, 3, 0];
        requests.receive(&cobs::encode(&first)).unwrap();
        assert_eq!(
            requests.take_swd(),
            [
                SwdRequest::Sequence { bits: 1, count: 32 },
                SwdRequest::Sequence { bits: 2, count: 10 },
                SwdRequest::ReadDp(0),
                SwdRequest::ReadAp(0xc),
            ]
        );
        requests.receive(&cobs::encode(&[1, 0, 0])).unwrap();
        assert_eq!(requests.take_swd(), [SwdRequest::WriteAp(4, 3)]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic_or_hoard(bytes: Vec<u8>) {
            let mut requests = Requests::default();
            let _ = requests.receive(&bytes);
            while requests.next_root().is_some() {}
            requests.take_swd();
            prop_assert!(requests.stuffed.len() <= bytes.len());
            prop_assert!(requests.root.len() < 3 && requests.swd.len() < 5);
        }
    }
}
