//! What the log proves, and what is found when somebody was at it.

#[path = "provenance/log.rs"]
mod log;
#[path = "provenance/notary.rs"]
mod notary;
#[path = "provenance/station.rs"]
mod station;
#[path = "provenance/tls.rs"]
mod tls;

use std::{fs, path::Path, process::Command};

use factory_journal::Options;
use factory_station::{
    provenance::{
        audit::{Audit, audit},
        chain,
        draft::Draft,
        proof, signed,
    },
    record::{HeadSigned, Record},
};
use log::{Forger, Log, SEGMENT, Signer, closed, run, write};
use minicbor::bytes::ByteVec;
use proptest::prelude::*;

fn programs() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_sim-target")).parent().expect("a program lies in a folder")
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

#[test]
fn no_changed_bit_and_no_cut_within_a_record_goes_unnoticed() {
    let folder = tempfile::tempdir().unwrap();
    let signer = Signer::named("provenance");
    tokio::runtime::Runtime::new().unwrap().block_on(write(folder.path(), &signer));
    let (file, log) = (folder.path().join(SEGMENT), Forger::read(folder.path()));
    let whole = fs::read(&file).unwrap();
    let ends: Vec<usize> = (1..=14).map(|record| log.offset(record)).chain([whole.len()]).collect();
    let is_found = |bytes: &[u8]| {
        fs::write(&file, bytes).unwrap();
        !audit(folder.path(), &[], &[]).unwrap().findings.is_empty()
    };
    assert!(!is_found(&whole));
    proptest!(|(at: prop::sample::Index, bit in 0..8u8)| {
        let at = at.index(whole.len());
        let mut changed = whole.clone();
        changed[at] ^= 1 << bit;
        prop_assert!(is_found(&changed), "byte {at}");
        prop_assert!(ends.contains(&at) || is_found(&whole[..at]), "cut at {at}");
    });
}

#[tokio::test]
async fn a_log_of_many_segments_is_one_and_a_missing_one_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let signer = Signer::named("provenance");
    let trusted = std::slice::from_ref(&signer.certificate);
    // A result takes about 400 bytes: two make a segment.
    let mut log = Log::with(Options { segment_size: 700, ..Options::default() }, folder.path(), &signer, 0);
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

    let segments = chain::segments(folder.path()).unwrap();
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

/// What `stationctl provenance` says, and whether it ends with 0.
fn stationctl(arguments: &[&str]) -> (bool, String) {
    let ended = Command::new(programs().join("stationctl")).arg("provenance").args(arguments).output();
    let ended = ended.expect("stationctl is built");
    let said = [ended.stdout, ended.stderr].concat();
    (ended.status.success(), String::from_utf8(said).unwrap())
}

#[tokio::test]
async fn the_command_says_what_it_found_and_ends_accordingly() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let signer = Signer::named("provenance");
    write(&folder.path().join("journal"), &signer).await;
    let (state, ca) = (path("journal"), path("provenance.pem"));
    signer.write_certificate(Path::new(&ca));
    let check = |arguments: &[&str], ends_well: bool, says: &[&str]| {
        let (ended_well, said) = stationctl(arguments);
        assert_eq!(ended_well, ends_well, "{arguments:?}: {said}");
        for words in says {
            assert!(said.contains(words), "{arguments:?} should say {words:?}: {said}");
        }
    };
    check(
        &["heads", "--state", &state, "--export", &path("heads")],
        true,
        &["record 6: 1 to 5, 5 runs", "right"],
    );
    let head = path("heads/line-1-00000000000000000011.json");
    let verify = ["verify", "--state", &state, "--certificate", &ca, "--head", &head];
    let sound = ["records 1 to 14 in 1 segments, 11 runs closed", "heads: 2, of which 2", "nothing is wrong"];
    check(&verify, true, &sound);
    check(
        &["verify", "--state", &state],
        true,
        &["who signed was not checked", "only a head from the MES shows"],
    );

    let (seventh, proof) = (run(7).to_string(), path("proof.json"));
    check(&["prove", "--state", &state, "--run", &seventh, "--out", &proof], true, &["proves"]);
    check(
        &["prove", "--state", &state, "--run", &seventh, "--out", &proof],
        false,
        &["a file that is not there"],
    );
    let proven = ["serial SN0007", "outcome PASS", "enrolment id A-07:07", "record 8 of its log", "line-1"];
    check(&["check", &proof, "--certificate", &ca], true, &proven);

    let mut forger = Forger::read(&folder.path().join("journal"));
    forger.change(3);
    forger.rechain();
    forger.write(&folder.path().join("journal"));
    check(&verify, false, &["WRONG: records 1 to 5 (segment-", "the log is not what it was"]);
    check(&["verify", "--state", &path("nothing")], false, &["cannot list"]);
    check(&["verify", "--state", &path("heads")], false, &["holds no segment of a log"]);
    check(&["verify", "--state", &state, "--head", &ca], false, &["is no file of a signed head"]);
    check(&["check", &head, "--certificate", &ca], false, &["is no proof"]);
}
