//! The reference controller as a process of its own, as an integrator runs it.

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::Context as _;

use crate::child::Child;

/// A `reference-controller` that serves; killed when dropped.
pub struct ControllerProcess {
    /// Where it listens.
    pub address: SocketAddr,
    child: Child,
}

impl ControllerProcess {
    /// Starts one over a store (`sqlite:FILE`, or `postgres://…`), and waits until it serves. `programs` holds the
    /// executables; `listen` may have port 0.
    ///
    /// # Errors
    /// It ended; its standard error says why.
    pub fn start(programs: &Path, listen: SocketAddr, store: &str) -> anyhow::Result<Self> {
        let mut command = Command::new(programs.join("reference-controller"));
        command.arg("serve").arg("--listen").arg(listen.to_string()).arg("--store").arg(store);
        Self::spawn(command)
    }

    /// The same, from a command line of one's own.
    ///
    /// # Errors
    /// It ended; its standard error says why.
    pub fn spawn(mut command: Command) -> anyhow::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = Child::spawn(command, Vec::new()).context("start reference-controller")?;
        let said = child.stdout.take().context("its output is a pipe")?;
        let line = BufReader::new(said).lines().next().context("reference-controller ended at once")??;
        let address = line.strip_prefix("listening on ").with_context(|| format!("it said {line:?}"))?;
        Ok(Self { address: address.parse()?, child })
    }

    /// Kills it as a power cut would, and waits until it is gone.
    pub fn kill(self) {
        drop(self.child);
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }
}
