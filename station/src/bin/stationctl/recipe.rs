//! What a recipe gives a unit, shown without a station; and recipes made from the utility's configuration.

use std::{path::PathBuf, time::SystemTime};

use clap::{Args, Subcommand};
use data_encoding::HEXLOWER;
use factory_fixtures::fcc::{
    message::{Bundle, CertificateItem, KeyHalf, KeyItem, Parameter, Value},
    names,
};
use factory_proto::ids::{OrderId, Serial};
use factory_station::{
    recipe::{KeyOrigin, Ownership, Recipe, SecretOrigin, Warnings, template::Unit},
    signatures::{Demand, Signatures},
};
use sha2::{Digest as _, Sha256};

use crate::{
    import::Import,
    shelf,
    values::{NamedValue, values},
};

#[derive(Subcommand)]
pub enum Verb {
    /// Reads a recipe and all that it names, tells every mistake, and prints what a unit would get.
    Check(Check),
    /// Makes a recipe from the configuration of the factory configurator utility (fcu.yml).
    Import(Import),
    #[command(flatten)]
    Station(shelf::Verb),
}

/// What needs no station.
pub enum Local {
    Check(Check),
    Import(Import),
}

impl Verb {
    /// What needs no station, or else what does.
    pub fn local(self) -> Result<Local, shelf::Verb> {
        match self {
            Self::Check(check) => Ok(Local::Check(check)),
            Self::Import(import) => Ok(Local::Import(import)),
            Self::Station(verb) => Err(verb),
        }
    }
}

#[derive(Args)]
pub struct Check {
    /// The recipe file.
    file: PathBuf,
    /// The serial number of the unit.
    #[arg(long, default_value = "SN0001")]
    serial: Serial,
    /// The work order of the unit.
    #[arg(long, default_value = "WO-0001")]
    order: OrderId,
    /// A value of the unit's own, as in mac=00:11; once for each.
    #[arg(long = "value", value_name = "NAME=VALUE")]
    values: Vec<NamedValue>,
    /// Hold the recipe and what it names against their signatures by the key of this certificate, PEM.
    #[arg(long)]
    certificate: Option<PathBuf>,
}

pub fn run(verb: Local) -> anyhow::Result<()> {
    match verb {
        Local::Check(check) => check.run(),
        Local::Import(import) => import.run(),
    }
}

impl Check {
    fn run(self) -> anyhow::Result<()> {
        let signatures = Signatures::demanded(&self.certificate.map_or(Demand::Nothing, Demand::By))?;
        let recipe = Recipe::read(&self.file, &signatures)?;
        let values = values(&self.values)?;
        let unit = Unit { product: &recipe.name, order: &self.order, serial: &self.serial, values: &values };
        println!("recipe {}: SHA-256 {}", recipe.name, HEXLOWER.encode(&recipe.digest));
        match signatures.certificate() {
            Some(certificate) => println!("signed by the key of {}", certificate.display()),
            None => println!("signatures were not looked at (--certificate)"),
        }
        show_own_values(&recipe);
        let image = &recipe.flash.image;
        println!(
            "{} gets {}, SHA-256 {}",
            recipe.flash.chip,
            image.path.display(),
            HEXLOWER.encode(&image.digest)
        );
        println!("it boots version {} and measures", recipe.boot.firmware_version);
        for (name, limits) in &recipe.self_test.limits {
            println!("  {name:32} {} to {}", limits.min(), limits.max());
        }
        recipe.check_unit(&unit)?;
        show_given(&recipe, &unit)?;
        let closed = match recipe.provision.warnings {
            Warnings::Keep => "it is closed with this",
            Warnings::Fail => "it is closed after this, if it warns of nothing",
        };
        println!("{closed}; its tag leads to {}", recipe.tag.uri);
        Ok(())
    }
}

/// The values that an order has to give.
fn show_own_values(recipe: &Recipe) {
    let own: Vec<&str> = recipe
        .value_names()
        .into_iter()
        .filter(|name| !["product", "order", "serial"].contains(name))
        .collect();
    if !own.is_empty() {
        println!("each unit needs values of its own: {}", own.join(", "));
    }
}

fn show_given(recipe: &Recipe, unit: &Unit<'_>) -> anyhow::Result<()> {
    for request in recipe.key_requests("check", unit)?.iter().flat_map(|request| &request.keys) {
        println!("it makes a key {} and asks for a certificate of {}", request.name, request.subject);
    }
    let provision = &recipe.provision;
    match &provision.connection.ownership {
        Ownership::FirstToClaim => println!("it belongs to whoever claims it first"),
        Ownership::PreAssigned { account } => println!("it belongs to account {account}"),
    }
    println!("it is given");
    let mut credentials = recipe.credentials(unit)?;
    if credentials.chain.is_empty() {
        credentials.chain = vec![Vec::new(); recipe.identity.chain_depth];
    }
    let Bundle { keys, certificates, parameters, verify, .. } =
        provision.bundle("check", unit, &credentials, SystemTime::now())?;
    show_secret("entropy, 48 bytes", provision.entropy);
    show_secret("root of trust, 16 bytes", provision.root_of_trust);
    if recipe.identity.key == KeyOrigin::ByTool {
        println!(
            "  {:32} private key, made by the station and not shown",
            provision.connection.names().device_key
        );
    }
    keys.iter().for_each(show_key);
    certificates.iter().for_each(show_certificate);
    parameters.iter().for_each(show_parameter);
    println!("{}", if verify { "it checks all of this" } else { "it checks nothing of this" });
    Ok(())
}

fn show_secret(what: &str, origin: SecretOrigin) {
    match origin {
        SecretOrigin::ByDevice => {}
        SecretOrigin::ByTool => println!("  {what:32} drawn by the station and not shown"),
        SecretOrigin::Supplied => println!("  {what:32} supplied and not shown"),
    }
}

fn show_key(item: &KeyItem) {
    let what = match item.half {
        KeyHalf::Private => "private key, not shown".to_owned(),
        KeyHalf::Public => format!("public key, SHA-256 {}", HEXLOWER.encode(&Sha256::digest(&item.der))),
    };
    println!("  {:32} {what}", item.name);
}

fn show_certificate(item: &CertificateItem) {
    let key = item.private_key.as_ref().map_or_else(String::new, |key| format!(", for its key {key}"));
    for (index, der) in item.chain.iter().enumerate() {
        let what = match &der[..] {
            // What no recipe has.
            [] => "the signer's".to_owned(),
            der => format!("SHA-256 {}", HEXLOWER.encode(&Sha256::digest(der))),
        };
        match index {
            0 => println!("  {:32} {what}{key}", item.name),
            _ => println!("  {:32} {what}, which the one above is signed by", ""),
        }
    }
}

fn show_parameter(Parameter { name, value }: &Parameter) {
    let value = match value {
        Value::Integer(_) if name == names::CURRENT_TIME => "the time when it is given".to_owned(),
        Value::Integer(number) => number.to_string(),
        Value::Text(text) => format!("{text:?}"),
        Value::Bytes(bytes) => HEXLOWER.encode(bytes),
    };
    println!("  {name:32} {value}");
}
