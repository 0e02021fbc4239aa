//! The gdb remote protocol, as much of it as running, halting and stepping one core takes.

use std::{
    collections::BTreeSet,
    io::{self, Read, Write},
    os::{fd::AsFd, unix::net::UnixStream},
    time::Duration,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// A step that is not over by now waits for an interrupt: QEMU takes microseconds for any other.
const STEP_PATIENCE: Duration = Duration::from_millis(20);

/// A connection to the stub.
pub struct Gdb {
    stream: UnixStream,
    received: Vec<u8>,
    running: bool,
    breakpoints: BTreeSet<u32>,
}

impl Gdb {
    /// Greets the stub.
    pub fn open(stream: UnixStream) -> io::Result<Self> {
        let mut gdb = Self { stream, received: Vec::new(), running: false, breakpoints: BTreeSet::new() };
        gdb.command("qSupported:xmlRegisters=arm")?;
        // QEMU refuses to read single registers until their description was read.
        gdb.command("qXfer:features:read:target.xml:0,ffb")?;
        Ok(gdb)
    }

    /// Reads a core register of the halted core.
    pub fn read_register(&mut self, number: u32) -> io::Result<u32> {
        let answer = self.command(&format!("p{number:x}"))?;
        u32::from_str_radix(&answer, 16)
            .map(u32::swap_bytes)
            .map_err(|error| io::Error::other(format!("register {number} read as {answer:?}: {error}")))
    }

    /// Writes a core register of the halted core.
    pub fn write_register(&mut self, number: u32, value: u32) -> io::Result<()> {
        let answer = self.command(&format!("P{number:x}={:08x}", value.swap_bytes()))?;
        if answer == "OK" {
            Ok(())
        } else {
            Err(io::Error::other(format!("register {number} refused: {answer}")))
        }
    }

    /// Lets the core run until it meets one of `breakpoints` or is halted.
    pub fn run(&mut self, breakpoints: BTreeSet<u32>) -> io::Result<()> {
        for gone in &self.breakpoints - &breakpoints {
            self.command(&format!("z1,{gone:x},2"))?;
        }
        for new in &breakpoints - &self.breakpoints {
            self.command(&format!("Z1,{new:x},2"))?;
        }
        self.breakpoints = breakpoints;
        self.send("c")?;
        self.running = true;
        Ok(())
    }

    /// Executes one instruction, interrupts masked.
    pub fn step(&mut self) -> io::Result<()> {
        self.send("s")?;
        self.running = true;
        if !self.stopped_within(STEP_PATIENCE)? {
            self.halt()?;
        }
        Ok(())
    }

    /// Waits for a running core to stop by itself; true when it did.
    pub fn stopped_within(&mut self, patience: Duration) -> io::Result<bool> {
        while self.running {
            if self.take_packet()?.is_some() {
                self.running = false;
                break;
            }
            let mut ready = [PollFd::new(self.stream.as_fd(), PollFlags::POLLIN)];
            if poll(&mut ready, PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX))? == 0 {
                return Ok(false);
            }
            self.fill()?;
        }
        Ok(true)
    }

    /// Stops the core if it runs.
    pub fn halt(&mut self) -> io::Result<()> {
        if self.running {
            self.stream.write_all(&[3])?;
            self.receive()?;
            self.running = false;
        }
        Ok(())
    }

    fn command(&mut self, command: &str) -> io::Result<String> {
        self.send(command)?;
        self.receive()
    }

    fn send(&mut self, command: &str) -> io::Result<()> {
        let sum = command.bytes().fold(0u8, u8::wrapping_add);
        self.stream.write_all(format!("${command}#{sum:02x}").as_bytes())
    }

    fn receive(&mut self) -> io::Result<String> {
        loop {
            if let Some(packet) = self.take_packet()? {
                return Ok(packet);
            }
            self.fill()?;
        }
    }

    /// Takes one whole packet from what was received, and acknowledges it.
    fn take_packet(&mut self) -> io::Result<Option<String>> {
        let Some(start) = self.received.iter().position(|byte| *byte == b'$') else { return Ok(None) };
        let Some(length) = self.received[start..].iter().position(|byte| *byte == b'#') else {
            return Ok(None);
        };
        let (hash, end) = (start + length, start + length + "#00".len());
        if self.received.len() < end {
            return Ok(None);
        }
        let packet = String::from_utf8_lossy(&self.received[start + 1..hash]).into_owned();
        self.received.drain(..end);
        self.stream.write_all(b"+")?;
        Ok(Some(packet))
    }

    fn fill(&mut self) -> io::Result<()> {
        let mut chunk = [0; 8192];
        let count = self.stream.read(&mut chunk)?;
        if count == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "qemu closed its gdb stub"));
        }
        self.received.extend_from_slice(&chunk[..count]);
        Ok(())
    }
}
