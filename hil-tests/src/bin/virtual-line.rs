//! `virtual-line`: provisions twelve units on four nests, three of them planted to fail, and shows all that
//! came of it. Ends with 0 when exactly the planted ones failed, and as they should.

use std::{
    env, fs,
    path::PathBuf,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, bail};
use clap::Parser;
use data_encoding::{BASE64, HEXLOWER};
use factory_hil_tests::{
    mes::{
        controller::Controller,
        line::{self, Assembly},
    },
    rig::{MES, Rig, free_address},
};
use factory_proto::station::{Disposition, Outcome, Unit, WatchEventsResponse, watch_events_response::Event};

const NESTS: [&str; 4] = ["A", "B", "C", "D"];
const BOARDS: u32 = 12;
// A hundred times what it takes.
const LONGEST: Duration = Duration::from_secs(600);
const ORDER: &str = "WO-DEMO";

/// What is planted: the board's number, how its run must end, and at which step.
const PLANTED: [(u32, Outcome, &str); 3] =
    [(4, Outcome::Fail, "self-test"), (7, Outcome::Fail, "tag"), (9, Outcome::Timeout, "provision")];

/// Provisions twelve units on a virtual line, and shows the result.
#[derive(Parser)]
struct Arguments {
    /// Where everything goes; must not be there yet.
    #[arg(long)]
    folder: PathBuf,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let folder = Arguments::parse().folder;
    if folder.exists() {
        bail!("{} is there already; remove it, or name another folder", folder.display());
    }
    fs::create_dir_all(&folder)?;
    let folder = folder.canonicalize()?;
    let programs = env::current_exe()?.parent().context("a program lies in a folder")?.to_owned();

    let controller = Controller::new(&folder.join("results.jsonl"))?;
    let address = free_address()?;
    let serving = tokio::spawn(controller.clone().serve(address));
    println!("setting up {} nests, a token with a CA, and a station in {}", NESTS.len(), folder.display());
    let mut rig = Rig::build(&folder, &programs, &NESTS, &format!("http://{address}"))?;
    rig.secure()?;
    rig.start_signer()?;
    rig.start_station()?;
    println!("the MES calls {} over mutual TLS, as {MES}", rig.station);
    println!("the station at rest holds {} KiB of memory", rig.station_memory()?);

    let begun = Instant::now();
    let boards: anyhow::Result<Vec<Assembly>> = (1..=BOARDS).map(|number| board(&rig, number)).collect();
    let made = line::make(&rig, ORDER, boards?, show);
    tokio::time::timeout(LONGEST, made).await.context("the station did not make all units in time")??;
    tokio::time::timeout(Duration::from_secs(30), controller.wait_for(BOARDS as usize))
        .await
        .context("the controller did not get every result")??;
    let elapsed = begun.elapsed();
    let books = settle(&rig, &controller.results()).await?;
    let ended_well = rig.stop_station()? && rig.stop_signer()?;
    serving.abort();

    let mut units = controller.results();
    units.sort_by(|a, b| a.serial.cmp(&b.serial));
    show_table(&units);
    show_totals(&units, elapsed);
    println!("the signer's books of the order, by factory-signerd reconcile:\n{books}");
    keep_artefacts(&rig, &units)?;
    if !ended_well {
        bail!("a daemon did not end well; its log in {} says why", folder.display());
    }
    as_planted(&units)
}

/// A board as it comes to the line; three of them are planted to fail.
fn board(rig: &Rig, number: u32) -> anyhow::Result<Assembly> {
    let mut board = Assembly::sound(number);
    match number {
        4 => board.faults.rail_3v3_mv = 3720,
        7 => board.tag_locked = true,
        9 => board = Assembly::misbehaving(rig, number, include_str!("../../scenarios/hangs.toml"))?,
        _ => {}
    }
    Ok(board)
}

/// The MES says what became of each unit; gives the signer's books then.
async fn settle(rig: &Rig, units: &[Unit]) -> anyhow::Result<String> {
    let mut station = rig.connect().await?;
    for unit in units {
        let good = unit.outcome() == Outcome::Pass;
        let disposition = if good { Disposition::Shipped } else { Disposition::Scrapped };
        line::dispose(&mut station, &unit.serial, disposition).await?;
    }
    let (books, settled) = rig.reconcile(ORDER)?;
    if !settled {
        bail!("the signer knows of units that nobody has said anything of: {books}");
    }
    Ok(books)
}

/// One line for each thing that happens; of flashing, the end of each phase.
fn show(message: &WatchEventsResponse) {
    let outcome = |number| Outcome::try_from(number).map_or("?", word);
    let text = match &message.event {
        Some(Event::RunAccepted(_)) => "accepted".to_owned(),
        Some(Event::StepEnded(step)) => format!("{:10} {}", step.step, outcome(step.outcome)),
        Some(Event::Progress(p)) if p.done_bytes > 0 && p.done_bytes == p.total_bytes => {
            format!("{:10} {} {} bytes", p.step, p.phase, p.done_bytes)
        }
        Some(Event::RunClosed(closed)) => format!("{} {}", outcome(closed.outcome), closed.reason),
        _ => return,
    };
    println!("nest {}  {}  {text}", message.nest, message.serial);
}

