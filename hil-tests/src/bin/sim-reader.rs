//! Serves one nest's tag reader: `sim-reader --dir DIR`. Says `ready` once it listens; ends with its parent.

use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;
use factory_hil_tests::{moment::simulator::Moments, reader::SimReader};
use nix::sys::{prctl, signal::Signal};

/// A PN532 with an empty field, for libnfc at `pn532_uart:DIR/reader`.
#[derive(Parser)]
struct Options {
    /// Where the port `reader` and the socket `control.sock` are made.
    #[arg(long)]
    dir: PathBuf,
    /// Tell each write to the tag to the listener at this socket, and wait until it hangs up.
    #[arg(long)]
    moments: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    prctl::set_pdeathsig(Signal::SIGTERM)?;
    let reader = SimReader::open(&options.dir, Moments::to(options.moments))
        .with_context(|| format!("could not serve a reader in {}", options.dir.display()))?;
    println!("ready");
    reader.run().context("the reader's port failed")
}
