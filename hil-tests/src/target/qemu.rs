//! One emulated nRF51822 in a QEMU process. Bus accesses go through its qtest socket, where they reach the
//! devices as a bus master's would (the debugger's own memory writes would bypass the flash controller);
//! the core is run and stopped through its gdb stub. Knows nothing of debug ports.

mod gdb;
mod qtest;

use std::{
    collections::BTreeSet,
    fs::File,
    io,
    os::{fd::AsRawFd, unix::net::UnixStream},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use gdb::Gdb;
use qtest::Qtest;

use super::silicon::Silicon;
use crate::child::Child;

/// The emulator, its core halted at the reset vector until told to run.
pub struct Qemu {
    gdb: Gdb,
    qtest: Qtest,
    _process: Child,
}

impl Qemu {
    /// Starts the emulator. The second value is the far end of its UART; what QEMU itself has to say goes to `log`.
    pub fn start(log: &Path) -> io::Result<(Self, UnixStream)> {
        let (gdb, gdb_there) = UnixStream::pair()?;
        let (qtest, qtest_there) = UnixStream::pair()?;
        let (uart, uart_there) = UnixStream::pair()?;

        let mut command = Command::new("qemu-system-arm");
        command.args(["-M", "microbit", "-accel", "tcg", "-S", "-display", "none", "-monitor", "none"]);
        for (id, end) in [("gdb", &gdb_there), ("qtest", &qtest_there), ("uart", &uart_there)] {
            command.arg("-chardev").arg(format!("socket,id={id},fd={}", end.as_raw_fd()));
        }
        command
            .args(["-gdb", "chardev:gdb", "-qtest", "chardev:qtest", "-qtest-log", "none"])
            .args(["-serial", "chardev:uart"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::options().create(true).append(true).open(log)?);
        let inherited = vec![gdb_there.as_raw_fd(), qtest_there.as_raw_fd(), uart_there.as_raw_fd()];
        let process = Child::spawn(command, inherited).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("qemu-system-arm did not start (Debian: apt install qemu-system-arm): {error}"),
            )
        })?;
        // Only QEMU holds its ends now: when it dies, ours read end-of-file.
        drop((gdb_there, qtest_there, uart_there));

        Ok((Self { gdb: Gdb::open(gdb)?, qtest: Qtest::new(qtest)?, _process: process }, uart))
    }
}

impl Silicon for Qemu {
    fn read_word(&mut self, address: u32) -> io::Result<u32> {
        self.qtest.read_word(address)
    }

    fn write(&mut self, address: u32, size: u32, value: u32) -> io::Result<()> {
        self.qtest.write(address, size, value)
    }

    fn read_block(&mut self, address: u32, length: usize) -> io::Result<Vec<u8>> {
        self.qtest.read_block(address, length)
    }

    fn write_block(&mut self, address: u32, bytes: &[u8]) -> io::Result<()> {
        self.qtest.write_block(address, bytes)
    }

    fn drive_pin(&mut self, pin: u32, high: bool) -> io::Result<()> {
        self.qtest.drive_pin(pin, high)
    }

    fn read_register(&mut self, number: u32) -> io::Result<u32> {
        self.gdb.read_register(number)
    }

    fn write_register(&mut self, number: u32, value: u32) -> io::Result<()> {
        self.gdb.write_register(number, value)
    }

    fn run(&mut self, breakpoints: BTreeSet<u32>) -> io::Result<()> {
        self.gdb.run(breakpoints)
    }

    fn step(&mut self) -> io::Result<()> {
        self.gdb.step()
    }

    fn stopped_within(&mut self, patience: Duration) -> io::Result<bool> {
        self.gdb.stopped_within(patience)
    }

    fn halt(&mut self) -> io::Result<()> {
        self.gdb.halt()
    }
}
