//! The offline budget when the station's clock was set back: the log remembers that it was later once.

use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use data_encoding::BASE64;
use factory_hil_tests::mes::allowance::Treasury;
use factory_journal::{
    Journal, Options, Sequence,
    segment::{Frame, HEADER_LEN, Hash, PREFIX_LEN, Prefix},
};
use factory_jws::PublicKeys;
use factory_station::{
    line::{budget::Exhausted, offline::Offline},
    recipe::template::Values,
    record::{AllowedBy, Record, RunId, RunOpened},
    recovery,
};
use rcgen::{KeyPair, PublicKeyData as _};
use uuid::Uuid;

use super::HOUR;

/// A station's budget over its log, and who signs for it.
struct Desk {
    folder: tempfile::TempDir,
    treasury: Treasury,
}

impl Desk {
    fn new() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let key = KeyPair::generate()?;
        fs::write(folder.path().join("mes.key"), key.serialize_pem())?;
        let public = BASE64.encode(&key.subject_public_key_info());
        let public = format!("-----BEGIN PUBLIC KEY-----\n{public}\n-----END PUBLIC KEY-----\n");
        fs::write(folder.path().join("mes.pem"), public)?;
        let treasury = Treasury::open(&folder.path().join("mes.key"))?;
        Ok(Self { folder, treasury })
    }

    fn state(&self) -> std::path::PathBuf {
        self.folder.path().join("state")
    }

    /// As a station does it when it starts.
    fn open(&self) -> anyhow::Result<(Offline, Arc<Journal<Record>>)> {
        let journal = Arc::new(Journal::open(self.state(), Options::default())?);
        let keys = PublicKeys::read(&[self.folder.path().join("mes.pem")])?;
        let budget = recovery::recover(&journal)?.budget;
        let offline = Offline::new("line-1".parse()?, Some(keys), journal.clone(), budget);
        Ok((offline, journal))
    }

    /// An allowance that is a few seconds old and lives for so long from then on.
    fn issue(&self, units: u32, age: u64, life: Duration) -> anyhow::Result<String> {
        self.treasury.issue("line-1", units, SystemTime::now() - Duration::from_secs(age), life)
    }
}

fn run(number: u128, allowance: Uuid) -> anyhow::Result<Record> {
    Ok(Record::RunOpened(RunOpened {
        run: RunId::of_command(Uuid::from_u128(number)),
        order: Some("WO-1".parse()?),
        serial: format!("SN{number:04}").parse()?,
        nest: "A".parse()?,
        recipe_digest: [0; 32],
        started: SystemTime::now(),
        values: Values::default(),
        allowed: Some(AllowedBy::Budget(allowance)),
        golden: None,
    }))
}

/// Makes the newest record so much later, as if the clock had been right then and was set back since.
fn set_back(state: &Path, by: Duration) -> anyhow::Result<()> {
    let file = state.join("segment-00000000000000000001.log");
    let bytes = fs::read(&file)?;
    let (header, mut rest) = bytes.split_at(HEADER_LEN);
    let mut frames = Vec::new();
    while let Some((prefix, behind)) = rest.split_first_chunk::<PREFIX_LEN>() {
        let Some(prefix) = Prefix::decode(*prefix) else { break };
        let (body, behind) = behind.split_at(prefix.length);
        frames.push(Frame::decode(body).map_err(anyhow::Error::msg)?);
        rest = behind;
    }
    frames.last_mut().expect("the log holds records").time += u64::try_from(by.as_nanos())?;
    let (mut bytes, mut previous) = (header.to_vec(), Hash::default());
    for (number, frame) in (1..).zip(&mut frames) {
        (frame.sequence, frame.previous) = (Sequence::from(number), previous);
        previous = frame.encode(&mut bytes);
    }
    fs::write(file, bytes)?;
    Ok(fs::remove_dir_all(state.join("index"))?)
}

#[tokio::test]
async fn a_clock_that_was_set_back_does_not_make_an_allowance_live_longer() -> anyhow::Result<()> {
    let desk = Desk::new()?;
    let (offline, journal) = desk.open()?;
    assert_eq!(offline.take(), Err(Exhausted::None));
    let left = offline.grant(&desk.issue(3, 60, HOUR)?, "a test").await?;
    assert_eq!(left.left, 3);
    let allowance = offline.take()?;
    journal.append(run(1, allowance)?).await?;
    // Counted, and never begun: the station ends here.
    offline.take()?;
    assert_eq!(offline.left().left, 1);
    drop((offline, journal));

    let (offline, journal) = desk.open()?;
    assert_eq!(offline.left().left, 2);
    drop((offline, journal));
    set_back(&desk.state(), 2 * HOUR)?;
    let (offline, _journal) = desk.open()?;
    assert_eq!(offline.left().left, 0);
    assert!(matches!(offline.take(), Err(Exhausted::Expired { .. })), "{:?}", offline.take());
    let error = offline.grant(&desk.issue(9, 10, HOUR)?, "a test").await.unwrap_err();
    assert!(error.to_string().starts_with("the allowance expired at"), "{error}");
    // Everything is held against that later time, so one that lives long enough does.
    assert_eq!(offline.grant(&desk.issue(9, 10, 3 * HOUR)?, "a test").await?.left, 9);
    Ok(())
}

#[tokio::test]
async fn nests_that_take_at_the_same_time_never_take_too_many() -> anyhow::Result<()> {
    let desk = Desk::new()?;
    let (offline, journal) = desk.open()?;
    offline.grant(&desk.issue(20, 10, HOUR)?, "a test").await?;
    let nests: Vec<_> = (0..8_u128)
        .map(|nest| {
            let (offline, journal) = (offline.clone(), journal.clone());
            tokio::spawn(async move {
                let mut started = 0;
                while let Ok(allowance) = offline.take() {
                    journal.append(run(nest * 100 + started, allowance)?).await?;
                    started += 1;
                }
                anyhow::Ok(started)
            })
        })
        .collect();
    let mut started = 0;
    for nest in nests {
        started += nest.await??;
    }
    assert_eq!(started, 20);
    drop((offline, journal));
    assert_eq!(desk.open()?.0.left().left, 0);
    Ok(())
}
