//! The instruments of one nest, on one screen.

use std::path::Path;

use factory_fixtures::{probe::Probe, tag::writer::TagWriter};

use crate::config::{ConsoleSettings, NestSettings};

/// The instruments of one nest.
pub struct Rig {
    /// Programs and resets the unit.
    pub probe: Probe,
    /// Where the unit's serial line is; opened anew for each unit.
    pub console: ConsoleSettings,
    /// Writes the unit's tag.
    pub tag_writer: TagWriter,
}

impl Rig {
    /// `program` is the executable that serves as the instruments' processes: the daemon's own.
    pub fn new(nest: &NestSettings, program: &Path) -> Self {
        Self {
            probe: Probe::new(program, &nest.probe),
            console: nest.console.clone(),
            tag_writer: TagWriter::new(program, &nest.tag_reader),
        }
    }
}
