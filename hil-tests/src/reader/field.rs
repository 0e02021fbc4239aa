//! The reader's field and the one tag that an operator can lay into it. Without field a tag forgets that it
//! was selected.

use super::ntag::{Answer, Kind, Tag};

/// The field in front of the antenna.
#[derive(Debug, Default)]
pub struct Field {
    on: bool,
    tag: Option<Tag>,
}

/// A tag's answers to REQA, anticollision and SELECT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selected {
    /// Answer to REQA, in the order in which a PN532 reports it.
    pub atqa: [u8; 2],
    /// Answer to SELECT.
    pub sak: u8,
    /// Its unique id: of four bytes, or of seven.
    pub uid: Vec<u8>,
}

impl Field {
    /// Lays a tag into the field in place of the one that was there.
    pub fn place(&mut self, tag: Tag) {
        self.tag = Some(tag);
    }

    /// The tag that was placed last, in the field or out of it.
    pub fn tag_mut(&mut self) -> Option<&mut Tag> {
        self.tag.as_mut()
    }

    /// Switches the field.
    pub fn switch(&mut self, on: bool) {
        self.on = on;
        if !on && let Some(tag) = &mut self.tag {
            tag.lose_power();
        }
    }

    /// Selects the tag in the field; the field is on afterwards.
    pub fn select(&mut self) -> Option<Selected> {
        self.on = true;
        let tag = self.tag.as_mut().filter(|tag| tag.is_present())?;
        tag.select();
        let (atqa, sak) = tag.kind().atqa_sak();
        let uid = match tag.kind() {
            Kind::MifareClassic => &tag.uid()[..4],
            _ => tag.uid(),
        };
        Some(Selected { atqa, sak, uid: uid.to_vec() })
    }

    /// Sends `frame` to the selected tag.
    pub fn exchange(&mut self, frame: &[u8]) -> Answer {
        match &mut self.tag {
            Some(tag) if self.on => tag.command(frame),
            _ => Answer::Silence,
        }
    }
}
