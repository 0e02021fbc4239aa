//! `factory-stationd`: the station's daemon, and, under another first word, its instruments' processes.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use clap::{Parser, Subcommand};
use data_encoding::HEXLOWER;
use factory_fixtures::instrument::{Kind, worker};
use factory_station::{app, config::Config, line, recipe::Recipes, signatures::Signatures, telemetry};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The factory station's daemon.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    act: Act,
}

#[derive(Subcommand)]
enum Act {
    /// Runs the station until SIGTERM or SIGINT, then lets its units finish.
    Serve {
        /// The station file.
        #[arg(long, default_value = "/etc/factory-station/station.toml")]
        config: PathBuf,
    },
    /// Reads the station file and all recipes, and says what is wrong with them.
    Check {
        /// The station file.
        #[arg(long, default_value = "/etc/factory-station/station.toml")]
        config: PathBuf,
    },
    /// Serves one instrument on standard input and output. The daemon starts these itself.
    #[command(hide = true)]
    Instrument {
        /// Which.
        kind: String,
    },
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().act {
        Act::Serve { config } => serve(&config),
        Act::Check { config } => check(&config),
        Act::Instrument { kind } => {
            let Some(kind) = Kind::named(&kind) else { bail!("no instrument is called {kind:?}") };
            Ok(worker::run(kind)?)
        }
    }
}

fn check(config: &Path) -> anyhow::Result<()> {
    let config = Config::read(config)?;
    let signatures = Signatures::demanded(&config.signatures)?;
    line::allowance_keys(config.offline_budget_key.as_deref())
        .context("`offline-budget.key` of the station file cannot be used")?;
    let recipes = Recipes::load(&config.recipes, &signatures)?;
    match signatures.certificate() {
        Some(certificate) => {
            println!("recipes and what they name are signed by the key of {}", certificate.display())
        }
        None => println!("recipes and what they name need no signature (`signatures.demanded` is false)"),
    }
    for recipe in recipes.all() {
        println!("recipe {}: SHA-256 {}", recipe.name, HEXLOWER.encode(&recipe.digest));
    }
    println!("{}: {} nests, {} recipes, no complaint", config.name, config.nests.len(), recipes.all().len());
    Ok(())
}

fn serve(config: &Path) -> anyhow::Result<()> {
    telemetry::start();
    let config = Config::read(config)?;
    let program = env::current_exe().context("the daemon's own executable cannot be found")?;
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let stop = CancellationToken::new();
        let asked = stop.clone();
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            asked.cancel();
        });
        Ok(app::run(config, &program, stop).await?)
    })
}
