//! A device's conversation over one line: which message ends it, what is said when a frame is bad, and what
//! else is heard on a serial line (FCC protocol, sections 1, 2 and 8).

use std::io::{self, Read, Write};

use super::{
    frames::{self, Received, TransportStatus},
    message::{Device, Reply},
    scenario::Scenario,
};
use crate::moment::simulator::Moments;

/// What the device prints when it is ready.
pub const BANNER: &[u8] = b"factory client 4.13.4 starts\r\nwaiting for data on the serial line\r\n";
/// The moments of a message: it is there and nothing was done; it was obeyed and not answered; it was answered.
pub const RECEIVED: &str = "received";
/// See [`RECEIVED`].
pub const OBEYED: &str = "obeyed";
/// See [`RECEIVED`].
pub const ANSWERED: &str = "answered";

/// The kinds of line, which differ in what is heard after a bad frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// A status frame comes back, and log text shares the line.
    Serial,
    /// The connection is dropped; log text goes elsewhere.
    Tcp,
}

/// How a conversation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The other side left between frames; the device waits for the next.
    Left,
    /// The last message was processed and answered.
    Answered,
    /// The last message, or a bad frame, got a status frame or nothing: exit code 1.
    Refused,
    /// A bad frame in a session that was kept alive: the real program aborts with a double free.
    Crashed,
}

/// A device and the manner in which it speaks.
#[derive(Debug)]
pub struct Line {
    /// Who speaks.
    pub device: Device,
    /// Over what.
    pub transport: Transport,
    /// How badly.
    pub scenario: Scenario,
    /// How many messages were answered so far.
    pub answered: usize,
    /// Who is told when a message is there, when it is obeyed, and when it is answered.
    pub moments: Moments,
}

impl Line {
    /// Answers messages until the conversation ends.
    pub fn converse(&mut self, input: &mut impl Read, output: &mut impl Write) -> io::Result<End> {
        loop {
            self.scenario.before_message(self.answered, input)?;
            let payload = match frames::receive(input)? {
                Received::Payload(payload) => payload,
                Received::Closed => return Ok(End::Left),
                Received::Broken(status) => return self.refuse(status, output),
            };
            self.moments.tell(RECEIVED);
            let reply = self.device.handle(&payload);
            self.moments.tell(OBEYED);
            match &reply {
                Reply::Answer(payload) => {
                    self.scenario.send(frames::answer(payload), self.answered, output)?;
                }
                Reply::NotProcessed => {
                    frames::send(output, &frames::status(TransportStatus::NotProcessed))?;
                }
            }
            self.answered += 1;
            self.moments.tell(ANSWERED);
            if !self.device.is_alive() {
                return Ok(if matches!(reply, Reply::Answer(_)) { End::Answered } else { End::Refused });
            }
        }
    }

    fn refuse(&self, status: TransportStatus, output: &mut impl Write) -> io::Result<End> {
        if self.transport == Transport::Serial {
            frames::send(output, &frames::status(status))?;
        }
        Ok(if self.device.is_alive() { End::Crashed } else { End::Refused })
    }
}
