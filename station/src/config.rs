//! The station file: which instruments, signer, controller and folders this station has.

use std::{
    collections::BTreeSet,
    fs,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use factory_fixtures::fcc::link::Reach;
use factory_proto::ids::NestName;
use factory_settings::{SettingsError, Table, duration, flag, integer, list, path, table, text};
use sha2::{Digest as _, Sha256};

use crate::{
    callers::CallerSettings, golden::Rule, line::interlock::Interlock, place::Place, provenance::Occasions,
    signatures::Demand,
};

mod callers;
mod golden;
mod place;

pub use callers::Listen;

const HEARTBEAT: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);
/// An operator who waits for longer has gone.
const DEADLINE: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(60);

/// The station file, as meant.
#[derive(Debug, Clone)]
pub struct Config {
    /// SHA-256 of the file as it was read.
    pub digest: [u8; 32],
    /// The station's name, which is half of the key of each result.
    pub name: NestName,
    /// Where the journal lies.
    pub state: PathBuf,
    /// Where the recipes lie, one file each.
    pub recipes: PathBuf,
    /// Who must have signed the recipes and what they name.
    pub signatures: Demand,
    /// Where the signer is.
    pub signer: Place,
    /// Where the MES calls, if it does; otherwise there is only the socket.
    pub listen: Option<Listen>,
    /// Who may call, and how much.
    pub callers: CallerSettings,
    /// Where stationctl calls: a Unix socket.
    pub socket: PathBuf,
    /// Where the line's controllers are, 1 to 8, in the order in which they are preferred.
    pub controllers: Vec<Place>,
    /// How often they are told that the station lives.
    pub heartbeat: Duration,
    /// Whether and how they are asked before a unit starts.
    pub interlock: Interlock,
    /// The file with the key, or a certificate of it, that offline allowances are signed with.
    pub offline_budget_key: Option<PathBuf>,
    /// How long running units may still take when the station is told to stop.
    pub drain: Duration,
    /// When the log's heads are signed.
    pub provenance: Occasions,
    /// The golden units, and whether a nest needs one in each shift.
    pub golden: Rule,
    /// The nests, at least one.
    pub nests: Vec<NestSettings>,
}

/// One nest and its instruments.
#[derive(Debug, Clone)]
pub struct NestSettings {
    /// Its name.
    pub name: NestName,
    /// Selector of probe-rs.
    pub probe: String,
    /// The unit's serial line.
    pub console: ConsoleSettings,
    /// How the device is reached once its factory code runs.
    pub fcc: Reach,
    /// Connection string of libnfc.
    pub tag_reader: String,
}

/// A serial line.
#[derive(Debug, Clone)]
pub struct ConsoleSettings {
    /// The port's device file.
    pub path: String,
    /// Bits per second.
    pub baud: u32,
}

impl Config {
    /// Reads a station file; all its mistakes at once.
    pub fn read(path: &Path) -> Result<Self, SettingsError> {
        let text = fs::read_to_string(path)
            .map_err(|source| SettingsError::Read { path: path.to_owned(), source })?;
        let config = factory_settings::parse(path, &text, Self::written)?;
        Ok(Self { digest: Sha256::digest(&text).into(), ..config })
    }

    fn written(file: &mut Table<'_>) -> Option<Self> {
        let name = file.required("name", text);
        let state = file.required("state", path);
        let recipes = file.required("recipes", path);
        let signatures = file.optional("signatures", table(signatures));
        if signatures == Some(None) {
            file.complain(
                "signatures",
                "is missing: give the `certificate` of the signer's firmware key, or `demanded = false` to take \
                 recipes and images unsigned",
            );
        }
        let signer = place::signer(file);
        let callers = callers::callers(file);
        let socket = file.required("socket", path);
        let controllers = place::controllers(file);
        let heartbeat = file.or("heartbeat", Duration::from_secs(10), duration);
        let interlock = file.or("interlock", Interlock::USUAL, table(interlock));
        let offline_budget_key = file.optional("offline-budget", table(|it| it.required("key", path)));
        let drain = file.or("drain", Duration::from_secs(60), duration);
        let provenance = file.or("provenance", Occasions::usual(), table(occasions));
        let golden = golden::golden(file, provenance.as_ref());
        let nests = file.required("nest", list(table(NestSettings::written)));

        complain_unless_within(file, "heartbeat", heartbeat, HEARTBEAT);
        if let Some(nests) = &nests {
            complain_of_nests(file, nests);
        }
        let (listen, callers) = callers?;
        Some(Self {
            digest: [0; 32],
            name: name?,
            state: state?,
            recipes: recipes?,
            signatures: signatures??,
            signer: signer?,
            listen,
            callers,
            socket: socket?,
            controllers: controllers?,
            heartbeat: heartbeat?,
            interlock: interlock?,
            offline_budget_key: offline_budget_key?,
            drain: drain?,
            provenance: provenance?,
            golden: golden?,
            nests: nests?,
        })
    }
}

