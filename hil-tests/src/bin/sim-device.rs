//! A simulated device, from its start to its end: one process is one boot of the device.

use std::{
    io::{self, ErrorKind},
    net::SocketAddrV4,
    path::PathBuf,
    process::{self, ExitCode},
};

use anyhow::Context as _;
use clap::Parser;
use factory_hil_tests::{
    device::{
        frames, keys,
        line::{BANNER, End, Line, Transport},
        message::Device,
        scenario::Scenario,
        tcp::Door,
    },
    moment::simulator::Moments,
};

/// A device that waits to be provisioned: one process is one boot of it.
///
/// Its serial line is its standard input and output, log text included. With --tcp it listens on a port
/// instead, and its standard output is its console. What it holds is in the file of --storage, as JSON; nothing
/// need be there yet. Like the real program it erases that at the first message, unless told not to.
///
/// It ends after the last message of a session: with 0 if an answer went out, whatever the answer says; with 1
/// if none could be given or the line was bad; by SIGABRT where the real program crashes.
#[derive(Parser)]
#[command(after_help = EXAMPLE)]
struct Arguments {
    /// The file that holds what the device stores
    #[arg(long, value_name = "FILE")]
    storage: PathBuf,
    /// Listen there instead and print where; port 0 is any that is free [without a value: 127.0.0.1:0]
    #[arg(long, value_name = "IP:PORT", num_args = 0..=1, default_missing_value = "127.0.0.1:0")]
    tcp: Option<SocketAddrV4>,
    /// Do not erase the storage at the first message: a product, not the stock program
    #[arg(long)]
    keep_storage: bool,
    /// Misbehave as this file says
    #[arg(long, value_name = "FILE")]
    scenario: Option<PathBuf>,
    /// Tell each message's moments to the listener at this socket, and wait until it hangs up
    #[arg(long, value_name = "SOCKET")]
    moments: Option<PathBuf>,
}

const EXAMPLE: &str = "\
Example, a device for one `stationctl fcc inject --tcp 127.0.0.1:7777 ...`:
  sim-device --storage /tmp/device.json --tcp 127.0.0.1:7777

A scenario is a TOML file, of these:
  at-first = true                 only until the device has stored something and is started again
  scheme-version = \"0.0.0\"      an old firmware, which knows no other
  csr = { subject = \"CN=other\", another-key = true }
  csr = { same-key = \"3081...\" } every key that it makes is this one, PKCS#8 in hex
  [[fault]]                       any number of them, of one message or of each
  message = 2
  what = \"silent\"               the message is obeyed and not answered; or
         { hang-after-bytes = 100 }
         { slow = \"5ms\" }       between two bytes of the answer
         \"wrong-digest\" \"wrong-token\" \"huge-length\" \"rubbish\"
         { transport-status = 4 }
         { return-status = 99 }
         { log = { at-byte = 0, text = \"...\" } }   before this byte of the answer's frame";

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    keys::seed();
    let scenario = arguments.scenario.as_deref().map(Scenario::read).transpose()?.unwrap_or_default();
    let scenario = scenario.at_start(&arguments.storage);
    let device = Device::start(&arguments.storage, arguments.keep_storage, &scenario)?;
    let transport = if arguments.tcp.is_some() { Transport::Tcp } else { Transport::Serial };
    let line = Line { device, transport, scenario, answered: 0, moments: Moments::to(arguments.moments) };
    let end = match arguments.tcp {
        None => serve_serial(line),
        Some(address) => {
            let door = Door::open(address)
                .with_context(|| format!("cannot listen at {address}; give a free port, or 0"))?;
            door.serve(line, &mut io::stdout().lock())
        }
    };
    match end {
        Ok(End::Left | End::Answered) => Ok(ExitCode::SUCCESS),
        Ok(End::Refused) => Ok(ExitCode::FAILURE),
        Ok(End::Crashed) => process::abort(),
        // The other side is gone before it has its answer: a transport error like any other.
        Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
            Ok(ExitCode::FAILURE)
        }
        Err(error) => Err(error).context("the line failed"),
    }
}

fn serve_serial(mut line: Line) -> io::Result<End> {
    let mut output = io::stdout().lock();
    frames::send(&mut output, BANNER)?;
    line.converse(&mut io::stdin().lock(), &mut output)
}
