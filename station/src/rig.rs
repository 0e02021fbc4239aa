//! The instruments of one nest, on one screen.

use std::{path::Path, time::Duration};

use factory_fixtures::{
    console::Console,
    fault::{Fault, chain},
    fcc::link::Reach,
    probe::Probe,
    tag::writer::TagWriter,
};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::config::{ConsoleSettings, NestSettings};

/// So often a nest shows which one it is, for five seconds in all.
const BLINKS: u32 = 10;
/// As long as the lamp is lit.
const DARK: Duration = Duration::from_millis(250);

/// The instruments of one nest.
pub struct Rig {
    /// Programs and resets the unit.
    pub probe: Probe,
    /// Where the unit's serial line is; opened anew for each unit.
    pub console: ConsoleSettings,
    /// How the device is reached once its factory code runs.
    pub reach: Reach,
    /// Writes the unit's tag.
    pub tag_writer: TagWriter,
}

impl Rig {
    /// `program` is the executable that serves as the instruments' processes: the daemon's own.
    pub fn new(nest: &NestSettings, program: &Path) -> Self {
        Self {
            probe: Probe::new(program, &nest.probe),
            console: nest.console.clone(),
            reach: nest.fcc,
            tag_writer: TagWriter::new(program, &nest.tag_reader),
        }
    }

    /// Asks all instruments at once whether they answer. Must not be called while a unit is at work: the probe
    /// and the ports are opened, though the unit's chip goes on undisturbed.
    ///
    /// # Errors
    /// One sentence for each that does not, which says what to do.
    pub async fn check(&mut self) -> Result<(), String> {
        let console = async { Console::open(&self.console.path, self.console.baud).await.map(drop) };
        let (probe, console, tag_writer) = tokio::join!(self.probe.check(), console, self.tag_writer.check());
        let faults: Vec<Fault> = [probe, console, tag_writer].into_iter().filter_map(Result::err).collect();
        if faults.is_empty() {
            return Ok(());
        }
        let sentences: Vec<String> = faults.iter().map(|fault| chain(fault)).collect();
        Err(sentences.join("; and "))
    }

    /// Blinks with the probe until it is told to hurry. As [`Rig::check`], must not be called while a unit is at work.
    ///
    /// # Errors
    /// The probe does not answer; says what to do.
    pub async fn blink(&mut self, hurry: &CancellationToken) -> Result<(), String> {
        for _ in 0..BLINKS {
            self.probe.blink().await.map_err(|fault| chain(&fault))?;
            tokio::select! {
                () = hurry.cancelled() => return Ok(()),
                () = sleep(DARK) => {}
            }
        }
        Ok(())
    }

    /// What went wrong with the last thing that an instrument was asked, if it was not the unit's fault.
    pub fn trouble(&self) -> Option<String> {
        self.probe.trouble().or(self.tag_writer.trouble()).map(ToString::to_string)
    }
}
