//! A debug probe on a Unix socket, in the wire format of probe-rs's own network probe ("Glasgow": COBS packets
//! to a root and an SWD endpoint). A real, unmodified probe-rs opens it with `20b7:9db1:unix:PATH`.
//! Registers and their meaning are the debug port's; a nest without a board does not answer.

mod request;

use std::{
    io::{self, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    thread,
};

use self::request::{Endpoint, Requests, RootRequest, SwdRequest};
use super::{
    NestHandle, cobs,
    debug_port::{DebugPort, Nack},
};
use crate::work::Work;

const IDENTIFIER: &[u8] = b"probe-rs,v01";
const REFERENCE_CLOCK_HZ: u32 = 48_000_000;
const ACK_OK: u8 = 0x11;
const ACK_FAULT: u8 = 0x14;
const DATA: u8 = 0x01;
const NO_ACK: u8 = 0x20;

/// Serves the probe of `nest` at `path`, one host at a time, for as long as the process lives. It is at work while
/// there is a host.
pub fn serve(path: &Path, nest: NestHandle, work: Work) -> io::Result<()> {
    let listener = UnixListener::bind(path)?;
    thread::spawn(move || {
        for host in listener.incoming().filter_map(Result::ok) {
            let _at_work = work.begin();
            nest.ask(|nest| nest.probe_hosts += 1);
            // A host may be killed at any moment; the next one finds a probe that knows nothing of it.
            if let Err(error) = Probe::new(nest.clone()).converse(host) {
                tracing::debug!(%error, "a host went away");
            }
        }
    });
    Ok(())
}

struct Probe {
    nest: NestHandle,
    requests: Requests,
    divisor: u16,
}

impl Probe {
    fn new(nest: NestHandle) -> Self {
        // A probe that was unplugged from its host lets go of the reset pin.
        nest.with_port(|port| port.map(|port| log_failure(port.drive_reset(false))));
        Self { nest, requests: Requests::default(), divisor: 0 }
    }

    fn converse(mut self, mut host: UnixStream) -> io::Result<()> {
        let mut chunk = vec![0; 1 << 16];
        loop {
            let count = host.read(&mut chunk)?;
            if count == 0 {
                return Ok(());
            }
            self.requests.receive(&chunk[..count])?;
            let root = self.answer_root();
            let swd = self.answer_swd();
            for (endpoint, answer) in [(Endpoint::Root, root), (Endpoint::Swd, swd)] {
                if !answer.is_empty() {
                    let packet = [&[endpoint as u8], answer.as_slice()].concat();
                    host.write_all(&cobs::encode(&packet))?;
                }
            }
        }
    }

    fn answer_root(&mut self) -> Vec<u8> {
        let mut answer = Vec::new();
        while let Some(request) = self.requests.next_root() {
            match request {
                RootRequest::Identify => answer.extend_from_slice(IDENTIFIER),
                RootRequest::ReferenceClock => answer.extend_from_slice(&REFERENCE_CLOCK_HZ.to_le_bytes()),
                RootRequest::GetDivisor => answer.extend_from_slice(&self.divisor.to_le_bytes()),
                RootRequest::SetDivisor(divisor) => self.divisor = divisor,
                RootRequest::Reset { low } => {
                    self.nest.with_port(move |port| port.map(|port| log_failure(port.drive_reset(low))));
                }
                RootRequest::Unknown => {}
            }
        }
        answer
    }

    fn answer_swd(&mut self) -> Vec<u8> {
        let batch = self.requests.take_swd();
        self.nest.with_port(move |port| match port {
            Some(port) => run_batch(port, &batch),
            None if batch.iter().any(SwdRequest::is_transfer) => vec![NO_ACK],
            None => Vec::new(),
        })
    }
}

fn log_failure(result: io::Result<()>) {
    if let Err(error) = result {
        tracing::warn!(%error, "the reset pin had no effect");
    }
}

/// The host stops reading answers at the first one that is not OK and forgets the rest of its batch,
/// so a batch ends at its first error.
fn run_batch(port: &mut DebugPort, batch: &[SwdRequest]) -> Vec<u8> {
    let mut answer = Vec::new();
    let mut rest = batch;
    while let Some(request) = rest.first() {
        let run = rest.iter().take_while(|next| next.continues(request)).count();
        if let Err(nack) = run_alike(port, &rest[..run], &mut answer) {
            answer.push(match nack {
                Nack::Fault => ACK_FAULT,
                Nack::NoAnswer => NO_ACK,
            });
            break;
        }
        rest = &rest[run..];
    }
    answer
}

/// Runs requests of one kind to one register.
fn run_alike(port: &mut DebugPort, requests: &[SwdRequest], answer: &mut Vec<u8>) -> Result<(), Nack> {
    match requests[0] {
        SwdRequest::Sequence { bits, count } => port.sequence(bits, count),
        SwdRequest::ReadDp(register) => push_data(answer, port.read_dp(register)?),
        SwdRequest::WriteDp(register, value) => {
            port.write_dp(register, value)?;
            answer.push(ACK_OK);
        }
        SwdRequest::ReadAp(register) => {
            for value in port.read_ap(register, requests.len())? {
                push_data(answer, value);
            }
        }
        SwdRequest::WriteAp(register, _) => {
            let values: Vec<u32> = requests.iter().filter_map(SwdRequest::ap_value).collect();
            port.write_ap(register, &values)?;
            answer.resize(answer.len() + values.len(), ACK_OK);
        }
    }
    Ok(())
}

fn push_data(answer: &mut Vec<u8>, value: u32) {
    answer.push(DATA);
    answer.extend_from_slice(&value.to_le_bytes());
}
