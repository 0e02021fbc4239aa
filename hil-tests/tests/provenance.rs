//! What the log proves, and what is found when somebody was at it.

#[path = "provenance/notary.rs"]
mod notary;

use std::{fs, path::Path, process::Command, time::SystemTime};

use factory_journal::{
    Journal, Options, Sequence,
    segment::{Frame, HEADER_LEN, Hash, PREFIX_LEN, Prefix},
};
use factory_proto::{ids::EnrolmentId, outcome::Outcome};
use factory_station::{
    provenance::{
        audit::{Audit, audit},
        draft::Draft,
        proof, signed,
    },
    record::{Findings, HeadSigned, Identity, Record, RunClosed, RunId, RunOpened},
};
use minicbor::bytes::ByteVec;
use rcgen::{CertificateParams, DnType, KeyPair, SigningKey as _};
use uuid::Uuid;

/// Who signs heads in these tests.
struct Signer {
    key: KeyPair,
    certificate: Vec<u8>,
}

impl Signer {
    fn named(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.self_signed(&key).unwrap().der().to_vec();
        Self { key, certificate }
    }

    fn sign(&self, statement: Vec<u8>) -> HeadSigned {
        let signature = self.key.sign(&statement).unwrap();
        HeadSigned { statement, signature, certificates: vec![ByteVec::from(self.certificate.clone())] }
    }
}

fn run(number: u128) -> RunId {
    RunId::of_command(Uuid::from_u128(number))
}

fn closed(number: u128) -> Record {
    let fingerprint = [u8::try_from(number).unwrap(); 32];
    Record::RunClosed(Box::new(RunClosed {
        opened: RunOpened {
            run: run(number),
            order: "WO-1".parse().unwrap(),
            serial: format!("SN{number:04}").parse().unwrap(),
            nest: "A".parse().unwrap(),
            recipe_digest: [0; 32],
            started: SystemTime::UNIX_EPOCH,
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
    }))
}

/// A log being written, as a station and its signer do.
struct Log<'a> {
    journal: Journal<Record>,
    draft: Draft,
    signer: &'a Signer,
    runs: u128,
}

impl<'a> Log<'a> {
    fn open(dir: &Path, signer: &'a Signer, runs: u128) -> Self {
        Self::with(Options::default(), dir, signer, runs)
    }

    fn with(options: Options, dir: &Path, signer: &'a Signer, runs: u128) -> Self {
        let journal = Journal::open(dir, options).unwrap();
        let draft = Draft::open(dir, "line-1".to_owned(), journal.last()).unwrap();
        Self { journal, draft, signer, runs }
    }

    async fn close_runs(&mut self, count: u128) {
        for _ in 0..count {
            self.runs += 1;
            self.journal.append(closed(self.runs)).await.unwrap();
        }
    }

    async fn sign_head(&mut self) -> HeadSigned {
        self.draft.gather(self.journal.last(), 256).unwrap();
        let head = self.signer.sign(self.draft.statement().unwrap().encode());
        self.journal.append(Record::HeadSigned(head.clone())).await.unwrap();
        self.draft.begin_next();
        head
    }
}

