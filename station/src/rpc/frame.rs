//! A gRPC message as it comes over the wire: five bytes of head, then the message (gRPC over HTTP/2, "Length-Prefixed-
//! Message"). Reads one whole, bounded, and looks at its strings without knowing its type.

use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use tokio::{sync::OwnedSemaphorePermit, time::timeout};
use tonic::{Status, body::Body, codegen::Bytes};

/// One byte that says whether it is compressed, four with its length.
const HEAD: usize = 5;
/// 16 MiB over a line of 10 Mbit/s take 14 s.
const PATIENCE: Duration = Duration::from_secs(30);

/// A message with its head.
pub struct Message {
    bytes: Bytes,
    /// The place of a large one.
    _large: Option<OwnedSemaphorePermit>,
}

/// Why there is no message.
#[derive(Debug)]
pub enum FrameError {
    /// It has, or says that it has, so many bytes.
    TooLarge(usize),
    /// It is large, and there are many large ones.
    TooMany,
    /// It does not come.
    TooSlow,
    /// The connection failed.
    Broken(Status),
}

/// Reads a message of up to `largest` bytes; one of more than `small` needs what `large` gives.
///
/// # Errors
/// It is too large, or does not come.
pub async fn read(
    body: Body,
    small: usize,
    largest: usize,
    large: impl Fn() -> Option<OwnedSemaphorePermit>,
) -> Result<Message, FrameError> {
    timeout(PATIENCE, read_all(body, small, largest, large)).await.unwrap_or(Err(FrameError::TooSlow))
}

async fn read_all(
    mut body: Body,
    small: usize,
    largest: usize,
    large: impl Fn() -> Option<OwnedSemaphorePermit>,
) -> Result<Message, FrameError> {
    let (mut bytes, mut place) = (Vec::new(), None);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(FrameError::Broken)?.into_data() else { continue };
        bytes.extend_from_slice(&data);
        let said = declared(&bytes).unwrap_or(0);
        let length = said.max(bytes.len().saturating_sub(HEAD));
        if length > largest {
            return Err(FrameError::TooLarge(length));
        }
        if length > small && place.is_none() {
            place = Some(large().ok_or(FrameError::TooMany)?);
        }
    }
    Ok(Message { bytes: bytes.into(), _large: place })
}

fn declared(bytes: &[u8]) -> Option<usize> {
    let [_, length @ ..] = bytes.first_chunk::<HEAD>()?;
    usize::try_from(u32::from_be_bytes(*length)).ok()
}

impl Message {
    /// As a body again; shares its bytes.
    pub fn body(&self) -> Body {
        Body::new(Full::new(self.bytes.clone()))
    }

    /// The fields at its top level that have bytes: number and bytes. Ends where the message makes no sense.
    pub fn fields(&self) -> impl Iterator<Item = (u32, &[u8])> {
        // What is compressed is refused by the service.
        let plain = self.bytes.first() == Some(&0);
        Fields(self.bytes.get(HEAD..).filter(|_| plain).unwrap_or_default())
    }
}

/// The fields of a protobuf message (protobuf.dev, "Encoding").
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = (u32, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let tag = self.varint()?;
            let number = u32::try_from(tag >> 3).ok()?;
            let length = match tag & 7 {
                0 => {
                    self.varint()?;
                    continue;
                }
                1 => 8,
                2 => {
                    let length = usize::try_from(self.varint()?).ok()?;
                    return Some((number, self.take(length)?));
                }
                5 => 4,
                _ => return None,
            };
            self.take(length)?;
        }
    }
}

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = *self.take(1)? else { return None };
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(message: &[u8], fields: &[(u32, &[u8])]) {
        let bytes = [&[0, 0, 0, 0, 9], message].concat().into();
        let message = Message { bytes, _large: None };
        assert_eq!(message.fields().collect::<Vec<_>>(), fields);
    }

    #[test]
    fn strings_are_found_between_other_fields() {
        check(b"", &[]);
        check(b"\x0a\x02ab", &[(1, b"ab")]);
        // A varint, eight bytes, four bytes, and a field with the largest number.
        let others =
            b"\x10\xff\x01\x19\x01\x02\x03\x04\x05\x06\x07\x08\x25\x01\x02\x03\x04\xfa\xff\xff\xff\x0f\x01x";
        check(others, &[(0x1fff_ffff, b"x")]);
        // It says that more bytes come than there are; then a group, which nobody uses.
        check(b"\x0a\x01a\x12\x7fb", &[(1, b"a")]);
        check(b"\x0a\x01a\x0b\x0a\x01b", &[(1, b"a")]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_to_some_end(bytes: Vec<u8>) {
            let message = Message { bytes: bytes.into(), _large: None };
            prop_assert!(message.fields().count() <= message.bytes.len());
        }
    }
}
