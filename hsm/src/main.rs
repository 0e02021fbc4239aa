//! `factory-signerd`: makes the token and its keys once (`init`, `csr`, `import`; `check`), then signs (`serve`) what was ordered (`sign-order`);
//! `ledger` and `reconcile` show what it signed.

use std::{io::IsTerminal, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use factory_door::tls::TlsError;
use factory_hsm::{credential::CredentialError, order::OrderKeyError, token::TokenError};
use factory_journal::JournalError;
use factory_proto::ids::OrderId;
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
    /// Make a role's key, if there is none, and a request for the brand owner's root to sign.
    Csr(verb::csr::Csr),
    /// Take the certificate that a root has signed, with those above it, after checking all of them.
    Import(verb::import::Import),
    /// Print a role's certificates for the platform's upload: PEM, the root first.
    Export(verb::export::Export),
    /// Say in sentences whether the token is fit for production; exit status 1 if it is not.
    Check(verb::check::Check),
    /// Serve the signer's API on its socket until SIGTERM.
    Serve {
        /// The configuration file.
        #[arg(long, default_value = "/etc/factory-station/signer.toml")]
        config: PathBuf,
    },
    /// Sign firmware images, recipes and what they name with the firmware key: FILE.sig beside each, which
    /// `openssl dgst -sha256 -verify` can verify.
    SignImage(verb::sign_image::SignImage),
    /// Sign a work order with the brand owner's order key, and print it. Needs no token and no configuration.
    SignOrder(verb::sign_order::SignOrder),
    /// Print what was made of a work order and which units are open; exit status 1 if there are any. Also while the
    /// signer serves.
    Reconcile {
        /// The work order.
        order: OrderId,
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
    // cryptoki calls it an error when it does not know one of the token's mechanisms.
    let usual = || EnvFilter::new("info,cryptoki::mechanism=off");
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| usual());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let done = match cli.command {
        Command::Init(options) => verb::init::init(options).map(|()| ExitCode::SUCCESS),
        Command::Csr(options) => verb::csr::csr(options).map(|()| ExitCode::SUCCESS),
        Command::Import(options) => verb::import::import(options).map(|()| ExitCode::SUCCESS),
        Command::Export(options) => verb::export::export(&options).map(|()| ExitCode::SUCCESS),
        Command::Check(options) => verb::check::check(&options),
        Command::Serve { config } => verb::serve::serve(&config).map(|()| ExitCode::SUCCESS),
        Command::SignImage(options) => verb::sign_image::sign_image(&options).map(|()| ExitCode::SUCCESS),
        Command::SignOrder(options) => verb::sign_order::sign_order(options).map(|()| ExitCode::SUCCESS),
        Command::Reconcile { order, config } => verb::reconcile::reconcile(&order, &config),
        Command::Ledger { config } => verb::ledger::ledger(&config).map(|()| ExitCode::SUCCESS),
    };
    match done {
        Ok(code) => code,
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
    let files = error.is::<CredentialError>()
        || error.is::<SettingsError>()
        || error.is::<TlsError>()
        || error.is::<OrderKeyError>();
    pin || ledger || files
}
