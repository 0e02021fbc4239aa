//! Logs as a station and its signer write them, and as somebody changes them who knows the format.

use std::{fs, path::Path, time::SystemTime};

use factory_journal::{
    Journal, Options, Sequence,
    segment::{Frame, HEADER_LEN, Hash, PREFIX_LEN, Prefix},
};
use factory_proto::{ids::EnrolmentId, outcome::Outcome};
use factory_station::{
    provenance::draft::Draft,
    recipe::template::Values,
    record::{Findings, HeadSigned, Identity, Record, RunClosed, RunId, RunOpened},
};
use minicbor::bytes::ByteVec;
use rcgen::{CertificateParams, DnType, KeyPair, SigningKey as _};
use uuid::Uuid;

/// Who signs heads in these tests.
pub struct Signer {
    pub key: KeyPair,
    pub certificate: Vec<u8>,
}

impl Signer {
    pub fn named(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.self_signed(&key).unwrap().der().to_vec();
        Self { key, certificate }
    }

    pub fn write_certificate(&self, path: &Path) {
        let text = data_encoding::BASE64.encode(&self.certificate);
        let pem = format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n");
        fs::write(path, pem).unwrap();
    }

    pub fn sign(&self, statement: Vec<u8>) -> HeadSigned {
        let signature = self.key.sign(&statement).unwrap();
        HeadSigned { statement, signature, certificates: vec![ByteVec::from(self.certificate.clone())] }
    }
}

pub fn run(number: u128) -> RunId {
    RunId::of_command(Uuid::from_u128(number))
}

pub fn closed(number: u128) -> Record {
    let fingerprint = [u8::try_from(number).unwrap(); 32];
    Record::RunClosed(Box::new(RunClosed {
        opened: RunOpened {
            run: run(number),
            order: Some("WO-1".parse().unwrap()),
            serial: format!("SN{number:04}").parse().unwrap(),
            nest: "A".parse().unwrap(),
            recipe_digest: [0; 32],
            started: SystemTime::UNIX_EPOCH,
            values: Values::default(),
            allowed: None,
            golden: None,
        },
        ended: SystemTime::UNIX_EPOCH,
        outcome: Outcome::Pass,
        stopped: None,
        findings: Findings {
            identity: Some(Identity {
                endpoint_name: format!("sensor-{number}").parse().unwrap(),
                certificate: vec![0x30; 100],
                fingerprint,
                enrolment_id: EnrolmentId::of_fingerprint(&fingerprint),
            }),
            ..Findings::default()
        },
        quarantine: None,
    }))
}

/// A log being written, as a station and its signer do.
pub struct Log<'a> {
    pub journal: Journal<Record>,
    pub draft: Draft,
    pub signer: &'a Signer,
    runs: u128,
}

impl<'a> Log<'a> {
    pub fn open(dir: &Path, signer: &'a Signer, runs: u128) -> Self {
        Self::with(Options::default(), dir, signer, runs)
    }

    pub fn with(options: Options, dir: &Path, signer: &'a Signer, runs: u128) -> Self {
        let journal = Journal::open(dir, options).unwrap();
        let draft = Draft::open(dir, "line-1".to_owned(), journal.last()).unwrap();
        Self { journal, draft, signer, runs }
    }

    pub async fn close_runs(&mut self, count: u128) {
        for _ in 0..count {
            self.runs += 1;
            self.journal.append(closed(self.runs)).await.unwrap();
        }
    }

    pub async fn sign_head(&mut self) -> HeadSigned {
        self.draft.gather(self.journal.last(), 256).unwrap();
        let head = self.signer.sign(self.draft.statement().unwrap().encode());
        self.journal.append(Record::HeadSigned(head.clone())).await.unwrap();
        self.draft.begin_next();
        head
    }
}

/// Records 1 to 5 are results and 6 is the head over them; 7, 8, 10 and 11 are results, 9 is a cursor, 12 is the head
/// over 6 to 11; 13 and 14 are results without a head. Gives the second head.
pub async fn write(dir: &Path, signer: &Signer) -> HeadSigned {
    let mut log = Log::open(dir, signer, 0);
    log.close_runs(5).await;
    log.sign_head().await;
    log.close_runs(2).await;
    log.journal.advance("controller", Sequence::from(5)).await.unwrap();
    log.close_runs(2).await;
    let head = log.sign_head().await;
    log.close_runs(2).await;
    head
}

pub const SEGMENT: &str = "segment-00000000000000000001.log";

/// The records of the log's one segment, for somebody who knows its format and has all the time in the world.
pub struct Forger {
    pub header: Vec<u8>,
    pub frames: Vec<Frame>,
}

impl Forger {
    pub fn read(dir: &Path) -> Self {
        let bytes = fs::read(dir.join(SEGMENT)).unwrap();
        let (header, mut rest) = bytes.split_at(HEADER_LEN);
        let mut frames = Vec::new();
        while let Some((prefix, behind)) = rest.split_first_chunk::<PREFIX_LEN>() {
            let (body, behind) = behind.split_at(Prefix::decode(*prefix).unwrap().length);
            frames.push(Frame::decode(body).unwrap());
            rest = behind;
        }
        Self { header: header.to_vec(), frames }
    }

    /// Numbers and chains everything anew, so that nothing inside the log shows what was done.
    pub fn rechain(&mut self) {
        let mut previous = Hash::default();
        for (number, frame) in (1..).zip(&mut self.frames) {
            (frame.sequence, frame.previous) = (Sequence::from(number), previous);
            previous = frame.encode(&mut Vec::new());
        }
    }

    /// Checksums are always right.
    pub fn write(&self, dir: &Path) {
        let mut bytes = self.header.clone();
        for frame in &self.frames {
            frame.encode(&mut bytes);
        }
        fs::write(dir.join(SEGMENT), bytes).unwrap();
    }

    /// Where a record begins in the file.
    pub fn offset(&self, record: usize) -> usize {
        let mut bytes = self.header.clone();
        for frame in &self.frames[..record - 1] {
            frame.encode(&mut bytes);
        }
        bytes.len()
    }

    pub fn change(&mut self, record: usize) {
        // A digit of the serial number: the record can still be read.
        let payload = &mut self.frames[record - 1].payload;
        let at = payload.windows(2).position(|bytes| bytes == b"SN").unwrap();
        payload[at + 5] ^= 1;
    }
}
