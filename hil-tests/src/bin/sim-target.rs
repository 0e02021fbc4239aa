//! `sim-target --dir DIR --device-program PATH`: one nest of the virtual fixture, for a rig to load boards into.

use std::path::PathBuf;

use clap::Parser;
use factory_hil_tests::target;
use nix::sys::{prctl, signal::Signal};
use tracing_subscriber::EnvFilter;

/// Serves `probe.sock`, `console` and `control.sock` in a directory until it is told to stop or its parent dies.
#[derive(Parser)]
struct Arguments {
    /// Where to serve; it exists, and nobody else serves there.
    #[arg(long)]
    dir: PathBuf,
    /// What answers on the console once the firmware said `fcc start`.
    #[arg(long)]
    device_program: PathBuf,
}

fn main() -> anyhow::Result<()> {
    // The children ask the kernel for the same; so nothing outlives the rig, whichever way this process ends.
    prctl::set_pdeathsig(Signal::SIGTERM)?;
    let filter = EnvFilter::from_default_env();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let arguments = Arguments::parse();
    target::serve(&arguments.dir, &arguments.device_program, || println!("ready"))
}