impl NestSettings {
    fn written(nest: &mut Table<'_>) -> Option<Self> {
        let name = nest.required("name", text);
        let probe = nest.required("probe", text);
        let console = nest.required("console", text);
        let baud = nest.or("baud", 115_200, integer);
        let fcc = nest.or("fcc", Reach::Console, text);
        let tag_reader = nest.required("tag-reader", text);
        if baud == Some(0) {
            nest.complain("baud", "must be at least 1: a line of 0 bits per second is hung up");
        }
        Some(Self {
            name: name?,
            probe: probe?,
            console: ConsoleSettings { path: console?, baud: baud? },
            fcc: fcc?,
            tag_reader: tag_reader?,
        })
    }
}

fn signatures(signatures: &mut Table<'_>) -> Option<Demand> {
    let certificate = signatures.optional("certificate", path);
    let demanded = signatures.or("demanded", true, flag);
    match (certificate?, demanded?) {
        (Some(certificate), true) => Some(Demand::By(certificate)),
        (None, false) => Some(Demand::Nothing),
        (None, true) => {
            signatures.complain("certificate", "is missing: it is the one of the signer's firmware key");
            None
        }
        (Some(_), false) => {
            signatures.complain("demanded", "must not be false beside a `certificate`");
            None
        }
    }
}

fn interlock(interlock: &mut Table<'_>) -> Option<Interlock> {
    let demanded = interlock.or("demanded", Interlock::USUAL.demanded, flag);
    let deadline = interlock.or("deadline", Interlock::USUAL.deadline, duration);
    complain_unless_within(interlock, "deadline", deadline, DEADLINE);
    Some(Interlock { demanded: demanded?, deadline: deadline? })
}

fn complain_unless_within(
    table: &Table<'_>,
    key: &str,
    value: Option<Duration>,
    bounds: RangeInclusive<Duration>,
) {
    if value.is_some_and(|value| !bounds.contains(&value)) {
        let (least, most) = bounds.into_inner();
        table.complain(key, format!("must be {least:?} to {most:?}"));
    }
}

fn occasions(provenance: &mut Table<'_>) -> Option<Occasions> {
    let usual = Occasions::usual();
    let every = provenance.or("every", usual.every, integer);
    let shift_ends = provenance.or("shift-ends", usual.shift_ends, list(text));
    if every.is_some_and(|every| !Occasions::EVERY.contains(&every)) {
        let (least, most) = Occasions::EVERY.into_inner();
        provenance.complain("every", format!("must be {least} to {most} records"));
    }
    Some(Occasions { every: every?, shift_ends: shift_ends? })
}

/// A nest has one name, and no instrument serves two nests.
fn complain_of_nests(file: &Table<'_>, nests: &[NestSettings]) {
    if nests.is_empty() {
        file.complain("nest", "there must be at least one");
    }
    let (mut seen, mut addresses) = (BTreeSet::new(), BTreeSet::new());
    for nest in nests {
        let own = [
            ("name", nest.name.as_str()),
            ("probe", &nest.probe),
            ("console", &nest.console.path),
            ("tag-reader", &nest.tag_reader),
        ];
        for (key, value) in own {
            if !seen.insert((key, value)) {
                file.complain("nest", format!("two nests have the {key} {value:?}"));
            }
        }
        if let Reach::Tcp(address) = nest.fcc
            && !addresses.insert(address)
        {
            file.complain("nest", format!("two nests have the fcc address {address}"));
        }
    }
}
