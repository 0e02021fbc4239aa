//! Real libnfc, through the station's own code, against a simulated reader in its own process.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use factory_fixtures::tag::{
    TagError, TagErrorKind,
    ndef::EnrolmentMessage,
    reader::{TagReader, Written},
    type2::{Lock, Model},
};
use factory_hil_tests::{
    control,
    reader::{
        Dump, Fault, Placement, Request, WireFault, frame,
        ntag::{Kind, TagFaults},
        pn532,
    },
};
use nix::sys::termios::{self, SetArg, SpecialCharacterIndices};
use tempfile::TempDir;

const UID: &str = "04A1B2C3D4E5F6";

/// A simulated reader, ended with the test.
struct Sim {
    dir: TempDir,
    process: Child,
}

impl Sim {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut process = Command::new(env!("CARGO_BIN_EXE_sim-reader"))
            .arg("--dir")
            .arg(dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self { dir, process }
    }

    fn with_tag(kind: Kind, locked: bool, faults: TagFaults) -> Self {
        let sim = Self::start();
        sim.ask(Request::Place(Placement { kind, uid: UID.into(), locked, faults }));
        sim
    }

    fn fresh() -> Self {
        Self::with_tag(Kind::Ntag213, false, TagFaults::default())
    }

    fn faulty(faults: TagFaults) -> Self {
        Self::with_tag(Kind::Ntag213, false, faults)
    }

    fn connstring(&self) -> String {
        format!("pn532_uart:{}", self.dir.path().join("reader").display())
    }

    fn open(&self) -> TagReader {
        TagReader::open(&self.connstring()).unwrap()
    }

    fn ask(&self, request: Request) -> Option<Dump> {
        control::call(&self.dir.path().join("control.sock"), &request).unwrap()
    }

    fn dump(&self) -> Dump {
        self.ask(Request::Dump).unwrap()
    }

