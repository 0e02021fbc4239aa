//! A simulated device, from its start to its end: one process is one boot of the device.

use std::{
    io::{self, BufReader, Write},
    net::{Ipv4Addr, TcpListener},
    path::PathBuf,
    process::{self, ExitCode},
};

use clap::Parser;
use factory_hil_tests::{
    device::{
        faults::Faults,
        frames,
        line::{BANNER, End, Line, Transport},
        message::Device,
    },
    moment::simulator::Moments,
};

/// A device that waits to be provisioned, on its standard input and output.
#[derive(Parser)]
struct Arguments {
    /// The file that holds what the device stores
    #[arg(long, value_name = "FILE")]
    storage: PathBuf,
    /// Listen on a TCP port instead, and print which
    #[arg(long)]
    tcp: bool,
    /// Do not erase the storage at the first message: a product, not the stock program
    #[arg(long)]
    keep_storage: bool,
    /// Write log text between the frames
    #[arg(long)]
    log_noise: bool,
    /// Tell each message's moments to the listener at this socket, and wait until it hangs up
    #[arg(long, value_name = "SOCKET")]
    moments: Option<PathBuf>,
    #[command(flatten)]
    faults: Faults,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let faults = arguments.faults.at_start(&arguments.storage);
    let subject = faults.csr_subject.clone();
    let device = Device::start(&arguments.storage, arguments.keep_storage, subject)?;
    let transport = if arguments.tcp { Transport::Tcp } else { Transport::Serial };
    let line = Line {
        device,
        transport,
        faults,
        noise: arguments.log_noise,
        answered: 0,
        moments: Moments::to(arguments.moments),
    };
    let end = match transport {
        Transport::Serial => serve_serial(line)?,
        Transport::Tcp => serve_tcp(line)?,
    };
    match end {
        End::Left | End::Answered => Ok(ExitCode::SUCCESS),
        End::Refused => Ok(ExitCode::FAILURE),
        End::Crashed => process::abort(),
    }
}

fn serve_serial(mut line: Line) -> io::Result<End> {
    let mut output = io::stdout().lock();
    frames::send(&mut output, BANNER)?;
    line.converse(&mut io::stdin().lock(), &mut output)
}

fn serve_tcp(mut line: Line) -> io::Result<End> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut console = io::stdout().lock();
    writeln!(console, "Client IP Address and Port :  {}", listener.local_addr()?)?;
    loop {
        writeln!(console, "Client is waiting for incoming connection...")?;
        let (mut stream, _) = listener.accept()?;
        let end = line.converse(&mut BufReader::new(stream.try_clone()?), &mut stream)?;
        if end != End::Left {
            return Ok(end);
        }
    }
}
