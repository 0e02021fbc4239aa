//! What the rig may ask of a nest, and the answers, as they stand on the control socket.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

use super::{bus::StuckLow, console::DeviceEnd, light::Pace};
use crate::control;

/// What the operator's hands do. All but `Flash` and `Work` are answered with the [`State`] after it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Put a factory-fresh, powered board in, in place of the one that is there.
    Load(Board),
    /// Take the board out.
    Unload,
    /// Look.
    State,
    /// X-ray the first bytes of flash; answered with a [`FlashImage`].
    Flash {
        /// How many, at least one.
        length: u32,
    },
    /// Answered with how long the nest was at work since this was asked last: while somebody has its probe, a light
    /// chip's core or parts work, or the device program starts or has a message.
    Work,
}

/// A board from the assembly line.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Board {
    /// Names its files: up to 64 letters, digits, `-`, `_`.
    pub serial: String,
    /// Makes its chip's factory id.
    pub board_id: u32,
    /// What is wrong with it.
    #[serde(default)]
    pub faults: Faults,
    /// Its chip is no QEMU but a light one, and takes this long for things.
    #[serde(default)]
    pub pace: Option<Pace>,
}

/// What may be wrong with a board or its contacts. By default nothing is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Faults {
    /// What its ADC reads on the 3.3 V rail, in millivolts.
    pub rail_3v3_mv: u16,
    /// Its clock is dead: the firmware never starts.
    pub silent: bool,
    /// Its UART says rubbish, much of it, without line ends.
    pub garbage: bool,
    /// Arguments for its device program.
    pub device_args: Vec<String>,
    /// Flash bits that do not hold a one.
    pub stuck_low: Vec<StuckLow>,
    /// The probe loses contact for good after so many transfers.
    pub yank_after: Option<u64>,
}

/// The nest, looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct State {
    /// The serial of the board in it.
    pub loaded: Option<String>,
    /// The version of the firmware that booted since the last reset.
    pub firmware: Option<String>,
    /// Whether the device program has the serial line.
    pub fcc_running: bool,
    /// How often a host has opened the probe.
    pub probe_hosts: u64,
    /// How the last device program of this board ended.
    pub device_end: Option<DeviceEnd>,
}

/// Bytes of flash, in hexadecimal.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FlashImage(String);

#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Answer {
    State(State),
    Flash(FlashImage),
    Work(Duration),
}

impl Board {
    /// A board without a fault.
    pub fn new(serial: impl Into<String>, board_id: u32) -> Self {
        Self { serial: serial.into(), board_id, faults: Faults::default(), pace: None }
    }

    pub(super) fn has_plain_serial(&self) -> bool {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=64).contains(&self.serial.len()) && self.serial.bytes().all(plain)
    }
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            rail_3v3_mv: 3301,
            silent: false,
            garbage: false,
            device_args: Vec::new(),
            stuck_low: Vec::new(),
            yank_after: None,
        }
    }
}

impl FlashImage {
    pub(super) fn new(bytes: &[u8]) -> Self {
        Self(HEXLOWER.encode(bytes))
    }

    /// The bytes.
    pub fn bytes(&self) -> anyhow::Result<Vec<u8>> {
        Ok(HEXLOWER.decode(self.0.as_bytes())?)
    }
}

/// The rig's side of the control socket.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// Speaks to the nest that is served in `dir`.
    pub fn new(dir: &Path) -> Self {
        Self { socket: dir.join("control.sock") }
    }

    /// Puts a factory-fresh board in.
    pub fn load(&self, board: Board) -> anyhow::Result<State> {
        control::call(&self.socket, &Request::Load(board))
    }

    /// Takes the board out.
    pub fn unload(&self) -> anyhow::Result<State> {
        control::call(&self.socket, &Request::Unload)
    }

    /// Looks.
    pub fn state(&self) -> anyhow::Result<State> {
        control::call(&self.socket, &Request::State)
    }

    /// How long the nest was at work since this was asked last.
    pub fn work(&self) -> anyhow::Result<Duration> {
        control::call(&self.socket, &Request::Work)
    }

    /// X-rays the first `length` bytes of flash.
    pub fn flash(&self, length: u32) -> anyhow::Result<Vec<u8>> {
        control::call::<_, FlashImage>(&self.socket, &Request::Flash { length })?.bytes()
    }
}