    fn fault(&self, on: u8, what: WireFault) {
        self.ask(Request::Fault(Fault { on: Some(on), what }));
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn enrolment() -> EnrolmentMessage {
    EnrolmentMessage {
        uri: "https://e.test/1!".into(),
        record_type: "example.com:enrol".into(),
        enrolment_id: "A-0F".into(),
    }
}

fn message() -> Vec<u8> {
    enrolment().encode().unwrap()
}

/// What a station does: it looks which tag there is, then writes that one.
fn write(reader: &mut TagReader, message: &[u8]) -> Result<Written, TagError> {
    let uid = reader.uid()?;
    reader.write(&uid, message)
}

/// The error's kind and what it says.
fn failure<T: std::fmt::Debug>(result: Result<T, TagError>) -> (TagErrorKind, String) {
    let error = result.unwrap_err();
    (error.kind(), error.to_string())
}

#[test]
fn an_enrolment_message_is_read_back_by_a_fresh_reader() {
    let sim = Sim::fresh();
    let written = write(&mut sim.open(), &message()).unwrap();
    assert_eq!((written.uid.to_string().as_str(), written.ndef), (UID, message()));

    let seen = sim.open().look().unwrap();
    assert_eq!((seen.uid.to_string().as_str(), seen.kind, seen.writable), (UID, Model::Ntag213, true));
    let decoded = EnrolmentMessage::decode(&seen.ndef.unwrap(), "example.com:enrol").unwrap();
    assert_eq!(decoded, enrolment());
}

#[test]
fn the_tag_holds_the_message_behind_its_lock_control_tlv() {
    let sim = Sim::fresh();
    let fresh = sim.dump();
    write(&mut sim.open(), &message()).unwrap();
    let written = sim.dump();

    let mut area = hex("0103A00C34");
    area.extend([0x03, u8::try_from(message().len()).unwrap()]);
    area.extend(message());
    area.push(0xFE);
    area.resize(area.len().next_multiple_of(4), 0);
    let end = 4 + area.len() / 4;
    assert_eq!(hex(&written.pages[4..end].concat()), area);
    assert_eq!((&written.pages[..4], &written.pages[end..]), (&fresh.pages[..4], &fresh.pages[end..]));
}

#[test]
fn every_model_is_known_and_takes_a_long_message() {
    fn check(kind: Kind, model: Model, length: usize) {
        let sim = Sim::with_tag(kind, false, TagFaults::default());
        let enrolment = EnrolmentMessage { enrolment_id: "7".repeat(length), ..enrolment() };
        let message = enrolment.encode().unwrap();
        let mut reader = sim.open();
        write(&mut reader, &message).unwrap();
        let seen = reader.look().unwrap();
        assert_eq!((seen.kind, seen.ndef), (model, Some(message)));
    }
    check(Kind::Ntag213, Model::Ntag213, 60);
    check(Kind::Ntag215, Model::Ntag215, 400);
    check(Kind::Ntag216, Model::Ntag216, 700);
}

#[test]
fn a_locked_tag_is_refused_and_nothing_is_written() {
    let sim = Sim::with_tag(Kind::Ntag213, true, TagFaults::default());
    let before = sim.dump();
    let mut reader = sim.open();
    assert!(!reader.look().unwrap().writable);
    let refused = write(&mut reader, &message()).unwrap_err();
    assert_eq!(refused.kind(), TagErrorKind::Product);
    assert!(matches!(refused, TagError::Locked { lock: Lock::ReadOnly, .. }), "{refused}");
    assert_eq!(sim.dump(), before);
}

#[test]
fn another_tag_than_the_one_that_was_seen_is_not_written() {
    let sim = Sim::fresh();
    let mut reader = sim.open();
    let seen = reader.uid().unwrap();
    let uid = "04FFFFFFFFFFFF".into();
    sim.ask(Request::Place(Placement {
        kind: Kind::Ntag213,
        uid,
        locked: false,
        faults: TagFaults::default(),
    }));
    let before = sim.dump();
    let (kind, said) = failure(reader.write(&seen, &message()));
    assert_eq!(kind, TagErrorKind::Missing);
    assert_eq!(said, format!("tag 04FFFFFFFFFFFF answers where tag {UID} was a moment before"));
    assert_eq!(sim.dump(), before);
}

#[test]
fn without_a_tag_it_is_missing_until_one_is_laid_in() {
    let sim = Sim::start();
    let mut reader = sim.open();
    let missing = (TagErrorKind::Missing, "no tag in the field".to_owned());
    assert_eq!(failure(reader.look()), missing);
    assert_eq!(failure(write(&mut reader, &message())), missing);
    let placement =
        Placement { kind: Kind::Ntag213, uid: UID.into(), locked: false, faults: TagFaults::default() };
    sim.ask(Request::Place(placement));
    write(&mut reader, &message()).unwrap();
    sim.ask(Request::Remove);
    assert_eq!(failure(reader.look()), missing);
}

#[test]
fn a_tag_torn_away_reads_as_empty_and_is_written_again() {
    fn check(faults: TagFaults) {
        let sim = Sim::faulty(faults);
        let mut reader = sim.open();
        let (kind, said) = failure(write(&mut reader, &message()));
        assert_eq!(kind, TagErrorKind::Missing);
        assert!(said.contains("left the field while page 8 was at work"), "{said}");
        sim.ask(Request::PutBack);
        assert_eq!(reader.look().unwrap().ndef, Some(vec![]));
        assert_eq!(write(&mut reader, &message()).unwrap().ndef, message());
    }
    check(TagFaults { tear_at: Some(8), ..Default::default() });
    check(TagFaults { leave_before: Some(8), ..Default::default() });
}

#[test]
fn the_same_message_again_writes_no_page() {
    let sim = Sim::fresh();
    let mut reader = sim.open();
    assert!(write(&mut reader, &message()).unwrap().pages > 0);
    let before = sim.dump();
    let again = write(&mut reader, &message()).unwrap();
    assert_eq!((again.pages, again.ndef), (0, message()));
    assert_eq!(sim.dump(), before);
}

#[test]
fn a_page_that_fails_is_named_and_is_the_products_fault() {
    fn check(faults: TagFaults, complaint: &str) {
        let (kind, said) = failure(write(&mut Sim::faulty(faults).open(), &message()));
        assert_eq!((kind, said), (TagErrorKind::Product, complaint.to_owned()));
    }
    check(
        TagFaults { worn: [10].into(), ..Default::default() },
        "page 10 of tag 04A1B2C3D4E5F6 does not hold what was written",
    );
    check(TagFaults { refuses: [10].into(), ..Default::default() }, "tag 04A1B2C3D4E5F6 refused page 10");
}

#[test]
fn a_tag_of_another_type_is_the_products_fault() {
    let sim = Sim::with_tag(Kind::MifareClassic, false, TagFaults::default());
    let (kind, said) = failure(write(&mut sim.open(), &message()));
    assert_eq!(
        (kind, said.as_str()),
        (TagErrorKind::Product, "tag 04A1B2C3 is no type 2 tag: it answers sak 0x08")
    );
}

#[test]
fn a_reader_that_fails_once_is_opened_again() {
    fn check(what: WireFault) {
        let sim = Sim::fresh();
        let mut reader = sim.open();
        sim.fault(pn532::IN_DATA_EXCHANGE, what);
        assert_eq!(failure(write(&mut reader, &message())).0, TagErrorKind::Instrument);
        assert_eq!(write(&mut reader, &message()).unwrap().ndef, message());
    }
    check(WireFault::NoReply);
    check(WireFault::Garbage(vec![0xAA; 16]));
    check(WireFault::Status(0x0D)); // overheated
    check(WireFault::Delay(Duration::from_millis(700)));
    // The answer comes while the reader is being opened again.
    check(WireFault::Delay(Duration::from_millis(1200)));
}

#[test]
fn noise_on_the_air_is_no_refusal() {
    let sim = Sim::fresh();
    let mut reader = sim.open();
    sim.fault(pn532::IN_DATA_EXCHANGE, WireFault::Status(0x02)); // CRC error
    assert_eq!(write(&mut reader, &message()).unwrap().ndef, message());
}

#[test]
fn a_port_that_cannot_be_used_is_the_instruments_fault() {
    fn check(connstring: &str, complaint: &str) {
        let (kind, said) = failure(TagReader::open(connstring).map(|_| ()));
        assert_eq!(kind, TagErrorKind::Instrument);
        assert!(said.contains(complaint), "{said}");
    }
    let sim = Sim::fresh();
    let mut reader = sim.open();
    check(&sim.connstring(), "in use by another process");
    check("pn532_uart:/nonexistent/reader", "could not open the reader's port /nonexistent/reader");
    check(&format!("{}:115200", sim.connstring()), "second colon");
    reader.look().unwrap();
}

/// Debian's `nfc-mfultralight`, reading the tag into a file.
fn peer_reads(sim: &Sim) -> (Output, PathBuf) {
    let file = sim.dir.path().join("tag.mfd");
    let output = Command::new("nfc-mfultralight")
        .arg("r")
        .arg(&file)
        .env("LIBNFC_DEFAULT_DEVICE", sim.connstring())
        .output()
        .expect("nfc-mfultralight of Debian's libnfc-examples is installed");
    (output, file)
}

#[test]
fn debians_own_tool_reads_the_same_bytes() {
    let sim = Sim::fresh();
    write(&mut sim.open(), &message()).unwrap();
    let (output, file) = peer_reads(&sim);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // All 45 pages but the last two, which are secret.
    let pages = hex(&sim.dump().pages[..43].concat());
    assert_eq!(std::fs::read(file).unwrap()[..pages.len()], pages);
}

#[test]
fn a_status_with_its_highest_bit_set_aborts_the_process_that_libnfc_is_in() {
    let sim = Sim::fresh();
    sim.fault(pn532::IN_DATA_EXCHANGE, WireFault::Status(0x80));
    let (output, _) = peer_reads(&sim);
    assert_eq!(output.status.signal(), Some(libc::SIGABRT));
}

#[test]
fn what_follows_a_power_down_has_to_wake_the_chip_again() {
    const WAKE: [u8; 3] = [0x55, 0x55, 0x00];
    const POWER_DOWN: [u8; 10] = [0x00, 0x00, 0xFF, 0x03, 0xFD, 0xD4, 0x16, 0x20, 0xF6, 0x00];
    const GET_FIRMWARE: [u8; 9] = [0x00, 0x00, 0xFF, 0x02, 0xFE, 0xD4, 0x02, 0x2A, 0x00];
    let sim = Sim::start();
    let mut port = File::options().read(true).write(true).open(sim.dir.path().join("reader")).unwrap();
    // A read gives up after two seconds: a chip that sleeps fails this test and does not hang it.
    let mut settings = termios::tcgetattr(&port).unwrap();
    settings.control_chars[SpecialCharacterIndices::VMIN as usize] = 0;
    settings.control_chars[SpecialCharacterIndices::VTIME as usize] = 20;
    termios::tcsetattr(&port, SetArg::TCSANOW, &settings).unwrap();

    let firmware = [&frame::ACK[..], &frame::answer(0x02, &[0x32, 0x01, 0x06, 0x07])].concat();
    let asleep = [&frame::ACK[..], &frame::answer(pn532::POWER_DOWN, &[0x00])].concat();
    let mut exchange = |sent: &[&[u8]], expected: &[&[u8]]| {
        port.write_all(&sent.concat()).unwrap();
        let mut answer = vec![0; expected.concat().len()];
        port.read_exact(&mut answer).unwrap();
        assert_eq!(answer, expected.concat());
    };
    exchange(&[&WAKE, &POWER_DOWN, &WAKE, &GET_FIRMWARE], &[&asleep, &firmware]);
    exchange(&[&GET_FIRMWARE], &[&firmware]);
}

fn hex(text: &str) -> Vec<u8> {
    data_encoding::HEXUPPER.decode(text.as_bytes()).unwrap()
}
