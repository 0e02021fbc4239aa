//! `factory-signerd`: makes the token and its keys once (`init`), then signs (`serve`); `ledger` shows what it signed.

use std::{
    env,
    io::{BufWriter, IsTerminal, stdout},
    num::NonZeroUsize,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use factory_hsm::{
    authority::Authority,
    ceremony::{self, Plan},
    config::Config,
    credential::{CredentialError, Pin},
    door::Doors,
    health::Health,
    issuer::Issuer,
    ledger::{Ledger, report},
    peer::Peers,
    profile::{Country, Name, YEAR},
    provenance::Provenance,
    registrar::Registrar,
    service, socket,
    tls::{Tls, TlsError},
    token::{
        TokenError,
        module::Module,
        pool::SigningPool,
        session::{Access, Login},
    },
    vigil::{Fatal, Vigil},
};
use factory_journal::JournalError;
use factory_settings::SettingsError;
use time::OffsetDateTime;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tracing::{error, info};
use tracing_subscriber::EnvFilter;

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
    Init(Init),
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

#[derive(Args)]
struct Init {
    /// The configuration file.
    #[arg(long, default_value = "/etc/factory-station/signer.toml")]
    config: PathBuf,
    /// The CN of the CA.
    #[arg(long, default_value = "Device Identity CA")]
    ca_common_name: Name,
    /// The O of the CA; by default the configuration's.
    #[arg(long)]
    organization: Option<Name>,
    /// The C of the CA; by default the configuration's.
    #[arg(long)]
    country: Option<Country>,
    /// How many years the CA is valid.
    #[arg(long, default_value_t = 35, value_parser = clap::value_parser!(u16).range(10..=100))]
    ca_years: u16,
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
        Command::Init(options) => init(options),
        Command::Serve { config } => serve(&config),
        Command::Ledger { config } => ledger(&config),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("factory-signerd: {error:#}");
            if needs_a_human(&error) { ExitCode::from(NEEDS_A_HUMAN) } else { ExitCode::FAILURE }
        }
    }
}

fn init(options: Init) -> Result<()> {
    let config = Config::read(&options.config)?;
    let user_pin = read_pin(&config.pin_credential)?;
    let so_pin = config.so_pin_credential.as_deref().map(read_pin).transpose()?;

    let mut subject = config.subject.clone();
    subject.organization = options.organization.or(subject.organization);
    subject.country = options.country.or(subject.country);
    let plan = Plan { common_name: options.ca_common_name, subject, lifetime: years(options.ca_years) };

    let transcript =
        ceremony::initialise(&config, &plan, &user_pin, so_pin.as_ref(), OffsetDateTime::now_utc())?;
    println!("{transcript}");
    Ok(())
}

fn serve(config: &Path) -> Result<()> {
    let config = Config::read(config)?;
    let pin = read_pin(&config.pin_credential)?;
    let ca = &config.authorities[0].role;
    let authority = Authority::read(&ca.certificate)?;
    let login = Login::new(Module::load(&config.module)?, &config.token_label, pin);
    let login = Arc::new(login.looked_at_every(config.look_every));
    let pool = |key: &str, sessions| {
        SigningPool::open(Access::new(login.clone(), key), sessions, config.sign_deadline)
    };
    let issuing = pool(&ca.key_label, config.sessions)?;
    let provenance = Provenance::open(
        &config.provenance.certificate,
        pool(&config.provenance.key_label, NonZeroUsize::MIN)?,
    )?;
    let now = OffsetDateTime::now_utc();
    let issuer = Issuer::new(authority, issuing, config.subject, config.certificate_lifetime, now)?;
    let runtime = tokio::runtime::Runtime::new().context("the runtime could not be started")?;
    let ended = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let (listener, _socket) = socket::listen(&config.socket)?;
        let tls = match config.listen {
            Some((address, files)) => {
                let tls = Tls::load(files)?;
                let listener = TcpListener::bind(address).await;
                let listener =
                    listener.with_context(|| format!("cannot listen on {address}: correct `listen`"))?;
                // Port 0 is any.
                info!(address = %listener.local_addr()?, "listening");
                Some((listener, tls))
            }
            None => None,
        };
        let doors = Doors::open(listener, tls, Peers::new(config.peers));
        let ledger = Ledger::open(&config.ledger).context("the ledger cannot be opened")?;
        let (health, vigil) = (
            Health::default(),
            Vigil {
                login: login.clone(),
                room: ledger.room(),
                deadline: config.sign_deadline,
                hang_limit: config.hang_limit,
            },
        );
        let registrar = Registrar::new(issuer, provenance, ledger);
        info!(socket = %config.socket.display(), token = registrar.issuer().token().label, "serving");
        let stop = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        tokio::select! {
            served = service::serve(doors, registrar, &health, stop) => {
                served?;
            }
            fatal = vigil.keep(&health) => return Err(fatal.into()),
        }
        info!("stopped");
        Ok(())
    });
    if let Some(hung @ Fatal::Hung(_)) = ended.as_ref().err().and_then(anyhow::Error::downcast_ref) {
        error!("{hung}");
        // SAFETY: nothing is left to be written. Neither the runtime's threads nor the module's exit handlers, which an
        // ordinary exit runs, may wait for the call that does not come back.
        unsafe { nix::libc::_exit(1) }
    }
    ended
}

fn ledger(config: &Path) -> Result<()> {
    let config = Config::read(config)?;
    Ok(report::write(&config.ledger, &mut BufWriter::new(stdout().lock()))?)
}

fn read_pin(credential: &Path) -> Result<Pin, CredentialError> {
    let directory = env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    Pin::read(credential, directory.as_deref())
}

fn years(years: u16) -> Duration {
    YEAR * u32::from(years)
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
