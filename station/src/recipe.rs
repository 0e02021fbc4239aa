//! What a product needs: one file per product, checked when it is loaded, not on unit 10 000.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU8,
    path::{Path, PathBuf},
    time::Duration,
};

use factory_fixtures::{
    instrument::MemoryRange,
    probe::Image,
    tag::ndef::{EnrolmentMessage, NdefError},
};
use factory_proto::{
    ids::{EnrolmentId, RecipeName},
    units::Limits,
};

use crate::{signatures::Signatures, step::Step};
use supplied::Supplied;
use template::Template;

mod answer;
pub mod bundle;
mod connection;
mod credential;
mod custom;
mod file;
mod held;
mod identity;
mod provision;
mod source;
pub mod supplied;
pub mod template;
mod time;

pub use connection::Ownership;
pub use file::RecipeError;
pub use held::{Held, Origin, RecipeKey, Recipes};
pub use identity::{Identity, KeyOrigin};
pub use provision::{Provision, SecretOrigin, Warnings};

/// What a product needs. Holds what may be secrets, hence has no `Debug`.
#[derive(Clone)]
pub struct Recipe {
    /// Its name, which is its file's.
    pub name: RecipeName,
    /// SHA-256 of the recipe file and of all files that it names.
    pub digest: [u8; 32],
    /// How often a step that may be repeated is tried when an instrument failed.
    pub attempts: NonZeroU8,
    /// How often a unit that failed may be tested again without being changed.
    pub retests: u32,
    /// What goes into flash.
    pub flash: Flash,
    /// What should boot.
    pub boot: Boot,
    /// What should be measured.
    pub self_test: SelfTest,
    /// What the device is called.
    pub identity: Identity,
    /// What the device gets.
    pub provision: Provision,
    /// Where what lies ready for each unit is; there when anything is.
    pub supplied: Option<Supplied>,
    /// What its tag says.
    pub tag: Tag,
    deadlines: BTreeMap<Step, Duration>,
}

/// What goes into flash.
#[derive(Debug, Clone)]
pub struct Flash {
    /// The chip, as probe-rs calls it.
    pub chip: String,
    /// The image file.
    pub image: Image,
    /// Where the chip holds its own id.
    pub unique_id: Option<MemoryRange>,
}

/// What should boot.
#[derive(Debug, Clone)]
pub struct Boot {
    /// The version that the firmware must say it has.
    pub firmware_version: String,
}

/// What should be measured.
#[derive(Debug, Clone)]
pub struct SelfTest {
    /// What passes, by the measurement's name.
    pub limits: BTreeMap<String, Limits>,
}

/// A unit's own values do not make what its recipe wants.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the recipe's {key} {reason}")]
pub struct UnitError {
    key: String,
    reason: String,
}

impl UnitError {
    fn new(key: &str, reason: impl ToString) -> Self {
        Self { key: key.to_owned(), reason: reason.to_string() }
    }
}

/// What its tag says.
#[derive(Debug, Clone)]
pub struct Tag {
    /// Where whoever taps the tag is led, as in `https://example.com/claim?id={enrolment-id}`.
    pub uri: String,
    /// Type of the external record that carries the enrolment id, as in `example.com:enrol`.
    pub record_type: String,
}

impl Tag {
    /// The NDEF message for one device.
    pub fn message(&self, id: &EnrolmentId) -> Result<Vec<u8>, NdefError> {
        let uri = self.uri.replace("{enrolment-id}", id.as_str());
        EnrolmentMessage { uri, record_type: self.record_type.clone(), enrolment_id: id.to_string() }.encode()
    }
}

impl Recipe {
    /// Reads one recipe file, signed as demanded; all its mistakes at once.
    pub fn read(file: &Path, signatures: &Signatures) -> Result<Self, RecipeError> {
        file::read(file, signatures)
    }

    /// Reads one recipe file that may name nothing but files beside it, as for one that is uploaded; and which ones it names.
    ///
    /// # Errors
    /// As of [`Recipe::read`].
    pub fn read_alone(
        file: &Path,
        signatures: &Signatures,
    ) -> Result<(Self, BTreeSet<PathBuf>), RecipeError> {
        file::read_alone(file, signatures)
    }

    /// The values that its texts ask for, those that every unit has included.
    pub fn value_names(&self) -> BTreeSet<&str> {
        let texts = self.provision.templates().chain([&self.identity.endpoint_name]);
        // A request's subject may name the device, which has a name by then.
        texts.flat_map(Template::names).filter(|name| *name != "endpoint-name").collect()
    }

    /// How long a step may take.
    pub fn deadline(&self, step: Step) -> Duration {
        // Every step has one: the file reader fills in the defaults.
        self.deadlines.get(&step).copied().unwrap_or(Duration::from_secs(30))
    }
}
