//! Reads along on the UART for the two lines that matter to a simulator. Total: any bytes may come.

/// A line that matters.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// The firmware booted; this is its version.
    Booted(String),
    /// The firmware went quiet so that the FCC device can speak.
    FccStarted,
}

/// The line so far.
#[derive(Debug, Default)]
pub struct Watch {
    line: Vec<u8>,
}

/// Longer lines are none of the firmware's.
const LONGEST: usize = 128;

impl Watch {
    /// Takes in what the UART sent.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        for byte in bytes {
            if *byte == b'\n' {
                events.extend(std::str::from_utf8(&self.line).ok().and_then(event));
                self.line.clear();
            } else if self.line.len() <= LONGEST {
                self.line.push(*byte);
            }
        }
        events
    }
}

fn event(line: &str) -> Option<Event> {
    let line = line.trim_end_matches('\r');
    if line == "fcc start" {
        return Some(Event::FccStarted);
    }
    let version = line.strip_prefix("boot hilfw ")?.split(' ').next()?;
    Some(Event::Booted(version.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(chunks: &[&[u8]], expected: &[Event]) {
        let mut watch = Watch::default();
        let events: Vec<_> = chunks.iter().flat_map(|chunk| watch.feed(chunk)).collect();
        assert_eq!(events, expected);
    }

    #[test]
    fn only_whole_lines_count_however_they_are_cut() {
        check(&[b"boot hilfw 1.0.0 id 00", b"ff\r", b"\nready\r\n"], &[Event::Booted("1.0.0".into())]);
        check(&[b"fcc sta", b"rt\r\n"], &[Event::FccStarted]);
        check(&[b"fcc start"], &[]);
        check(&[b"error fcc start\r\nfcc starts\r\n"], &[]);
        check(&[&[0xff; 5000], b"\nfcc start\n"], &[Event::FccStarted]);
    }
}
