//! QEMU's qtest protocol: the bus as another master sees it, and the chip's pins. One line asks, one answers.

use std::{
    io::{self, BufRead, BufReader, Write},
    os::unix::net::UnixStream,
};

use data_encoding::HEXLOWER;

/// A connection to the bus. Addresses are the chip's, words are little-endian.
pub struct Qtest {
    stream: UnixStream,
    answers: BufReader<UnixStream>,
}

impl Qtest {
    /// Wraps a connected socket.
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        Ok(Self { answers: BufReader::with_capacity(1 << 16, stream.try_clone()?), stream })
    }

    /// Reads a word.
    pub fn read_word(&mut self, address: u32) -> io::Result<u32> {
        let answer = self.ask(&format!("readl {address:#x}\n"))?;
        // Eight bytes are printed whatever was read.
        u64::from_str_radix(answer.trim_start_matches("0x"), 16)
            .map_err(io::Error::other)
            .and_then(|word| u32::try_from(word).map_err(io::Error::other))
            .map_err(|error| io::Error::other(format!("word at {address:#010x} read as {answer:?}: {error}")))
    }

    /// Writes `size` (1, 2 or 4) bytes in one bus cycle.
    pub fn write(&mut self, address: u32, size: u32, value: u32) -> io::Result<()> {
        let width = match size {
            1 => 'b',
            2 => 'w',
            _ => 'l',
        };
        self.ask(&format!("write{width} {address:#x} {value:#x}\n")).map(drop)
    }

    /// Reads `length` bytes; `length` is not zero.
    pub fn read_block(&mut self, address: u32, length: usize) -> io::Result<Vec<u8>> {
        let answer = self.ask(&format!("read {address:#x} {length:#x}\n"))?;
        HEXLOWER.decode(answer.trim_start_matches("0x").as_bytes()).map_err(io::Error::other)
    }

    /// Writes bytes, which are not none.
    pub fn write_block(&mut self, address: u32, bytes: &[u8]) -> io::Result<()> {
        self.ask(&format!("write {address:#x} {:#x} 0x{}\n", bytes.len(), HEXLOWER.encode(bytes))).map(drop)
    }

    /// Drives a GPIO pin from outside the chip.
    pub fn drive_pin(&mut self, pin: u32, high: bool) -> io::Result<()> {
        self.ask(&format!("set_irq_in /machine/nrf51 unnamed-gpio-in {pin} {}\n", u8::from(high))).map(drop)
    }

    fn ask(&mut self, request: &str) -> io::Result<String> {
        self.stream.write_all(request.as_bytes())?;
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "qemu closed its qtest socket"));
        }
        let answer = line.trim_end();
        answer
            .strip_prefix("OK")
            .map(|value| value.trim_start().to_owned())
            .ok_or_else(|| io::Error::other(format!("qtest answered {answer:?} to {:?}", request.trim_end())))
    }
}