/// Records 1 to 5 are results and 6 is the head over them; 7, 8, 10 and 11 are results, 9 is a cursor, 12 is the head
/// over 6 to 11; 13 and 14 are results without a head. Gives the second head.
async fn write(dir: &Path, signer: &Signer) -> HeadSigned {
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

const SEGMENT: &str = "segment-00000000000000000001.log";

/// The records of the log's one segment, for somebody who knows its format and has all the time in the world.
struct Forger {
    header: Vec<u8>,
    frames: Vec<Frame>,
}

impl Forger {
    fn read(dir: &Path) -> Self {
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
    fn rechain(&mut self) {
        let mut previous = Hash::default();
        for (number, frame) in (1..).zip(&mut self.frames) {
            (frame.sequence, frame.previous) = (Sequence::from(number), previous);
            previous = frame.encode(&mut Vec::new());
        }
    }

    /// Checksums are always right.
    fn write(&self, dir: &Path) {
        let mut bytes = self.header.clone();
        for frame in &self.frames {
            frame.encode(&mut bytes);
        }
        fs::write(dir.join(SEGMENT), bytes).unwrap();
    }

    /// Where a record begins in the file.
    fn offset(&self, record: usize) -> usize {
        let mut bytes = self.header.clone();
        for frame in &self.frames[..record - 1] {
            frame.encode(&mut bytes);
        }
        bytes.len()
    }

    fn change(&mut self, record: usize) {
        // A digit of the serial number: the record can still be read.
        let payload = &mut self.frames[record - 1].payload;
        let at = payload.windows(2).position(|bytes| bytes == b"SN").unwrap();
        payload[at + 5] ^= 1;
    }
}

fn findings(audit: &Audit) -> Vec<String> {
    audit.findings.iter().map(ToString::to_string).collect()
}

/// What is done to the log, whether its traces are covered, and what the audit's first finding begins with and
/// contains; an empty one for no finding.
async fn check(tamper: impl FnOnce(&mut Forger), covered: bool, begins: &str, contains: &str) {
    let folder = tempfile::tempdir().unwrap();
    let signer = Signer::named("provenance");
    write(folder.path(), &signer).await;
    let mut forger = Forger::read(folder.path());
    tamper(&mut forger);
    if covered {
        forger.rechain();
    }
    forger.write(folder.path());
    let found = findings(&audit(folder.path(), std::slice::from_ref(&signer.certificate), &[]).unwrap());
    let first = found.first().map_or("", String::as_str);
    assert!(first.starts_with(begins) && first.contains(contains), "{begins:?} {contains:?}: {found:#?}");
    assert!(found.is_empty() == begins.is_empty(), "{found:#?}");
}

#[tokio::test]
async fn a_log_that_nobody_touched_is_right_and_its_numbers_are_told() {
    check(|_| (), false, "", "").await;
    check(|_| (), true, "", "").await;

    let folder = tempfile::tempdir().unwrap();
    let signer = Signer::named("provenance");
    let head = write(folder.path(), &signer).await;
    let audit = audit(folder.path(), std::slice::from_ref(&signer.certificate), &[head]).unwrap();
    assert_eq!(findings(&audit), [""; 0]);
    assert_eq!((audit.first, audit.last, audit.records), (1, 14, 14));
    assert_eq!((audit.closed_runs, audit.unsigned_runs), (11, 2));
    let covered: Vec<_> = audit
        .heads
        .iter()
        .map(|head| (head.record.get(), head.statement.first_sequence, head.statement.last_sequence))
        .collect();
    assert_eq!(covered, [(6, 1, 5), (12, 6, 11)]);
}

#[tokio::test]
async fn what_was_done_to_records_is_found_at_the_record() {
    check(|log| log.change(3), false, "record 4 (segment-00000000000000000001.log, byte ", "does not follow")
        .await;
    check(|log| drop(log.frames.remove(2)), false, "record 3 ", "record 4 stands here").await;
    check(|log| log.frames.swap(2, 3), false, "record 3 ", "record 4 stands here").await;
    check(|log| log.frames.insert(2, log.frames[1].clone()), false, "record 3 ", "record 2 stands here")
        .await;
    check(|log| log.frames.truncate(11), false, "", "").await;
}

#[tokio::test]
async fn what_was_done_with_all_traces_covered_is_found_between_two_heads() {
    let first = "records 1 to 5 (segment-00000000000000000001.log)";
    let second = "records 6 to 11 (segment-00000000000000000001.log)";
    check(|log| log.change(3), true, first, "they are not what was signed").await;
    check(|log| log.change(10), true, second, "they are not what was signed").await;
    check(|log| drop(log.frames.remove(2)), true, first, "5 were signed").await;
    check(|log| drop(log.frames.remove(7)), true, second, "6 were signed").await;
    check(|log| log.frames.swap(2, 3), true, first, "they are not what was signed").await;
    check(|log| log.frames.insert(2, log.frames[1].clone()), true, first, "they are not what was signed")
        .await;
    check(|log| log.frames.swap(4, 5), true, first, "4 are there").await;
    // A head taken out leaves records that no head covers, and hashes that are not those that were signed.
    check(|log| drop(log.frames.remove(5)), true, "records 1 to 5 ", "no head covers them").await;
    // The cursor is a record like any other.
    check(|log| drop(log.frames.remove(8)), true, second, "5 are there").await;
}

#[tokio::test]
async fn bytes_that_were_changed_or_cut_off_are_found_at_their_record() {
    let check = async |damage: fn(&Forger, &mut Vec<u8>), expected: &str| {
        let folder = tempfile::tempdir().unwrap();
        let signer = Signer::named("provenance");
        write(folder.path(), &signer).await;
        let mut bytes = fs::read(folder.path().join(SEGMENT)).unwrap();
        damage(&Forger::read(folder.path()), &mut bytes);
        fs::write(folder.path().join(SEGMENT), bytes).unwrap();
        let found = findings(&audit(folder.path(), &[], &[]).unwrap());
        assert!(found[0].contains(expected), "{expected:?}: {found:#?}");
    };
    check(|log, bytes| bytes[log.offset(5) + 100] ^= 1, "record 5 (").await;
    check(|log, bytes| bytes[log.offset(5) + 100] ^= 1, "its checksum is wrong").await;
    check(|log, bytes| bytes[log.offset(5) + 3] = 0xFF, "record 5 (").await;
    check(|log, bytes| bytes[log.offset(5) + 3] = 0xFF, "is no record").await;
    check(|log, bytes| bytes.truncate(log.offset(14) + 100), "record 14 (").await;
    check(|log, bytes| bytes.truncate(log.offset(14) + 100), "the record is cut off").await;
    check(|_, bytes| bytes[20] ^= 1, "checksum of the segment's header is wrong").await;
    // Zeros at the end are space that was reserved.
    let zeros = |_: &Forger, bytes: &mut Vec<u8>| bytes.extend([0; 4096]);
    let folder = tempfile::tempdir().unwrap();
    let signer = Signer::named("provenance");
    write(folder.path(), &signer).await;
    let mut bytes = fs::read(folder.path().join(SEGMENT)).unwrap();
    zeros(&Forger::read(folder.path()), &mut bytes);
    fs::write(folder.path().join(SEGMENT), bytes).unwrap();
    assert_eq!(findings(&audit(folder.path(), &[], &[]).unwrap()), [""; 0]);
}

#[tokio::test]
async fn a_log_of_many_segments_is_one_and_a_missing_one_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let signer = Signer::named("provenance");
    let trusted = std::slice::from_ref(&signer.certificate);
    // A result takes about 400 bytes: two make a segment.
    let mut log = Log::with(Options { segment_size: 700 }, folder.path(), &signer, 0);
    for _ in 0..3 {
        log.close_runs(5).await;
        log.sign_head().await;
    }
    // A draft that is begun in the middle comes to the same.
    log.draft = Draft::open(folder.path(), "line-1".to_owned(), log.journal.last()).unwrap();
    log.close_runs(5).await;
    log.sign_head().await;
    drop(log);
    let sound = audit(folder.path(), trusted, &[]).unwrap();
    assert_eq!(findings(&sound), [""; 0]);
    assert_eq!((sound.closed_runs, sound.heads.len()), (20, 4));
    assert!(sound.segments > 8, "{}", sound.segments);

    let segments = factory_station::provenance::chain::segments(folder.path()).unwrap();
    let ((first, gone), (next, _)) = (&segments[3], &segments[4]);
    fs::remove_file(gone).unwrap();
    let found = findings(&audit(folder.path(), trusted, &[]).unwrap());
    let expected = format!("records {first} to {} are missing", next.get() - 1);
    assert!(found[0].contains(&expected), "{expected}: {found:#?}");
}

#[tokio::test]
async fn a_head_signed_by_a_stranger_is_found_where_the_right_certificate_is_known() {
    let folder = tempfile::tempdir().unwrap();
    let (signer, stranger) = (Signer::named("provenance"), Signer::named("stranger"));
    // A stranger writes the whole log anew, and signs it.
    write(folder.path(), &stranger).await;
    assert_eq!(findings(&audit(folder.path(), &[], &[]).unwrap()), [""; 0]);
    let found = findings(&audit(folder.path(), std::slice::from_ref(&signer.certificate), &[]).unwrap());
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(
        found[0].starts_with("record 6 (") && found[0].contains("knows nothing of (CN=stranger)"),
        "{found:#?}"
    );

    // Another certificate under the same signature.
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &signer).await;
    let mut forger = Forger::read(folder.path());
    let Ok(Record::HeadSigned(mut head)) = minicbor::decode(&forger.frames[11].payload) else {
        panic!("record 12 is a head")
    };
    head.certificates = vec![ByteVec::from(stranger.certificate)];
    forger.frames[11].payload = minicbor::to_vec(Record::HeadSigned(head)).unwrap();
    forger.rechain();
    forger.write(folder.path());
    let found = findings(&audit(folder.path(), &[], &[]).unwrap());
    assert!(found[0].starts_with("record 12 (") && found[0].contains("not by the key"), "{found:#?}");
}

