//! The tag reader that libnfc sees: a PN532 on a pseudo-terminal, with at most one tag in its field.
//!
//! [`SimReader`] is served by the binary `sim-reader`, one process a nest. An operator's hands reach it as
//! [`Request`]s over its control socket; each is answered with a [`Dump`] or nothing, `Work` with a time.

pub mod field;
pub mod frame;
pub mod line;
pub mod ntag;
pub mod pn532;
mod visits;

pub use line::SimReader;

use std::{collections::VecDeque, time::Duration};

use data_encoding::HEXUPPER;
use serde::{Deserialize, Serialize};

use crate::work::Work;
use field::Field;
use ntag::{Kind, Tag, TagFaults};

/// What an operator, or fate, does to a reader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// Lays a new tag into the field, in place of the one that was there.
    Place(Placement),
    /// Takes the tag out of the field.
    Remove,
    /// Lays the same tag into the field again.
    PutBack,
    /// Asks for the content of the tag placed last.
    Dump,
    /// Lets the next command go wrong.
    Fault(Fault),
    /// Asks how long a host had the reader's port open since this was asked last.
    Work,
}

/// A tag to lay into the field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Placement {
    /// Which tag.
    pub kind: Kind,
    /// Its unique id, seven bytes in upper-case hex.
    pub uid: String,
    /// Whether all of its lock bits are set.
    #[serde(default)]
    pub locked: bool,
    /// What is wrong with it.
    #[serde(default)]
    pub faults: TagFaults,
}

/// Something that goes wrong once, between chip and host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Fault {
    /// Code of the command at which it goes wrong; the next command if absent.
    #[serde(default)]
    pub on: Option<u8>,
    /// What goes wrong.
    pub what: WireFault,
}

/// What goes wrong between chip and host; the command itself is acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WireFault {
    /// The command is not executed and not answered.
    NoReply,
    /// The command is not executed and answered with this status alone; one with bit 7 set aborts libnfc.
    Status(u8),
    /// The command is not executed and answered with these bytes.
    Garbage(Vec<u8>),
    /// The command is executed after this time.
    Delay(Duration),
}

/// A tag's content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Dump {
    /// Unique id, in upper-case hex.
    pub uid: String,
    /// Its pages from the first on, each in upper-case hex.
    pub pages: Vec<String>,
    /// Writes that came as far as its memory.
    pub writes: usize,
}

/// What there is to say.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Answer {
    Tag(Option<Dump>),
    Work(Duration),
}

impl Request {
    /// Does it, and says what there is to say.
    fn perform(
        self,
        field: &mut Field,
        faults: &mut VecDeque<Fault>,
        visits: &Work,
    ) -> Result<Answer, String> {
        match self {
            Self::Place(placement) => field.place(placement.tag()?),
            Self::Remove => tag(field)?.set_present(false),
            Self::PutBack => tag(field)?.set_present(true),
            Self::Dump => return tag(field).map(|tag| Answer::Tag(Some(Dump::of(tag)))),
            Self::Fault(fault) => faults.push_back(fault),
            Self::Work => return Ok(Answer::Work(visits.take())),
        }
        Ok(Answer::Tag(None))
    }
}

fn tag(field: &mut Field) -> Result<&mut Tag, String> {
    field.tag_mut().ok_or_else(|| "no tag was ever placed".to_owned())
}

impl Placement {
    fn tag(self) -> Result<Tag, String> {
        let uid = HEXUPPER.decode(self.uid.as_bytes()).ok().and_then(|uid| uid.try_into().ok());
        let uid = uid.ok_or_else(|| format!("{:?} is not seven bytes in upper-case hex", self.uid))?;
        Ok(Tag::new(self.kind, uid, self.locked, self.faults))
    }
}

impl Dump {
    fn of(tag: &Tag) -> Self {
        Self {
            uid: HEXUPPER.encode(tag.uid()),
            pages: tag.pages().iter().map(|page| HEXUPPER.encode(page)).collect(),
            writes: tag.writes(),
        }
    }
}
