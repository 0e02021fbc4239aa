//! Requests that are counted together, with one sync. Pure.

use std::collections::HashMap;

use super::record::Asked;

/// Issuances of an order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    /// For new units.
    pub units: u32,
    /// For devices that had one.
    pub replacements: u32,
}

/// Requests that are decided together and made durable together: no two of them have anything to do with each other
/// but the quota of an order.
#[derive(Debug, Default)]
pub struct Batch {
    names: Vec<String>,
    keys: Vec<[u8; 32]>,
    counted: HashMap<String, Counted>,
}

impl Batch {
    /// Whether a request must be decided after those in here.
    pub fn meets(&self, asked: &Asked) -> bool {
        self.keys.contains(&asked.key) || names(asked).any(|name| self.names.contains(name))
    }

    /// What is counted for an order in here.
    pub fn counted(&self, order: &str) -> Counted {
        self.counted.get(order).copied().unwrap_or_default()
    }

    /// Takes in a request that will be counted.
    pub fn add(&mut self, asked: &Asked, replaces: bool) {
        self.keys.push(asked.key);
        self.names.extend(names(asked).cloned());
        let counted = self.counted.entry(asked.order.clone()).or_default();
        if replaces {
            counted.replacements += 1;
        } else {
            counted.units += 1;
        }
    }
}

// An issuance's id is a UUID, which an endpoint name may look like: then one of them waits for nothing.
fn names(asked: &Asked) -> impl Iterator<Item = &String> {
    [Some(&asked.issuance), Some(&asked.endpoint_name), asked.supersedes.as_ref()].into_iter().flatten()
}
