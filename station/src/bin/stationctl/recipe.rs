//! What a recipe gives a unit, shown without a station.

use std::{path::PathBuf, time::SystemTime};

use clap::{Args, Subcommand};
use data_encoding::HEXLOWER;
use factory_fixtures::fcc::message::{CertificateItem, Parameter, Value};
use factory_proto::ids::{EnrolmentId, Serial};
use factory_station::{
    recipe::Recipe,
    record::{Identity, RunId, RunOpened},
    signatures::{Demand, Signatures},
};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

#[derive(Subcommand)]
pub enum Verb {
    /// Reads a recipe and all that it names, tells every mistake, and prints what a unit would get.
    Check(Check),
}

#[derive(Args)]
pub struct Check {
    /// The recipe file.
    file: PathBuf,
    /// The serial number of the unit.
    #[arg(long, default_value = "SN0001")]
    serial: Serial,
    /// Hold the recipe and what it names against their signatures by the key of this certificate, PEM.
    #[arg(long)]
    certificate: Option<PathBuf>,
}

pub fn run(verb: Verb) -> anyhow::Result<()> {
    let Verb::Check(Check { file, serial, certificate }) = verb;
    let signatures = Signatures::demanded(&certificate.map_or(Demand::Nothing, Demand::By))?;
    let recipe = Recipe::read(&file, &signatures)?;
    println!("recipe {}: SHA-256 {}", recipe.name, HEXLOWER.encode(&recipe.digest));
    match signatures.certificate() {
        Some(certificate) => println!("signed by the key of {}", certificate.display()),
        None => println!("signatures were not looked at (--certificate)"),
    }
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
    let endpoint_name = recipe.identity.endpoint_name(&serial)?;
    println!("it asks for a certificate of {}", recipe.identity.subject(&endpoint_name));
    println!("it is given");
    let run = RunOpened {
        run: RunId::of_command(Uuid::nil()),
        order: "check".parse()?,
        serial,
        nest: "check".parse()?,
        recipe_digest: recipe.digest,
        started: SystemTime::now(),
    };
    let identity = Identity {
        endpoint_name,
        certificate: Vec::new(),
        fingerprint: [0; 32],
        enrolment_id: EnrolmentId::of_fingerprint(&[0; 32]),
    };
    let bundle = recipe.provision.bundle("check", &identity, &run)?;
    bundle.certificates.iter().for_each(show_certificate);
    bundle.parameters.iter().for_each(show_parameter);
    println!("and is closed afterwards; its tag leads to {}", recipe.tag.uri);
    Ok(())
}

fn show_certificate(item: &CertificateItem) {
    let what = match &item.der[..] {
        // What no recipe has.
        [] => "the signer's".to_owned(),
        der => format!("SHA-256 {}", HEXLOWER.encode(&Sha256::digest(der))),
    };
    let key = item.private_key.as_ref().map_or_else(String::new, |key| format!(", for its key {key}"));
    println!("  {:32} {what}{key}", item.name);
}

fn show_parameter(Parameter { name, value }: &Parameter) {
    let value = match value {
        Value::Integer(_) if name == "mbed.CurrentTime" => "the time when it is given".to_owned(),
        Value::Integer(number) => number.to_string(),
        Value::Text(text) => format!("{text:?}"),
        Value::Bytes(bytes) => HEXLOWER.encode(bytes),
    };
    println!("  {name:32} {value}");
}
