//! `stationctl`: talks to a station from a shell, over the same API as the MES.

use clap::{Parser, Subcommand};

mod audit;
mod budget;
mod connect;
mod describe;
mod fcc;
mod import;
mod journal;
mod nest;
mod order;
mod preflight;
mod provenance;
mod recipe;
mod reconcile;
mod shelf;
mod unit;
mod values;
mod watch;
mod yields;

/// Talks to a factory station.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(flatten)]
    reach: connect::Reach,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Shows nests, work orders, recipes and the backlog of results.
    Describe,
    /// Looks at all that must be right before the line runs, and says what is not.
    Preflight(preflight::Preflight),
    /// Says that a device CA is registered with an account; no work order opens before that.
    Attest(preflight::Attest),
    /// Opens a work order.
    Open(order::Open),
    /// Keeps an order from starting units until it is resumed.
    Pause(order::Pause),
    /// Lets a paused order start units again.
    Resume(order::Resume),
    /// Ends an order for good.
    Close(order::Close),
    /// Shows what became of an order's units, beside the signer's books; fails while any is not settled.
    Reconcile(reconcile::Reconcile),
    /// Parks a nest, lets it take units again, clears its faults, or has it show which one it is.
    #[command(subcommand)]
    Nest(nest::Verb),
    /// Starts the unit that lies in a nest, and prints its run's id.
    Start(unit::Start),
    /// Starts the golden unit that lies in a nest, which proves the nest's fixture, and prints its run's id.
    Golden(unit::Golden),
    /// Asks a run to stop at the next safe place.
    Abort(unit::Abort),
    /// Lets a unit be started again, after an engineer has seen to it: one in quarantine, or one that failed too often.
    Release(unit::Release),
    /// Says what became of a unit in the end: shipped, quarantined, or scrapped for good.
    Dispose(unit::Dispose),
    /// Shows one run with all that is known of it.
    Get(unit::Get),
    /// Lists runs, oldest first.
    List(unit::List),
    /// Lets the station run on while no controller of the line answers.
    #[command(subcommand)]
    Budget(budget::Budget),
    /// Shows yields, where units are lost, and how long steps take.
    Yield(yields::Yield),
    /// Lists the calls that changed something, or would have: who, what, from where, and what came of it.
    Audit(audit::Audit),
    /// Checks and tends a journal's files; needs no station.
    #[command(subcommand)]
    Journal(journal::Verb),
    /// Prints what the station does, as it happens, until interrupted.
    Watch(watch::Watch),
    /// Checks a recipe, prints what a unit would get by it, or makes one, without a station; uploads, lists, activates
    /// and removes those of a station.
    #[command(subcommand)]
    Recipe(recipe::Verb),
    /// Provisions one device from a shell; needs no station.
    #[command(subcommand)]
    Fcc(fcc::Verb),
    /// Checks what the log proves; needs no station, only its files.
    Provenance(provenance::Provenance),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let station = || arguments.reach.station();
    match arguments.verb {
        Verb::Describe => describe::describe(&mut station().await?).await,
        Verb::Preflight(preflight) => preflight.run(&mut station().await?).await,
        Verb::Attest(attest) => attest.run(&mut station().await?).await,
        Verb::Open(open) => open.run(&mut station().await?).await,
        Verb::Pause(pause) => pause.run(&mut station().await?).await,
        Verb::Resume(resume) => resume.run(&mut station().await?).await,
        Verb::Close(close) => close.run(&mut station().await?).await,
        Verb::Reconcile(reconcile) => reconcile.run(&mut station().await?).await,
        Verb::Nest(verb) => verb.run(&mut station().await?).await,
        Verb::Start(start) => start.run(&mut station().await?).await,
        Verb::Golden(golden) => golden.run(&mut station().await?).await,
        Verb::Abort(abort) => abort.run(&mut station().await?).await,
        Verb::Release(release) => release.run(&mut station().await?).await,
        Verb::Dispose(dispose) => dispose.run(&mut station().await?).await,
        Verb::Get(get) => get.run(&mut station().await?).await,
        Verb::List(list) => list.run(&mut station().await?).await,
        Verb::Budget(budget::Budget::Load(load)) => load.run(&mut station().await?).await,
        Verb::Budget(budget::Budget::Sign(sign)) => sign.run(),
        Verb::Yield(asked) => asked.run(&mut station().await?).await,
        Verb::Watch(watch) => watch.run(&mut station().await?).await,
        Verb::Audit(audit) => audit.run(&mut station().await?).await,
        Verb::Journal(verb) => journal::run(verb),
        Verb::Recipe(verb) => match verb.local() {
            Ok(local) => recipe::run(local),
            Err(verb) => verb.run(&mut station().await?).await,
        },
        Verb::Fcc(verb) => fcc::run(verb).await,
        Verb::Provenance(provenance) => provenance.run(),
    }
}
