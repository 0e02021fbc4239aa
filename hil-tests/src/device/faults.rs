//! How a device can misbehave, on request. Nothing here happens by itself.

use std::{
    io::{self, Read},
    path::Path,
    thread,
};

use clap::Args;

use super::frames::TOKEN;

/// As much rubbish as is sent for one answer.
const RUBBISH: usize = 64 * 1024;
/// Where the length stands in an answer frame.
const LENGTH_AT: usize = 12;

/// The switches; none is on by default.
#[derive(Debug, Clone, Default, Args)]
pub struct Faults {
    /// Read so many bytes of the second message, then do nothing any more
    #[arg(long, value_name = "BYTES")]
    pub hang_after_bytes: Option<u64>,
    /// Read and answer nothing
    #[arg(long)]
    pub silent: bool,
    /// Send answers whose digest is wrong
    #[arg(long)]
    pub bad_digest: bool,
    /// Send answers that claim to be 4 GiB long
    #[arg(long)]
    pub huge_length: bool,
    /// Send answers with the token of Secure Device Access
    #[arg(long)]
    pub wrong_token: bool,
    /// Send 64 KiB of noise for each answer
    #[arg(long)]
    pub rubbish: bool,
    /// Do what this message asks for, the first being 1, and never say so
    #[arg(long, value_name = "NUMBER")]
    pub swallow_answer: Option<usize>,
    /// Make certificate requests for this subject, whatever was asked for
    #[arg(long, value_name = "TEXT")]
    pub csr_subject: Option<String>,
    /// Misbehave only until the device has stored something and is started again
    #[arg(long)]
    pub at_first: bool,
}

impl Faults {
    /// The faults of a device whose storage is at `storage`, as it starts.
    pub fn at_start(self, storage: &Path) -> Self {
        if self.at_first && storage.exists() { Self::default() } else { self }
    }

    /// Hangs here, if this is where the device is to hang. `answered` messages have been.
    pub fn before_message(&self, answered: usize, input: &mut impl Read) -> io::Result<()> {
        if let (1, Some(bytes)) = (answered, self.hang_after_bytes) {
            io::copy(&mut input.take(bytes), &mut io::sink())?;
            hang();
        }
        Ok(())
    }

    /// What is sent instead of an answer frame. `answered` messages have been.
    pub fn spoil(&self, mut frame: Vec<u8>, answered: usize) -> Vec<u8> {
        if self.silent || self.swallow_answer == Some(answered + 1) {
            frame.clear();
        } else if self.rubbish {
            frame = rubbish();
        } else if self.bad_digest {
            *frame.last_mut().expect("a frame has a digest") ^= 1;
        } else if self.huge_length {
            frame[LENGTH_AT..LENGTH_AT + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        } else if self.wrong_token {
            frame[..TOKEN.len()].copy_from_slice(b"mbeddbap");
        }
        frame
    }
}

/// Until somebody ends the process.
fn hang() -> ! {
    loop {
        thread::park();
    }
}

/// The same noise each time (xorshift, Marsaglia 2003).
fn rubbish() -> Vec<u8> {
    let mut state = 0x2545_f491_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[0]
    };
    (0..RUBBISH).map(|_| next()).collect()
}
