//! `sign-image`: signs firmware images, recipes and what belongs to them.

use std::{num::NonZeroUsize, path::PathBuf, sync::Arc};

use anyhow::{Context, Result};
use clap::Args;
use factory_hsm::{
    config::Config,
    image,
    provenance::Provenance,
    token::{
        module::Module,
        pool::SigningPool,
        session::{Access, Login},
    },
};

use crate::verb::read_pin;

/// What `sign-image` may be told.
#[derive(Args)]
pub struct SignImage {
    /// The configuration file.
    #[arg(long, default_value = "/etc/factory-station/signer.toml")]
    config: PathBuf,
    /// Replace signatures that are there and are others.
    #[arg(long)]
    force: bool,
    /// The files; each gets its signature beside it, as FILE.sig.
    #[arg(required = true)]
    files: Vec<PathBuf>,
}

/// Prints what was signed.
pub fn sign_image(options: &SignImage) -> Result<()> {
    let config = Config::read(&options.config)?;
    let role = config
        .firmware
        .context("the signer's file has no [firmware] key: add it, and run `factory-signerd init`")?;
    let pin = read_pin(&config.pin_credential)?;
    let login = Arc::new(Login::new(Module::load(&config.module)?, &config.token_label, pin));
    let pool =
        SigningPool::open(Access::new(login, &role.key_label), NonZeroUsize::MIN, config.sign_deadline)?;
    let key = Provenance::open(&role.certificate, pool).context("[firmware]")?;
    for file in &options.files {
        let signed = image::sign(&key, file, options.force)?;
        println!("{}: {}", signed.signature.display(), if signed.new { "signed" } else { "is good already" });
    }
    Ok(())
}
