//! The chip at its serial line: sleep and wake-up, acknowledgements, and what can go wrong on the wire. One
//! owner of all state; it sleeps until the host or an operator does something.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, Read, Write},
    path::Path,
    sync::mpsc::{self, Receiver, Sender},
    thread,
};

use super::{
    Answer, Fault, Request, WireFault,
    field::Field,
    frame::{self, Decoder, HostFrame},
    pn532::{POWER_DOWN, Pn532, Reply},
    visits,
};
use crate::{control, moment::simulator::Moments, pty::Pty, work::Work};

// The line wakes a sleeping chip with its fifth rising edge (UM0701-02, section 3.1.3.2).
const EDGES_TO_WAKE: u32 = 5;

enum Event {
    Host(Vec<u8>),
    Asked(Request, Sender<Result<Answer, String>>),
}

/// A PN532 that serves a port and a control socket.
pub struct SimReader {
    // Unlinks the port at the end.
    pty: Pty,
    events: Receiver<Event>,
    decoder: Decoder,
    /// None are missing while the chip is awake.
    edges_to_wake: u32,
    chip: Pn532,
    field: Field,
    /// The search that waits for a tag: its command code and parameters.
    search: Option<(u8, Vec<u8>)>,
    faults: VecDeque<Fault>,
    moments: Moments,
    /// While a host has the port open.
    visits: Work,
}

/// The moment after a write to the tag's memory, before the host hears of it.
pub const WRITTEN: &str = "written";

impl SimReader {
    /// Opens the port `reader` and the socket `control.sock` in `dir`; tells `moments` of each write.
    pub fn open(dir: &Path, moments: Moments) -> io::Result<Self> {
        let pty = Pty::open(&dir.join("reader"))?;
        let visits = visits::watch(&dir.join("reader"))?;
        let (hand, events) = mpsc::channel();

        let (host, line) = (hand.clone(), pty.master.try_clone()?);
        thread::spawn(move || forward(line, &host));

        let socket = dir.join("control.sock");
        if socket.exists() {
            fs::remove_file(&socket)?;
        }
        control::serve(&socket, move |request| {
            let (answer, answered) = mpsc::channel();
            hand.send(Event::Asked(request, answer)).map_err(|error| error.to_string())?;
            answered.recv().map_err(|error| error.to_string())?
        })?;
        Ok(Self {
            pty,
            events,
            decoder: Decoder::default(),
            edges_to_wake: EDGES_TO_WAKE,
            chip: Pn532::default(),
            field: Field::default(),
            search: None,
            faults: VecDeque::new(),
            moments,
            visits,
        })
    }

    /// Serves until the port fails.
    pub fn run(mut self) -> io::Result<()> {
        while let Ok(event) = self.events.recv() {
            match event {
                Event::Host(bytes) => self.hear(&bytes)?,
                Event::Asked(request, answer) => {
                    let done = request.perform(&mut self.field, &mut self.faults, &self.visits);
                    self.search_again()?;
                    // Whoever asked may have gone.
                    let _ = answer.send(done);
                }
            }
        }
        Ok(())
    }

    /// Byte by byte: a command may put the chip to sleep, and what follows it has to wake it first.
    fn hear(&mut self, bytes: &[u8]) -> io::Result<()> {
        for byte in bytes {
            if self.edges_to_wake > 0 {
                // This byte wakes, and is lost.
                self.edges_to_wake = self.edges_to_wake.saturating_sub(rising_edges(*byte));
                continue;
            }
            self.decoder.push(*byte);
            let Some(frame) = self.decoder.next_frame() else { continue };
            self.search = None;
            match frame {
                HostFrame::Command { code, parameters } => self.command(code, parameters)?,
                HostFrame::Broken => self.send(&frame::ERROR)?,
                HostFrame::Ack | HostFrame::Nack => {}
            }
        }
        Ok(())
    }

    fn command(&mut self, code: u8, parameters: Vec<u8>) -> io::Result<()> {
        let strikes = |fault: &Fault| fault.on.is_none_or(|on| on == code);
        let struck = self.faults.iter().position(strikes).and_then(|at| self.faults.remove(at));
        self.send(&frame::ACK)?;
        match struck.map(|fault| fault.what) {
            Some(WireFault::NoReply) => return Ok(()),
            Some(WireFault::Garbage(bytes)) => return self.send(&bytes),
            Some(WireFault::Status(status)) => return self.send(&frame::answer(code, &[status])),
            Some(WireFault::Delay(delay)) => thread::sleep(delay),
            None => {}
        }
        self.reply(code, parameters)?;
        if code == POWER_DOWN {
            self.edges_to_wake = EDGES_TO_WAKE;
        }
        Ok(())
    }

    fn reply(&mut self, code: u8, parameters: Vec<u8>) -> io::Result<()> {
        let writes = self.writes();
        let reply = self.chip.execute(&mut self.field, code, &parameters);
        if self.writes() > writes {
            self.moments.tell(WRITTEN);
        }
        match reply {
            Reply::Parameters(answer) => self.send(&frame::answer(code, &answer)),
            Reply::SyntaxError => self.send(&frame::ERROR),
            Reply::Searching => {
                self.search = Some((code, parameters));
                Ok(())
            }
        }
    }

    fn writes(&mut self) -> usize {
        self.field.tag_mut().map_or(0, |tag| tag.writes())
    }

    /// A search that may wait for ever is done again whenever an operator's hand was at the field.
    fn search_again(&mut self) -> io::Result<()> {
        match self.search.take() {
            Some((code, parameters)) => self.reply(code, parameters),
            None => Ok(()),
        }
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.pty.master.write_all(bytes)
    }
}

/// Rising edges of one byte on the line: start bit (low), eight bits from the lowest, stop bit (high).
fn rising_edges(byte: u8) -> u32 {
    let line = u32::from(byte) << 1 | 1 << 9;
    (!line & (line >> 1)).count_ones()
}

fn forward(mut line: File, host: &Sender<Event>) {
    let mut bytes = [0; 1024];
    while let Ok(count @ 1..) = line.read(&mut bytes) {
        if host.send(Event::Host(bytes[..count].to_vec())).is_err() {
            return;
        }
    }
}
