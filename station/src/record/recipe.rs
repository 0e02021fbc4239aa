//! What people do with a recipe.

use std::time::SystemTime;

use factory_proto::ids::RecipeName;
use minicbor::{Decode, Encode};
use uuid::Uuid;

use super::cbor;

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
