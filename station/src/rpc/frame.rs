//! A gRPC message as it comes over the wire: five bytes of head, then the message (gRPC over HTTP/2, "Length-Prefixed-
//! Message"). Reads one whole, bounded, and looks at its strings without knowing its type.

use std::time::Duration;

use http_body_util::{BodyExt as _, BodyStream, Full, StreamBody};
use tokio::{sync::OwnedSemaphorePermit, time::timeout};
use tokio_stream::StreamExt as _;
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

/// The first message of a stream, or as much of it as comes with its first `most` bytes; and the whole stream again.
///
/// # Errors
/// It does not come.
pub async fn peek(mut body: Body, most: usize) -> Result<(Message, Body), FrameError> {
    let mut bytes = Vec::new();
    let read = async {
        while declared(&bytes).is_none_or(|length| bytes.len() < HEAD + length.min(most)) {
            let Some(frame) = body.frame().await else { break };
            let Ok(data) = frame.map_err(FrameError::Broken)?.into_data() else { continue };
            bytes.extend_from_slice(&data);
        }
        Ok(())
    };
    timeout(PATIENCE, read).await.unwrap_or(Err(FrameError::TooSlow))?;
    let first = Message { bytes: bytes.into(), _large: None };
    let begun = BodyStream::new(Full::new(first.bytes.clone()).map_err(|never| match never {}));
    let whole = Body::new(StreamBody::new(begun.chain(BodyStream::new(body))));
    Ok((first, whole))
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

    /// Its fields.
    pub fn fields(&self) -> Fields<'_> {
        // What is compressed is refused by the service.
        let plain = self.bytes.first() == Some(&0);
        let message = self.bytes.get(HEAD..).filter(|_| plain).unwrap_or_default();
        // More may have come already of a stream.
        fields(message.get(..declared(&self.bytes).unwrap_or(0)).unwrap_or(message))
    }
}

/// The fields of a message at its top level that have bytes: number and bytes. Ends where the message makes no sense.
pub fn fields(message: &[u8]) -> Fields<'_> {
    Fields { left: message, groups: 0 }
}

/// The fields of a protobuf message (protobuf.dev, "Encoding").
pub struct Fields<'a> {
    left: &'a [u8],
    /// How many groups have begun. No message of ours has one, and what a service does not know it skips.
    groups: usize,
}

impl<'a> Iterator for Fields<'a> {
    type Item = (u32, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let tag = self.varint()?;
            let number = u32::try_from(tag >> 3).ok()?;
            match tag & 7 {
                0 => {
                    self.varint()?;
                }
                1 => {
                    self.take(8)?;
                }
                2 => {
                    let length = usize::try_from(self.varint()?).ok()?;
                    let bytes = self.take(length)?;
                    if self.groups == 0 {
                        return Some((number, bytes));
                    }
                }
                3 => self.groups += 1,
                4 => self.groups = self.groups.checked_sub(1)?,
                5 => {
                    self.take(4)?;
                }
                _ => return None,
            }
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
        let (taken, rest) = self.left.split_at_checked(length)?;
        self.left = rest;
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(message: &[u8], fields: &[(u32, &[u8])]) {
        let length = u8::try_from(message.len()).unwrap();
        let bytes = [&[0, 0, 0, 0, length], message].concat().into();
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
        // It says that more bytes come than there are.
        check(b"\x0a\x01a\x12\x7fb", &[(1, b"a")]);
        // What a group holds is not the message's; what stands behind it is, also behind one in another. One has no end.
        check(b"\x7b\x0a\x01a\x83\x01\x10\x07\x84\x01\x7c\x0a\x01b\x0b\x0a\x01c", &[(1, b"b")]);
        // One ends that has not begun.
        check(b"\x0a\x01a\x0c\x0a\x01b", &[(1, b"a")]);
    }

    #[tokio::test]
    async fn a_stream_is_whole_again_after_its_first_message_was_looked_at() {
        // The first message, whose head is torn, and the second one, which begins with the end of the first.
        let pieces = [&b"\0\0\0"[..], b"\0\x04\x0a", b"\x02ab\0\0\0\0\x03", b"\x12\x01c"];
        let once = |piece: &'static [u8]| BodyStream::new(Full::new(Bytes::from_static(piece)));
        let stream =
            tokio_stream::iter(pieces).then(move |piece| async move { once(piece).next().await.unwrap() });
        let body = Body::new(StreamBody::new(Box::pin(stream)));
        let (first, body) = peek(body, 100).await.unwrap();
        assert_eq!(first.fields().collect::<Vec<_>>(), [(1, &b"ab"[..])]);
        assert_eq!(body.collect().await.unwrap().to_bytes(), pieces.concat());
        // One that ends too soon is for the service to refuse.
        let (first, body) = peek(Body::new(Full::new(Bytes::from_static(pieces[0]))), 100).await.unwrap();
        assert_eq!(first.fields().count(), 0);
        assert_eq!(body.collect().await.unwrap().to_bytes(), pieces[0]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_to_some_end(bytes: Vec<u8>) {
            let message = Message { bytes: bytes.into(), _large: None };
            prop_assert!(message.fields().count() <= message.bytes.len());
        }
    }
}
