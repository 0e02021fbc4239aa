//! How a controller behaves: well, unless a test says otherwise. Data only.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use factory_proto::station::Validation;
use tonic::Code;

/// How a controller behaves.
#[derive(Debug, Clone, Default)]
pub struct Temper {
    /// The serial numbers whose results it refuses, in an answer.
    pub refuses: BTreeSet<String>,
    /// The serial number at whose result it ends the stream, and with which code. Of what came with that result it
    /// acknowledges nothing.
    pub ends_at: Option<(String, Code)>,
    /// What it takes before it acknowledges a batch.
    pub pace: Duration,
    /// How it acknowledges.
    pub acknowledges: Acknowledges,
    /// It does not look at the key (station, sequence): the negative control of every test that counts results.
    pub ignores_keys: bool,
    /// Whether and when it answers the question whether a unit may start.
    pub answers: Answers,
    /// The serial numbers that it does not let start, and its objections to each.
    pub objects: BTreeMap<String, Vec<(Validation, String)>>,
    /// How often a unit may have failed before; more fails the RETEST validation.
    pub failures: Option<usize>,
    /// The signed allowance that it sends with each answer to a heartbeat.
    pub allowance: Option<String>,
}

/// Whether and when a controller answers the question whether a unit may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Answers {
    /// At once.
    #[default]
    AtOnce,
    /// Never, though it takes the question.
    Never,
    /// So late.
    After(Duration),
    /// With this code.
    With(Code),
}

/// How a controller acknowledges what is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Acknowledges {
    /// Each batch as soon as it is durable.
    #[default]
    Once,
    /// Each batch twice.
    Twice,
    /// Only when so many more reports have come: the rest stays without an acknowledgement.
    Behind(u64),
    /// Nothing: it keeps everything and says nothing.
    Never,
    /// What was never sent to it.
    Absurdly,
    /// It refuses what was never sent to it.
    RefusesAbsurdly,
}
