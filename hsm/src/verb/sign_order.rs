//! `sign-order`: the brand owner's tool, which says what a factory may make.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use clap::Args;
use data_encoding::HEXLOWER;
use factory_hsm::{
    authority::Authority,
    order::{OrderKey, WorkOrder},
};
use factory_proto::ids::{OrderId, ProfileName};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// What is ordered.
#[derive(Args)]
pub struct SignOrder {
    /// The order key: P-256, PEM (PKCS#8); its public half is in the signer's `order-keys`.
    #[arg(long)]
    key: PathBuf,
    /// The work order's id; 1 to 64 characters of A-Z a-z 0-9 . _ -
    #[arg(long)]
    order: OrderId,
    /// What people call the product; 1 to 64 characters.
    #[arg(long)]
    product: String,
    /// SHA-256 of the recipe, as `factory-stationd check` prints it.
    #[arg(long, value_parser = digest)]
    recipe_digest: [u8; 32],
    /// The certificate of the CA that may sign, PEM.
    #[arg(long)]
    ca: PathBuf,
    /// The certificate profile, as the signer's file calls it.
    #[arg(long, default_value = "bootstrap")]
    profile: ProfileName,
    /// How many units are to be made.
    #[arg(long)]
    quantity: u32,
    /// How many units may be begun beyond that, since some fail.
    #[arg(long, default_value_t = 0)]
    spare: u32,
    /// How many certificates may be issued again to a device that had one, because its key died.
    #[arg(long, default_value_t = 0)]
    replacements: u32,
    /// When it begins (2026-11-25T08:00:00Z); by default now.
    #[arg(long)]
    not_before: Option<humantime::Timestamp>,
    /// How many days it is good for.
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u16).range(1..=3660))]
    days: u16,
}

/// Prints the signed order.
pub fn sign_order(options: SignOrder) -> Result<()> {
    let key = OrderKey::read(&options.key)?;
    let begins = options.not_before.map_or_else(OffsetDateTime::now_utc, |time| (*time).into());
    let order = WorkOrder {
        order: options.order,
        product: options.product,
        recipe: options.recipe_digest,
        authority: Sha256::digest(Authority::read(&options.ca)?.certificate()).into(),
        profile: options.profile,
        quantity: options.quantity,
        spare: options.spare,
        replacements: options.replacements,
        not_before: begins.unix_timestamp(),
        not_after: (begins + DAY * u32::from(options.days)).unix_timestamp(),
    };
    println!("{}", order.check().context("the order")?.sign(&key));
    Ok(())
}

fn digest(text: &str) -> Result<[u8; 32], &'static str> {
    let bytes = HEXLOWER.decode(text.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or("is not 64 lower-case hex digits")
}
