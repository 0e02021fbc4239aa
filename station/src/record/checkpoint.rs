//! What all records up to some point come to.

use factory_journal::Sequence;
use minicbor::{Decode, Encode};

use super::{
    BudgetTally, GoldenTried, NestCommanded, NestLeftPack, OrderTally, RecipeCommanded, RegistrationAttested,
    SetAside,
};

/// What all records up to some point come to, so that nobody has to read them again.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Checkpoint {
    /// The last of these records.
    #[n(0)]
    pub covers: Sequence,
    /// All orders.
    #[n(1)]
    pub orders: Vec<OrderTally>,
    /// The units that must not be started.
    #[n(2)]
    pub quarantined: Vec<SetAside>,
    /// The ids of the runs without a result: their records are read again.
    #[n(3)]
    pub open: Vec<String>,
    /// The offline allowance in force, less what the open runs use of it.
    #[n(4)]
    pub budget: Option<BudgetTally>,
    /// The newest statement of each CA and account.
    #[cbor(n(10), default)]
    pub attested: Vec<RegistrationAttested>,
    /// The nests that were parked by hand, as they were.
    #[cbor(n(11), default)]
    pub parked: Vec<NestCommanded>,
    /// What was uploaded, and then what was activated, as it was.
    #[cbor(n(12), default)]
    pub recipes: Vec<RecipeCommanded>,
    /// The nests that have left the pack, as they did.
    #[cbor(n(25), default)]
    pub left_pack: Vec<NestLeftPack>,
    /// What the last golden unit in each nest has shown.
    #[cbor(n(23), default)]
    pub golden: Vec<GoldenTried>,
}
