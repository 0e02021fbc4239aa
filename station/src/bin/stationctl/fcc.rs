//! Provisions one device from a shell: no station, no MES, no fixture. For trying a recipe on any device that runs
//! the factory configurator client.

use std::{
    fs,
    net::{SocketAddr, SocketAddrV4, ToSocketAddrs as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use data_encoding::{BASE64, HEXLOWER};
use factory_fixtures::{
    console::Console,
    fcc::{
        link,
        message::{Answer, Closing},
        outline::Outline,
        session::Session,
    },
};
use factory_proto::ids::{OrderId, Serial};
use factory_station::{
    certificate,
    key::DeviceKey,
    place::Place,
    recipe::{
        KeyOrigin, Recipe, Warnings,
        bundle::{Credentials, check_enrolment_id, enrolment_id},
        template::Unit,
    },
    record::{IssuanceAsked, RunId},
    signatures::{Demand, Signatures},
    signer::Signer,
};
use tokio::net::TcpStream;
use trial::Trial;
use uuid::Uuid;

use crate::values::{NamedValue, values};

mod trial;

#[derive(Subcommand)]
pub enum Verb {
    /// Gives one device its identity and its bundle, has it check this, and closes its factory code.
    Inject(Inject),
}

#[derive(Args)]
#[command(after_help = EXAMPLE)]
pub struct Inject {
    #[command(flatten)]
    line: LineArguments,
    /// What the device gets.
    #[arg(long, value_name = "FILE")]
    recipe: PathBuf,
    /// Its serial number.
    #[arg(long)]
    serial: Serial,
    /// The work order that it belongs to; the signer must know it.
    #[arg(long, default_value = "trial")]
    order: OrderId,
    /// A value of its own, as in mac=00:11; once for each.
    #[arg(long = "value", value_name = "NAME=VALUE")]
    values: Vec<NamedValue>,
    #[command(flatten)]
    signed_by: SignedBy,
    /// How long the device may take over one message.
    #[arg(long, value_name = "TIME", default_value = "30s")]
    patience: humantime::Duration,
    /// Write the device's certificate and those that it is signed by to this file, PEM.
    #[arg(long, value_name = "FILE")]
    certificate: Option<PathBuf>,
    /// Print what the device says beside its answers.
    #[arg(long)]
    log: bool,
}

const EXAMPLE: &str = "\
Example, with a CA that is made for this one device and thrown away:
  stationctl fcc inject --tcp 192.168.7.2:7777 --recipe sensor.toml --serial SN0001 --trial";

#[derive(Args)]
#[group(required = true, multiple = false)]
struct LineArguments {
    /// Where the device listens.
    #[arg(long, value_name = "HOST:PORT")]
    tcp: Option<String>,
    /// The serial line that it is on, as in /dev/ttyACM0, or /dev/ttyACM0@921600 for another rate than 115200 baud.
    #[arg(long, value_name = "PORT[@BAUD]")]
    tty: Option<String>,
}

#[derive(Args)]
#[group(multiple = false)]
struct SignedBy {
    /// The signer's socket.
    #[arg(long, value_name = "SOCKET")]
    signer: Option<PathBuf>,
    /// Make a CA for this one device, sign with it, and throw it away: nobody will trust the device.
    #[arg(long)]
    trial: bool,
}

pub async fn run(verb: Verb) -> anyhow::Result<()> {
    let Verb::Inject(inject) = verb;
    inject.run().await
}

impl Inject {
    async fn run(self) -> anyhow::Result<()> {
        let recipe = Recipe::read(&self.recipe, &Signatures::demanded(&Demand::Nothing)?)?;
        let values = values(&self.values)?;
        let unit = Unit { product: &recipe.name, order: &self.order, serial: &self.serial, values: &values };
        recipe.check_unit(&unit)?;
        let credentials = recipe.credentials(&unit)?;
        let authority = self.authority(&recipe)?;

        let line = Line::open(&self.line, *self.patience).await?;
        let mut device = Device { session: Session::new(*self.patience), line, log: self.log };
        let credentials = self.identify(&mut device, &recipe, &unit, credentials, &authority).await?;
        let certificate = credentials.chain[0].clone();
        println!("endpoint name {}", credentials.endpoint_name);
        println!("enrolment id {}", enrolment_id(&certificate));
        if let Some(file) = &self.certificate {
            write_certificates(file, &credentials.chain)?;
        }

        let bundle = recipe.provision.bundle("inject-2", &unit, &credentials, SystemTime::now())?;
        drop(credentials);
        let payload = bundle.encode();
        for item in Outline::read(&payload)?.items {
            let digest =
                item.digest.map_or_else(|| "not shown".to_owned(), |digest| HEXLOWER.encode(&digest));
            println!("  {:14} {:32} {digest}", item.kind.name(), item.name);
        }
        let mut answer = device.ask(&payload).await?;
        if recipe.provision.warnings == Warnings::Fail {
            judge(&recipe, &answer)?;
            answer = device.ask(&Closing { session: "inject-3".to_owned() }.encode()).await?;
        }
        judge(&recipe, &answer)?;
        println!("the device has it all, says {:?}, and closed its factory code", answer.info);
        answer.warnings.iter().for_each(|warning| println!("warning: {warning}"));
        Ok(())
    }

    fn authority(&self, recipe: &Recipe) -> anyhow::Result<Authority> {
        match (&recipe.identity.key, &self.signed_by) {
            (KeyOrigin::Supplied { .. }, SignedBy { signer: None, trial: false }) => Ok(Authority::Nobody),
            (KeyOrigin::Supplied { .. }, _) => {
                bail!("the recipe's certificates are supplied; leave out --signer and --trial")
            }
            (_, SignedBy { signer: Some(socket), .. }) => {
                // Kept for this one call: no ledger was presented to us before.
                let state = tempfile::tempdir().context("no folder can be made for the signer's head")?;
                let signer = Signer::at(Place::Socket(socket.clone()), state.path())?;
                Ok(Authority::Signer(Box::new(signer), state))
            }
            (_, SignedBy { trial: true, .. }) => Ok(Authority::Trial),
            (_, SignedBy { signer: None, trial: false }) => {
                bail!(
                    "the device's certificate has to be signed: give the signer's socket (--signer), or --trial"
                )
            }
        }
    }

    /// Has the device make its keys, and gets it its certificate.
    async fn identify(
        &self,
        device: &mut Device,
        recipe: &Recipe,
        unit: &Unit<'_>,
        mut credentials: Credentials,
        authority: &Authority,
    ) -> anyhow::Result<Credentials> {
        let names = recipe.provision.connection.names();
        let mut request = None;
        if let Some(asked) = recipe.key_requests("inject-1", unit)? {
            let answer = device.ask(&asked.encode()).await?;
            for (key, csr) in asked.keys.iter().zip(answer.csrs) {
                if key.name == names.device_key {
                    request = Some(csr.der);
                } else {
                    certificate::check_subject(&csr.der, &key.subject)?;
                    println!(
                        "certificate request of {}:\n{}",
                        key.name,
                        pem("CERTIFICATE REQUEST", &csr.der)
                    );
                }
            }
        }
        let account = recipe.provision.connection.account();
        if recipe.identity.key == KeyOrigin::ByTool {
            let key = DeviceKey::generate()?;
            request =
                Some(key.request(recipe.identity.distinguished_name(&credentials.endpoint_name, account)));
            credentials.key = Some(key);
        }
        if let Some(request) = request {
            let key = certificate::check_request(&request, &credentials.endpoint_name)?;
            let name = &credentials.endpoint_name;
            let (certificate, issuers) = match authority {
                Authority::Nobody => bail!("nobody can sign the device's request"),
                Authority::Trial => {
                    Trial::new(recipe.identity.chain_depth)?.certify(&key, name.as_str(), account)?
                }
                Authority::Signer(signer, _) => {
                    let asked = self.issuance(recipe, &credentials, request);
                    println!("issuance {}", asked.issuance);
                    let issued = signer.issue(&asked).await?;
                    (issued.certificate, issued.issuers)
                }
            };
            certificate::check_issued(&certificate, &issuers, &key, name, account)?;
            credentials.chain = recipe.identity.chain(certificate, issuers)?;
        }
        check_enrolment_id(unit, &enrolment_id(&credentials.chain[0]))?;
        Ok(credentials)
    }

    fn issuance(&self, recipe: &Recipe, credentials: &Credentials, request: Vec<u8>) -> IssuanceAsked {
        let issuance = Uuid::now_v7();
        IssuanceAsked {
            run: RunId::of_command(issuance),
            issuance,
            endpoint_name: credentials.endpoint_name.clone(),
            serial: self.serial.clone(),
            order: self.order.clone(),
            request,
            supersedes: None,
            recipe_digest: recipe.digest,
        }
    }
}

/// Who signs the device's certificate.
enum Authority {
    /// It is supplied.
    Nobody,
    /// A CA for this one device.
    Trial,
    /// The signer, whose ledger's head is kept in the folder.
    Signer(Box<Signer>, #[expect(dead_code, reason = "removed when dropped")] tempfile::TempDir),
}

/// Where warnings are failures, none may be there.
fn judge(recipe: &Recipe, answer: &Answer) -> anyhow::Result<()> {
    match recipe.provision.judge(&answer.warnings) {
        None => Ok(()),
        Some(warnings) => {
            bail!("the device warns: {warnings}; the recipe's provision.warnings makes that a failure")
        }
    }
}

/// The way to a device.
enum Line {
    Tcp(TcpStream),
    Serial(Box<Console>),
}

impl Line {
    async fn open(arguments: &LineArguments, patience: Duration) -> anyhow::Result<Self> {
        if let Some(place) = &arguments.tcp {
            return Ok(Self::Tcp(link::connect(address(place)?, patience).await?));
        }
        let Some(tty) = &arguments.tty else { bail!("give --tcp or --tty") };
        let (path, baud) = match tty.rsplit_once('@') {
            Some((path, baud)) => (path, baud.parse().ok().filter(|baud| *baud > 0)),
            None => (tty.as_str(), Some(115_200)),
        };
        let baud = baud.with_context(|| format!("{tty} must end with bits per second, as in @921600"))?;
        Ok(Self::Serial(Box::new(Console::open(path, baud).await?)))
    }
}

/// The first IPv4 address of a host: the device has no other.
fn address(place: &str) -> anyhow::Result<SocketAddrV4> {
    let mut found = place
        .to_socket_addrs()
        .with_context(|| format!("{place} is no host and port, as in 192.168.7.2:7777"))?;
    let address = found.find_map(|address| match address {
        SocketAddr::V4(address) => Some(address),
        SocketAddr::V6(_) => None,
    });
    address.with_context(|| format!("{place} has no IPv4 address, and the factory code listens on no other"))
}

/// A device that is spoken with.
struct Device {
    session: Session,
    line: Line,
    log: bool,
}

impl Device {
    /// Sends one message; its answer, which must be a success.
    async fn ask(&mut self, payload: &[u8]) -> anyhow::Result<Answer> {
        let Self { session, line, log } = self;
        // A device may say anything, to a terminal too.
        let say = |text: &[u8]| {
            if *log {
                eprint!("{}", text.escape_ascii().to_string().replace("\\n", "\n").replace("\\r", ""));
            }
        };
        let exchange = match line {
            Line::Tcp(stream) => link::exchange(session, stream, payload, say).await?,
            Line::Serial(console) => link::exchange(session, console.split().0, payload, say).await?,
        };
        Ok(exchange.accepted()?)
    }
}

fn write_certificates(file: &Path, chain: &[Vec<u8>]) -> anyhow::Result<()> {
    let text: String = chain.iter().map(|der| pem("CERTIFICATE", der)).collect();
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

/// RFC 7468.
fn pem(label: &str, der: &[u8]) -> String {
    let base64 = BASE64.encode(der);
    let lines: Vec<&str> =
        base64.as_bytes().chunks(64).map(|line| str::from_utf8(line).unwrap_or_default()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}
