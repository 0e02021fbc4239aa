//! Frames as the device reads and writes them (FCC protocol, section 2), its naive token scanner included.

use std::io::{self, ErrorKind, Read, Write};

use sha2::{Digest, Sha256};

/// What every frame begins with.
pub const TOKEN: [u8; 8] = *b"mbedprov";

/// What came in.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// A frame whose digest is right.
    Payload(Vec<u8>),
    /// The line ended between frames.
    Closed,
    /// The frame was bad; the transport status says how.
    Broken(TransportStatus),
}

/// The transport statuses that this device gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum TransportStatus {
    /// A payload follows.
    Ok = 0,
    /// The length is beyond 2^31.
    BadParameter = 2,
    /// The length is missing or zero.
    Length = 4,
    /// The payload is cut short.
    Payload = 5,
    /// The digest is cut short.
    Digest = 6,
    /// The digest is another's.
    DigestMismatch = 8,
    /// The device is disabled, or its answer outgrew its buffer.
    NotProcessed = 9,
}

/// Waits for the next request, for ever if need be.
pub fn receive(input: &mut impl Read) -> io::Result<Received> {
    if !find_token(input)? {
        return Ok(Received::Closed);
    }
    let Some(length) = exactly(input, 4)? else { return Ok(Received::Broken(TransportStatus::Length)) };
    let length = u32::from_le_bytes(length.try_into().expect("four bytes were read"));
    match length {
        0 => return Ok(Received::Broken(TransportStatus::Length)),
        1..0x8000_0000 => {}
        _ => return Ok(Received::Broken(TransportStatus::BadParameter)),
    }
    let Some(payload) = exactly(input, length.into())? else {
        return Ok(Received::Broken(TransportStatus::Payload));
    };
    let Some(digest) = exactly(input, 32)? else { return Ok(Received::Broken(TransportStatus::Digest)) };
    if Sha256::digest(&payload).as_slice() != digest {
        return Ok(Received::Broken(TransportStatus::DigestMismatch));
    }
    Ok(Received::Payload(payload))
}

/// Starts again behind a mismatching byte, without looking whether that byte begins a token.
fn find_token(input: &mut impl Read) -> io::Result<bool> {
    let mut matched = 0;
    while matched < TOKEN.len() {
        let Some(byte) = exactly(input, 1)? else { return Ok(false) };
        matched = if byte[0] == TOKEN[matched] { matched + 1 } else { 0 };
    }
    Ok(true)
}

/// So many bytes, or nothing when the line ends before.
fn exactly(input: &mut impl Read, length: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    match input.take(length).read_to_end(&mut bytes) {
        Ok(read) => Ok(u64::try_from(read).is_ok_and(|read| read == length).then_some(bytes)),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(None),
        Err(error) => Err(error),
    }
}

/// An answer frame.
pub fn answer(payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("answers are built in small buffers");
    let mut frame = status(TransportStatus::Ok);
    frame.extend(length.to_le_bytes());
    frame.extend_from_slice(payload);
    frame.extend(Sha256::digest(payload));
    frame
}

/// A frame that ends with its status.
pub fn status(status: TransportStatus) -> Vec<u8> {
    [TOKEN.as_slice(), &(status as u32).to_le_bytes()].concat()
}

/// Writes all of it, at once.
pub fn send(output: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    output.write_all(bytes)?;
    output.flush()
}
