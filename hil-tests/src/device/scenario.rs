//! How a device misbehaves, as a file tells it. Nothing here happens by itself.

use std::{
    fs,
    io::{self, Read, Write},
    path::Path,
    thread,
    time::Duration,
};

use anyhow::Context as _;
use serde::{Deserialize, Deserializer, de};

use super::{
    csr::Habits,
    frames::{self, TOKEN},
};

/// As much rubbish as is sent for one answer.
const RUBBISH: usize = 64 * 1024;
/// Where the length stands in an answer frame.
const LENGTH_AT: usize = 12;
const DIGEST: usize = 32;

/// A device's oddities: a TOML file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Scenario {
    /// Only until the device has stored something and is started again.
    pub at_first: bool,
    /// The only scheme version that its firmware knows, as in `0.0.0`; `0.0.1` where nothing is said.
    pub scheme_version: Option<String>,
    /// How it makes certificate requests.
    pub csr: Habits,
    /// What becomes of its answers, or of one of them.
    #[serde(rename = "fault")]
    pub faults: Vec<Fault>,
}

/// One thing that goes wrong.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Fault {
    /// With which message, the first being 1; with each, where nothing is said.
    message: Option<usize>,
    what: Misbehaviour,
}

/// What may go wrong with a message.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
enum Misbehaviour {
    /// It is obeyed, and never answered.
    Silent,
    /// So many bytes of it are read, then nothing is done any more.
    HangAfterBytes(u64),
    /// Its answer comes byte by byte, with so long between two of them.
    Slow(#[serde(deserialize_with = "duration")] Duration),
    /// Its answer's digest is wrong.
    WrongDigest,
    /// Its answer has the token of Secure Device Access.
    WrongToken,
    /// Its answer claims to be 4 GiB long.
    HugeLength,
    /// 64 KiB of noise come instead of an answer.
    Rubbish,
    /// Its answer ends with this transport status.
    TransportStatus(u32),
    /// Its answer holds this return status, whatever came of it.
    ReturnStatus(u8),
    /// Log text comes before this byte of its answer's frame, the first being 0; behind it, where it has fewer.
    Log { at_byte: usize, text: String },
}

impl Scenario {
    /// The one in the file at `path`.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("{} is no scenario", path.display()))
    }

    /// What of it holds for a device whose storage is at `storage`, as it starts.
    pub fn at_start(self, storage: &Path) -> Self {
        if self.at_first && storage.exists() { Self::default() } else { self }
    }

    /// Hangs here, if this is where the device is to hang. `answered` messages have been.
    pub fn before_message(&self, answered: usize, input: &mut impl Read) -> io::Result<()> {
        for what in self.of_message(answered) {
            if let Misbehaviour::HangAfterBytes(bytes) = what {
                io::copy(&mut input.take(*bytes), &mut io::sink())?;
                hang();
            }
        }
        Ok(())
    }

    /// Sends an answer frame, or what is sent instead. `answered` messages have been.
    pub fn send(&self, mut frame: Vec<u8>, answered: usize, output: &mut impl Write) -> io::Result<()> {
        let mut pause = None;
        for what in self.of_message(answered) {
            match what {
                Misbehaviour::Slow(asked) => pause = Some(*asked),
                other => other.spoil(&mut frame),
            }
        }
        let Some(pause) = pause else { return frames::send(output, &frame) };
        for byte in frame {
            frames::send(output, &[byte])?;
            thread::sleep(pause);
        }
        Ok(())
    }

    fn of_message(&self, answered: usize) -> impl Iterator<Item = &Misbehaviour> {
        let here = move |fault: &&Fault| fault.message.is_none_or(|message| message == answered + 1);
        self.faults.iter().filter(here).map(|fault| &fault.what)
    }
}

impl Misbehaviour {
    /// What becomes of a frame, which another fault may have made shorter already.
    fn spoil(&self, frame: &mut Vec<u8>) {
        match self {
            Self::Silent => frame.clear(),
            Self::Rubbish => *frame = rubbish(),
            Self::Log { at_byte, text } => {
                let at = (*at_byte).min(frame.len());
                frame.splice(at..at, text.bytes());
            }
            // Take place elsewhere.
            Self::HangAfterBytes(_) | Self::Slow(_) => {}
            _ if frame.len() < LENGTH_AT + 4 + DIGEST => {}
            Self::WrongDigest => *frame.last_mut().expect("a frame has a digest") ^= 1,
            Self::WrongToken => frame[..TOKEN.len()].copy_from_slice(b"mbeddbap"),
            Self::HugeLength => {
                frame[LENGTH_AT..LENGTH_AT + 4].copy_from_slice(&u32::MAX.to_le_bytes());
            }
            Self::TransportStatus(status) => {
                frame.truncate(TOKEN.len());
                frame.extend(status.to_le_bytes());
            }
            Self::ReturnStatus(status) => *frame = with_return_status(frame, *status),
        }
    }
}

/// The same answer with another return status.
fn with_return_status(frame: &[u8], status: u8) -> Vec<u8> {
    let key = b"ReturnStatus";
    let Some(at) = frame.windows(key.len()).position(|window| window == key) else { return frame.to_vec() };
    let mut payload = frame[LENGTH_AT + 4..frame.len() - DIGEST].to_vec();
    let at = at - (LENGTH_AT + 4) + key.len();
    // An integer's head holds it up to 23; the next byte does otherwise.
    let old = if payload[at] == 0x18 { 2 } else { 1 };
    let new = if status < 24 { vec![status] } else { vec![0x18, status] };
    payload.splice(at..at + old, new);
    frames::answer(&payload)
}

fn duration<'de, D: Deserializer<'de>>(input: D) -> Result<Duration, D::Error> {
    humantime::parse_duration(&String::deserialize(input)?).map_err(de::Error::custom)
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
