//! The station file: which instruments, signer, controller and folders this station has.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use factory_fixtures::fcc::link::Reach;
use factory_proto::ids::NestName;
use factory_settings::{SettingsError, Table, duration, flag, integer, list, path, table, text};
use sha2::{Digest as _, Sha256};
use tonic::transport::{Endpoint, Uri};

use crate::{
    provenance::Occasions,
    signatures::Demand,
    signer::{SignerPlace, SignerTls},
};

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
    pub signer: SignerPlace,
    /// Where the MES calls; loopback only, for want of TLS.
    pub listen: SocketAddr,
    /// Where stationctl calls: a Unix socket.
    pub socket: PathBuf,
    /// The line's controller; loopback only, for want of TLS.
    pub controller: Endpoint,
    /// How long running units may still take when the station is told to stop.
    pub drain: Duration,
    /// When the log's heads are signed.
    pub provenance: Occasions,
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
        let text = std::fs::read_to_string(path)
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
        let signer = signer(file);
        let listen: Option<SocketAddr> = file.required("listen", text);
        let socket = file.required("socket", path);
        let controller: Option<Uri> = file.required("controller", text);
        let drain = file.or("drain", Duration::from_secs(60), duration);
        let provenance = file.or("provenance", Occasions::usual(), table(occasions));
        let nests = file.required("nest", list(table(NestSettings::written)));

        if listen.is_some_and(|address| !address.ip().is_loopback()) {
            file.complain("listen", "must be a loopback address: there is no TLS on this listener yet");
        }
        if controller.as_ref().is_some_and(|uri| !is_loopback(uri)) {
            file.complain(
                "controller",
                "must be an http:// address on loopback: there is no TLS on this connection yet",
            );
        }
        if let Some(nests) = &nests {
            complain_of_nests(file, nests);
        }
        Some(Self {
            digest: [0; 32],
            name: name?,
            state: state?,
            recipes: recipes?,
            signatures: signatures??,
            signer: signer?,
            listen: listen?,
            socket: socket?,
            controller: Endpoint::from(controller?).connect_timeout(Duration::from_secs(5)),
            drain: drain?,
            provenance: provenance?,
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

/// A path is a socket's; `https://host:port` is a server's, which needs `[signer-tls]`.
fn signer(file: &mut Table<'_>) -> Option<SignerPlace> {
    let place = file.required("signer", |value| match text::<String>(value)? {
        address if address.starts_with("https://") => text(value).map(Ok),
        _ => path(value).map(Err),
    });
    let tls = file.optional("signer-tls", table(signer_tls));
    match (place?, tls?) {
        (Ok(uri), Some(tls)) => Some(SignerPlace::Server { uri, tls }),
        (Err(socket), None) => Some(SignerPlace::Socket(socket)),
        (Ok(_), None) => {
            file.complain("signer", "needs [signer-tls]: both sides prove who they are");
            None
        }
        (Err(_), Some(_)) => {
            file.complain("signer-tls", "needs a `signer` with https://: there is no TLS on its socket");
            None
        }
    }
}

fn signer_tls(tls: &mut Table<'_>) -> Option<SignerTls> {
    let ca = tls.required("ca", path);
    let certificate = tls.required("certificate", path);
    let key = tls.required("key", path);
    Some(SignerTls { ca: ca?, certificate: certificate?, key: key? })
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

fn is_loopback(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let address = host.parse::<std::net::IpAddr>();
    uri.scheme_str() == Some("http")
        && (host == "localhost" || address.is_ok_and(|address| address.is_loopback()))
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