#[tokio::test]
async fn a_log_that_was_cut_or_rolled_back_as_a_whole_is_found_with_a_head_from_the_mes() {
    let signer = Signer::named("provenance");
    let check = async |change: &dyn Fn(&mut Forger), grow: u128, says: &str| {
        let folder = tempfile::tempdir().unwrap();
        let head = write(folder.path(), &signer).await;
        let mut forger = Forger::read(folder.path());
        change(&mut forger);
        forger.write(folder.path());
        let _ = fs::remove_dir_all(folder.path().join("index"));
        if grow > 0 {
            let mut log = Log::open(folder.path(), &signer, 100);
            log.close_runs(grow).await;
            log.sign_head().await;
        }
        let trusted = std::slice::from_ref(&signer.certificate);
        assert_eq!(findings(&audit(folder.path(), trusted, &[]).unwrap()), [""; 0], "by itself it is right");
        let found = findings(&audit(folder.path(), trusted, &[head]).unwrap());
        assert!(found.len() == 1 && found[0].contains(says), "{says:?}: {found:#?}");
    };
    check(&|log| log.frames.truncate(10), 0, "the log ends with record 10, but up to record 11 was signed")
        .await;
    check(&|log| log.frames.truncate(6), 0, "the log ends with record 6, but up to record 11 was signed")
        .await;
    check(&|log| log.frames.truncate(6), 8, "record 11 (segment").await;
    check(&|log| log.frames.truncate(6), 8, "not the record of which a head from elsewhere was signed").await;
    // Begun anew.
    check(&|log| log.frames.truncate(0), 3, "is of another log").await;
}

