//! A work order: that it was opened, with which quota, what it was moved to, and how far it has come.

use std::time::SystemTime;

use factory_proto::ids::{OrderId, RecipeName};
use minicbor::{Decode, Encode, bytes::ByteArray};
use uuid::Uuid;

use super::cbor;

/// A work order may be made from now on.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct OrderOpened {
    /// Its id.
    #[cbor(n(0), with = "cbor::text")]
    pub order: OrderId,
    /// What is to be made.
    #[cbor(n(1), with = "cbor::text")]
    pub recipe: RecipeName,
    /// SHA-256 of the recipe file as it was when the order was opened.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub recipe_digest: [u8; 32],
    /// How many units may pass.
    #[n(3)]
    pub quantity: u32,
    /// SHA-256 of the list of its units; absent where any unit may be made.
    #[n(4)]
    pub units: Option<ByteArray<32>>,
    /// What was signed; absent in records of old stations.
    #[n(8)]
    pub quota: Option<Quota>,
}

impl OrderOpened {
    /// Whether the same was to be opened.
    pub fn is_same(&self, other: &Self) -> bool {
        Self { quota: None, ..self.clone() } == Self { quota: None, ..other.clone() }
    }
}

/// What the brand owner has signed for an order, as the signer has read it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Quota {
    /// What people call the product.
    #[n(0)]
    pub product: String,
    /// Units to be made.
    #[n(1)]
    pub quantity: u32,
    /// Units that may be begun beyond that.
    #[n(2)]
    pub spare: u32,
    /// Certificates that may be issued again to a device that had one.
    #[n(3)]
    pub replacements: u32,
    /// The first second in which a unit gets a certificate, since 1970 UTC.
    #[n(4)]
    pub not_before: i64,
    /// The last one.
    #[n(5)]
    pub not_after: i64,
}

/// Whether an order starts units. The numbers are for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum OrderState {
    /// As many as were ordered.
    #[n(0)]
    Open,
    /// None until it is resumed.
    #[n(1)]
    Paused,
    /// Never again.
    #[n(2)]
    Closed,
}

/// An order was paused, resumed or closed.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct OrderMoved {
    /// The command that said so.
    #[cbor(n(0), with = "cbor::text")]
    pub command: Uuid,
    /// Which order.
    #[cbor(n(1), with = "cbor::text")]
    pub order: OrderId,
    /// What it is from now on.
    #[n(2)]
    pub to: OrderState,
    /// Why.
    #[n(3)]
    pub reason: String,
    /// Whether it was closed though units of it were not accounted for.
    #[n(4)]
    pub even_if_open: bool,
    /// When.
    #[cbor(n(5), with = "cbor::time")]
    pub at: SystemTime,
}

/// How far a work order has come.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct OrderTally {
    /// As it was opened.
    #[n(0)]
    pub opened: OrderOpened,
    /// Units that passed.
    #[n(1)]
    pub passed: u32,
    /// As it was paused, resumed or closed last.
    #[n(5)]
    pub moved: Option<OrderMoved>,
}
