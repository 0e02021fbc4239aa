//! The journal's files: checked, taken away, brought back, tidied. Needs no station; what it does is the journal's.

use std::{
    fs::File,
    io::{BufReader, BufWriter, stdin, stdout},
    path::PathBuf,
    time::SystemTime,
};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use factory_journal::{Audit, Finding, Journal, Options, compact_offline, export, import};
use factory_station::record::Record;

#[derive(Subcommand)]
pub enum Verb {
    /// Checks every byte of a journal, segment by segment. Works beside a running station.
    Verify(Place),
    /// Writes a journal as lines of JSON. Works beside a running station.
    Export(Export),
    /// Makes a journal from an export, byte for byte, in an empty directory.
    Import(Import),
    /// Moves closed and acknowledged segments to the archive. The station must be stopped.
    Compact(Compact),
    /// Makes the index anew from the log, and accepts that records were lost. The station must be stopped.
    RebuildIndex(Place),
}

#[derive(Args)]
pub struct Place {
    /// The directory that holds the journal's segment files.
    #[arg(long)]
    state: PathBuf,
}

#[derive(Args)]
pub struct Export {
    #[command(flatten)]
    place: Place,
    /// Where to write; standard output if absent.
    #[arg(long)]
    output: Option<PathBuf>,
}

#[derive(Args)]
pub struct Import {
    #[command(flatten)]
    place: Place,
    /// Where to read; standard input if absent.
    #[arg(long)]
    input: Option<PathBuf>,
}

#[derive(Args)]
pub struct Compact {
    #[command(flatten)]
    place: Place,
    /// Who must have acknowledged what is archived; may be given several times.
    #[arg(long, required_unless_present = "all")]
    receiver: Vec<String>,
    /// Archives all closed segments, as for a signer's ledger, which nobody acknowledges.
    #[arg(long, conflicts_with = "receiver")]
    all: bool,
}

pub fn run(verb: Verb) -> anyhow::Result<()> {
    match verb {
        Verb::Verify(place) => verify(&place),
        Verb::Export(arguments) => write_export(arguments),
        Verb::Import(arguments) => read_import(arguments),
        Verb::Compact(arguments) => compact(&arguments),
        Verb::RebuildIndex(place) => rebuild_index(&place),
    }
}

fn verify(place: &Place) -> anyhow::Result<()> {
    let (mut records, mut damaged) = (0, 0);
    for finding in Audit::open(&place.state)? {
        let finding = finding?;
        println!("{}", line(&finding));
        records += finding.records;
        if let Some(damage) = &finding.damage {
            println!("  DAMAGED: {damage}");
            damaged += 1;
        }
    }
    println!("{records} sound records");
    if damaged > 0 {
        bail!(
            "{damaged} segments of the journal {} are damaged; keep a copy of it, and restore these files from a backup",
            place.state.display()
        );
    }
    Ok(())
}

fn line(finding: &Finding) -> String {
    let name = finding.path.file_name().unwrap_or_default().to_string_lossy();
    let place = if finding.archived { "archived" } else { "live" };
    let last = (finding.first.get() + finding.records).saturating_sub(1);
    let times = finding.times.map_or_else(String::new, |(first, last)| {
        let written = |time: SystemTime| humantime::format_rfc3339_seconds(time);
        format!(", {} to {}", written(first), written(last))
    });
    let torn = match finding.torn {
        0 => String::new(),
        bytes => format!(", then {bytes} bytes of a write that was interrupted or goes on"),
    };
    format!("{name}: {place}, {} records, {} to {last}{times}{torn}", finding.records, finding.first)
}

fn write_export(Export { place, output }: Export) -> anyhow::Result<()> {
    let last = match output {
        Some(path) => {
            let file = File::create_new(&path);
            let file = file.with_context(|| format!("cannot create {}; name a new file", path.display()))?;
            let last = export(&place.state, BufWriter::new(&file))?;
            file.sync_all().with_context(|| format!("cannot write {}", path.display()))?;
            last
        }
        None => export(&place.state, BufWriter::new(stdout().lock()))?,
    };
    eprintln!("exported up to record {last}");
    Ok(())
}

fn read_import(Import { place, input }: Import) -> anyhow::Result<()> {
    let last = match input {
        Some(path) => {
            let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
            import(BufReader::new(file), &place.state)?
        }
        None => import(stdin().lock(), &place.state)?,
    };
    println!("imported up to record {last} into {}", place.state.display());
    Ok(())
}

fn compact(Compact { place, receiver, .. }: &Compact) -> anyhow::Result<()> {
    let receivers: Vec<&str> = receiver.iter().map(String::as_str).collect();
    let done = compact_offline(&place.state, &receivers)?;
    println!("archived {} segments, {} bytes as {}", done.segments, done.before, done.after);
    Ok(())
}

fn rebuild_index(place: &Place) -> anyhow::Result<()> {
    let journal = Journal::<Record>::rebuild_index(&place.state, Options::default())?;
    println!("the index of {} is made anew, up to record {}", place.state.display(), journal.last());
    Ok(())
}