fn show_table(units: &[Unit]) {
    println!(
        "\n{:8} nest outcome  seconds  {:16}  {:97}  failing step and reason",
        "serial", "certificate", "enrolment id"
    );
    for unit in units {
        let fingerprint = unit.identity.as_ref().map_or_else(
            || "-".to_owned(),
            |identity| HEXLOWER.encode(identity.fingerprint.get(..8).unwrap_or_default()),
        );
        let why = match unit.failing_step.as_str() {
            "" => String::new(),
            step => format!("{step}: {}", unit.reason),
        };
        let enrolment_id = unit.identity.as_ref().map_or("-", |identity| &identity.enrolment_id);
        println!(
            "{:8} {:4} {:8} {:7.2}  {fingerprint:16}  {enrolment_id:97}  {why}",
            unit.serial,
            unit.nest,
            word(unit.outcome()),
            seconds(unit)
        );
    }
}

fn show_totals(units: &[Unit], elapsed: Duration) {
    let count = |outcome| units.iter().filter(|unit| unit.outcome() == outcome).count();
    let mut passed: Vec<f64> =
        units.iter().filter(|unit| unit.outcome() == Outcome::Pass).map(seconds).collect();
    passed.sort_by(f64::total_cmp);
    println!(
        "\n{} units: {} PASS, {} FAIL, {} TIMEOUT, {} others",
        units.len(),
        count(Outcome::Pass),
        count(Outcome::Fail),
        count(Outcome::Timeout),
        count(Outcome::Error) + count(Outcome::Aborted)
    );
    println!(
        "{:.1} s in all, {:.0} units an hour; a unit that passes takes {:.2} s (median)",
        elapsed.as_secs_f64(),
        f64::from(BOARDS) * 3600.0 / elapsed.as_secs_f64(),
        passed.get(passed.len() / 2).copied().unwrap_or_default()
    );
}

/// Writes certificates and the enrolment list, and says how to check them by oneself.
fn keep_artefacts(rig: &Rig, units: &[Unit]) -> anyhow::Result<()> {
    let certificates = rig.folder.join("certificates");
    fs::create_dir_all(&certificates)?;
    let mut list = csv::Writer::from_path(rig.folder.join("enrolment.csv"))?;
    // The platform skips the first line, and reads only the first field of the others.
    list.write_record(["enrollmentID", "serialNumber", "endpointName"])?;
    let mut example = None;
    for unit in units {
        let Some(identity) = &unit.identity else { continue };
        let pem = certificates.join(format!("{}.pem", unit.serial));
        fs::write(&pem, pem_text(&identity.certificate))?;
        if unit.outcome() == Outcome::Pass {
            list.write_record([&identity.enrolment_id, &unit.serial, &identity.endpoint_name])?;
            example.get_or_insert(pem);
        }
    }
    list.flush()?;

    println!("\nwhat lies in {}", rig.folder.display());
    println!("  certificates/    the device certificates, PEM");
    println!("  device-ca.pem    the CA that issued them; ceremony.txt tells of its making");
    println!("  enrolment.csv    the units that passed, for upload to the platform");
    println!("  tags/            a dump of each tag");
    println!("  results.jsonl    the results as the controller got them");
    println!("  *.log            what the daemons said");
    if let Some(example) = example {
        let (ca, example) = (rig.ca_certificate(), example.display().to_string());
        println!("\ncheck it by yourself:");
        println!("  openssl verify -CAfile {} {example}", ca.display());
        println!(
            "  openssl x509 -in {example} -noout -subject -dates -ext extendedKeyUsage,basicConstraints"
        );
        println!("  openssl x509 -in {example} -noout -fingerprint -sha256   # the enrolment id behind A-");
    }
    Ok(())
}

fn pem_text(der: &[u8]) -> String {
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    // 48 bytes make a line of 64 characters.
    for line in der.chunks(48) {
        text.push_str(&BASE64.encode(line));
        text.push('\n');
    }
    text + "-----END CERTIFICATE-----\n"
}

/// Exactly the planted units failed, as they should.
fn as_planted(units: &[Unit]) -> anyhow::Result<()> {
    let mut wrong = Vec::new();
    for number in 1..=BOARDS {
        let serial = Assembly::sound(number).serial;
        let (outcome, step) = PLANTED
            .iter()
            .find(|(planted, ..)| *planted == number)
            .map_or((Outcome::Pass, ""), |(_, outcome, step)| (*outcome, *step));
        let runs: Vec<&Unit> = units.iter().filter(|unit| unit.serial == serial).collect();
        match runs[..] {
            [run] if run.outcome() == outcome && run.failing_step == step => {}
            _ => wrong.push(format!("{serial} should have ended once, as {} {step}", word(outcome))),
        }
    }
    if wrong.is_empty() {
        println!("\nexactly the three planted units failed, as they should");
        return Ok(());
    }
    bail!("{}", wrong.join("\n"))
}

fn word(outcome: Outcome) -> &'static str {
    outcome.as_str_name().trim_start_matches("OUTCOME_")
}

fn seconds(unit: &Unit) -> f64 {
    let time = |stamp: Option<prost_types::Timestamp>| {
        stamp.and_then(|stamp| SystemTime::try_from(stamp).ok()).unwrap_or(UNIX_EPOCH)
    };
    time(unit.ended).duration_since(time(unit.started)).unwrap_or_default().as_secs_f64()
}
