//! The device's door on a network: one client at a time, any number one after the other. Its console tells where
//! it is, in the real program's words (FCC protocol, section 1). Knows nothing of frames.

use std::{
    io::{self, BufReader, Write},
    net::{SocketAddrV4, TcpListener},
};

use nix::sys::socket::{Backlog, listen};

use super::line::{End, Line};

/// The real program's, which Linux takes to mean one client more than this.
const BACKLOG: i32 = 1;

/// Where a device listens.
#[derive(Debug)]
pub struct Door(TcpListener);

impl Door {
    /// Opens it; the kernel chooses for port 0, as the real program draws one.
    pub fn open(address: SocketAddrV4) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        // To listen again changes the backlog of one that listens already.
        listen(&listener, Backlog::new(BACKLOG)?)?;
        Ok(Self(listener))
    }

    /// Speaks with one client after the other until the conversation ends. A client that leaves between frames
    /// ends nothing; the one that speaks with the device when it ends is hung up on.
    pub fn serve(self, mut line: Line, console: &mut impl Write) -> io::Result<End> {
        writeln!(console, "Client IP Address and Port :  {}", self.0.local_addr()?)?;
        loop {
            writeln!(console, "Client is waiting for incoming connection...")?;
            console.flush()?;
            let (mut stream, _) = self.0.accept()?;
            let end = line.converse(&mut BufReader::new(stream.try_clone()?), &mut stream)?;
            if end != End::Left {
                return Ok(end);
            }
        }
    }
}
