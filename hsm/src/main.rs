//! `factory-signerd`: makes the token and its keys once (`init`), then signs (`serve`); `ledger` shows what it signed.

use std::{io::IsTerminal, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use factory_hsm::{credential::CredentialError, tls::TlsError, token::TokenError};
use factory_journal::JournalError;
use factory_settings::SettingsError;
use tracing_subscriber::EnvFilter;

mod verb;

/// EX_CONFIG of sysexits.h: starting again does not help, and with a wrong PIN it locks the token.
const NEEDS_A_HUMAN: u8 = 78;

/// Signs device certificates with a key that lives in a PKCS#11 token.
#[derive(Parser)]
#[command(
    version,
    after_help = "Exit status 78: configuration or PIN are wrong; do not start it again by itself."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make the token (if it is blank), and each role's key and certificate that are missing; never changes what exists.
    Init(verb::init::Init),
    /// Serve the signer's API on its socket until SIGTERM.
    Serve {
        /// The configuration file.
        #[arg(long, default_value = "/etc/factory-station/signer.toml")]
        config: PathBuf,
    },
    /// Print the ledger, a JSON line for each issuance and each signed head; also while the signer serves.
    Ledger {
        /// The configuration file.
        #[arg(long, default_value = "/etc/factory-station/signer.toml")]
        config: PathBuf,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let done = match cli.command {
        Command::Init(options) => verb::init::init(options),
        Command::Serve { config } => verb::serve::serve(&config),
        Command::Ledger { config } => verb::ledger::ledger(&config),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("factory-signerd: {error:#}");
            if needs_a_human(&error) { ExitCode::from(NEEDS_A_HUMAN) } else { ExitCode::FAILURE }
        }
    }
}

fn needs_a_human(error: &anyhow::Error) -> bool {
    let pin = error.downcast_ref::<TokenError>().is_some_and(TokenError::is_about_pin);
    // Only what lies on the disk is wrong for good; a full or a busy one is not.
    let ledger = error.downcast_ref::<JournalError>().is_some_and(|error| {
        use JournalError::{Damaged, Decode, Lost, Newer};
        matches!(error, Damaged { .. } | Decode { .. } | Lost { .. } | Newer { .. })
    });
    let files = error.is::<CredentialError>() || error.is::<SettingsError>() || error.is::<TlsError>();
    pin || ledger || files
}