#[tokio::test]
async fn a_head_from_elsewhere_must_be_genuine_to_count() {
    let folder = tempfile::tempdir().unwrap();
    let signer = Signer::named("provenance");
    let mut head = write(folder.path(), &signer).await;
    let trusted = [Signer::named("other").certificate];
    assert!(
        audit(folder.path(), &trusted, &[head.clone()]).unwrap_err().to_string().contains("knows nothing of")
    );
    head.signature[10] ^= 1;
    assert!(audit(folder.path(), &[], &[head]).is_err());
}

#[tokio::test]
async fn a_unit_is_proven_by_its_proof_alone_and_by_nothing_that_was_changed_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let signer = Signer::named("provenance");
    let trusted = std::slice::from_ref(&signer.certificate);
    write(folder.path(), &signer).await;
    let file = folder.path().join("proof.json");
    for number in 1..=9 {
        fs::write(&file, proof::prove(folder.path(), run(number)).unwrap()).unwrap();
        let proven = proof::check(&file, trusted).unwrap();
        assert_eq!(Record::RunClosed(proven.closed), closed(number));
    }
    for (number, why) in [(10, "no head covers the result"), (99, "the log has no result")] {
        let error = proof::prove(folder.path(), run(number)).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }

    let proof: serde_json::Value =
        serde_json::from_slice(&proof::prove(folder.path(), run(7)).unwrap()).unwrap();
    let refused = |change: &dyn Fn(&mut serde_json::Value), trusted: &[Vec<u8>]| {
        let mut changed = proof.clone();
        change(&mut changed);
        fs::write(&file, changed.to_string()).unwrap();
        proof::check(&file, trusted).is_err()
    };
    assert!(!refused(&|_| (), trusted), "unchanged it proves");
    let flip = |value: &mut serde_json::Value| {
        let mut bytes = data_encoding::BASE64.decode(value.as_str().unwrap().as_bytes()).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        *value = data_encoding::BASE64.encode(&bytes).into();
    };
    for pointer in
        ["/record", "/path/0", "/path/1", "/head/statement", "/head/signature", "/head/certificates/0"]
    {
        assert!(refused(&|proof| flip(proof.pointer_mut(pointer).unwrap()), trusted), "{pointer}");
    }
    assert!(refused(&|proof| drop(proof["path"].as_array_mut().unwrap().pop()), trusted));
    assert!(refused(&|proof| proof["format"] = "another".into(), trusted));
    assert!(refused(&|_| (), &[Signer::named("other").certificate]));
}

#[tokio::test]
async fn openssl_agrees_with_the_signature_of_a_head() {
    let folder = tempfile::tempdir().unwrap();
    let signer = Signer::named("provenance");
    let head = write(folder.path(), &signer).await;
    signed::check(&head).unwrap();
    openssl_agrees(folder.path(), &head, true);
    let mut other = head.clone();
    other.statement[30] ^= 1;
    assert!(signed::check(&other).is_err());
    openssl_agrees(folder.path(), &other, false);
}

fn openssl_agrees(folder: &Path, head: &HeadSigned, expected: bool) {
    let path = |name: &str| folder.join(name);
    fs::write(path("statement"), &head.statement).unwrap();
    fs::write(path("signature"), &head.signature).unwrap();
    fs::write(path("certificate"), &**head.certificates.first().unwrap()).unwrap();
    let openssl = |arguments: &[&str]| {
        Command::new("openssl").args(arguments).current_dir(folder).output().expect("openssl is there")
    };
    let key = openssl(&["x509", "-inform", "DER", "-in", "certificate", "-noout", "-pubkey"]);
    fs::write(path("key"), key.stdout).unwrap();
    let verified = openssl(&["dgst", "-sha256", "-verify", "key", "-signature", "signature", "statement"]);
    assert_eq!(verified.status.success(), expected, "{}", String::from_utf8_lossy(&verified.stderr));
}
