//! `stationctl`: talks to a station from a shell, over the same API as the MES.

use clap::{Parser, Subcommand};
use factory_proto::station::station_client::StationClient;
use tonic::transport::Channel;

mod connect;
mod describe;
mod journal;
mod order;
mod unit;
mod watch;

/// Talks to a factory station.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The station: the path of its socket, or an address as in http://127.0.0.1:7400.
    #[arg(long, default_value = "/run/factory-station/station.sock")]
    station: String,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Shows nests, work orders, recipes and the backlog of results.
    Describe,
    /// Opens a work order.
    Open(order::Open),
    /// Starts the unit that lies in a nest, and prints its run's id.
    Start(unit::Start),
    /// Asks a run to stop at the next safe place.
    Abort(unit::Abort),
    /// Shows one run with all that is known of it.
    Get(unit::Get),
    /// Lists runs, oldest first.
    List(unit::List),
    /// Checks and tends a journal's files; needs no station.
    #[command(subcommand)]
    Journal(journal::Verb),
    /// Prints what the station does, as it happens, until interrupted.
    Watch,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if let Verb::Journal(verb) = arguments.verb {
        return journal::run(verb);
    }
    let mut station: StationClient<Channel> = connect::station(&arguments.station).await?;
    match arguments.verb {
        Verb::Describe => describe::describe(&mut station).await,
        Verb::Open(open) => open.run(&mut station).await,
        Verb::Start(start) => start.run(&mut station).await,
        Verb::Abort(abort) => abort.run(&mut station).await,
        Verb::Get(get) => get.run(&mut station).await,
        Verb::List(list) => list.run(&mut station).await,
        Verb::Journal(verb) => journal::run(verb),
        Verb::Watch => watch::watch(&mut station).await,
    }
}
