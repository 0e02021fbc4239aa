//! What people command of orders, nests and recipes.

use std::time::SystemTime;

use factory_proto::ids::{NestName, OrderId, RecipeName};
use minicbor::{Decode, Encode};
use uuid::Uuid;

use super::cbor;

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

/// What people do with a nest. The numbers are for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum NestAct {
    /// It takes no units until it is enabled.
    #[n(0)]
    Park,
    /// It takes units again.
    #[n(1)]
    Enable,
    /// The faults of its instruments are forgotten.
    #[n(2)]
    Clear,
    /// It shows which one it is.
    #[n(3)]
    Identify,
}

/// Something is done with a nest by hand.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct NestCommanded {
    /// The command that said so.
    #[cbor(n(0), with = "cbor::text")]
    pub command: Uuid,
    /// Which nest.
    #[cbor(n(1), with = "cbor::text")]
    pub nest: NestName,
    /// What.
    #[n(2)]
    pub act: NestAct,
    /// Who.
    #[n(3)]
    pub by: String,
    /// Why it is parked; empty for the rest.
    #[n(4)]
    pub reason: String,
    /// When.
    #[cbor(n(5), with = "cbor::time")]
    pub at: SystemTime,
}

/// What people do with a recipe. The numbers are for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum RecipeAct {
    /// It was uploaded, and lies in the state folder.
    #[n(0)]
    Keep,
    /// Orders of its name are opened with it.
    #[n(1)]
    Activate,
    /// It is not held any more.
    #[n(2)]
    Remove,
}

/// Something is done with a recipe.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct RecipeCommanded {
    /// The command that said so.
    #[cbor(n(0), with = "cbor::text")]
    pub command: Uuid,
    /// The recipe's name.
    #[cbor(n(1), with = "cbor::text")]
    pub recipe: RecipeName,
    /// SHA-256 of it and of all that it names.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub digest: [u8; 32],
    /// What.
    #[n(3)]
    pub act: RecipeAct,
    /// Who.
    #[n(4)]
    pub by: String,
    /// When.
    #[cbor(n(5), with = "cbor::time")]
    pub at: SystemTime,
}
