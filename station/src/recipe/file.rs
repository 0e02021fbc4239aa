//! The recipe file: as written, with all its mistakes found when it is loaded.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    num::NonZeroU8,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use factory_fixtures::{
    instrument::{ImageFormat, MemoryRange},
    probe::Image,
    tag::ndef::NdefError,
};
use factory_proto::{
    ids::{EnrolmentId, IdError, RecipeName},
    units::{Limits, Quantity},
};
use factory_settings::{Table, duration, integer, path, table, tables_by_name, text};

use super::{
    Boot, Flash, Identity, KeyOrigin, Provision, Recipe, SelfTest, Tag,
    source::Sources,
    supplied::Supplied,
    template::{Unit, Values},
};
use crate::{signatures::Signatures, step::Step};

// The user memory of an NTAG213 less its Lock Control TLV, the message's own TLV head and the terminator.
const ROOM_ON_TAG: usize = 144 - 5 - 2 - 1;

// A contact that was dirty, and one more; beyond that the unit should be looked at.
const RETESTS: u32 = 2;

/// Why there is no recipe.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// A file or folder cannot be read.
    #[error("{} cannot be read", path.display())]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file's name is no recipe name.
    #[error("the name of the recipe file {} {source}", path.display())]
    FileName {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: IdError,
    },
    /// What one or several files say cannot be used: one complaint a line.
    #[error("{0}")]
    Refused(String),
    /// Not loaded.
    #[error("there is no recipe {0} at this station")]
    Unknown(RecipeName),
    /// None of its digests may be ordered without being named.
    #[error("no recipe {0} is active at this station; activate one, or name its digest")]
    NoneActive(RecipeName),
    /// Others of its name are.
    #[error("this station does not hold recipe {name} with SHA-256 {digest}: upload it, or open a new order")]
    NotHeld {
        /// Its name.
        name: RecipeName,
        /// In hex.
        digest: String,
    },
    /// It was kept, and is not what it was.
    #[error("recipe {name} with SHA-256 {digest} cannot be used any more: {reason}")]
    Broken {
        /// Its name.
        name: RecipeName,
        /// In hex.
        digest: String,
        /// What is wrong with it; one complaint a line.
        reason: String,
    },
}

/// Loads every `*.toml` of a folder; the mistakes of all files at once.
pub(super) fn load(
    folder: &Path,
    signatures: &Signatures,
) -> Result<BTreeMap<RecipeName, Arc<Recipe>>, RecipeError> {
    let unreadable = |source| RecipeError::Unreadable { path: folder.to_owned(), source };
    let mut recipes = BTreeMap::new();
    let mut complaints = Vec::new();
    for file in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = file.map_err(unreadable)?.path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        match read(&path, signatures) {
            Ok(recipe) => drop(recipes.insert(recipe.name.clone(), Arc::new(recipe))),
            Err(RecipeError::Refused(refused)) => complaints.push(refused),
            Err(error) => return Err(error),
        }
    }
    // A folder has no order of its own.
    complaints.sort();
    if complaints.is_empty() { Ok(recipes) } else { Err(RecipeError::Refused(complaints.join("\n"))) }
}

/// Reads one recipe, with all that it names.
pub(super) fn read(path: &Path, signatures: &Signatures) -> Result<Recipe, RecipeError> {
    read_with(path, signatures, Sources::new(signatures)).map(|(recipe, _)| recipe)
}

/// Reads one recipe that may name nothing but files beside it; and which ones it names.
pub(super) fn read_alone(
    path: &Path,
    signatures: &Signatures,
) -> Result<(Recipe, BTreeSet<PathBuf>), RecipeError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    read_with(path, signatures, Sources::beside(signatures, folder))
}

fn read_with(
    path: &Path,
    signatures: &Signatures,
    sources: Sources<'_>,
) -> Result<(Recipe, BTreeSet<PathBuf>), RecipeError> {
    let name = name(path)?;
    let text = std::fs::read_to_string(path)
        .map_err(|source| RecipeError::Unreadable { path: path.to_owned(), source })?;
    signatures.check(path, text.as_bytes()).map_err(|unsigned| RecipeError::Refused(unsigned.to_string()))?;
    let recipe = factory_settings::parse(path, &text, |file| written(name, file, &sources))
        .map_err(|refused| RecipeError::Refused(refused.to_string()))?;
    let named = sources.named();
    Ok((Recipe { digest: sources.digest(&text), ..recipe }, named))
}

fn name(path: &Path) -> Result<RecipeName, RecipeError> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    stem.parse().map_err(|source| RecipeError::FileName { path: path.to_owned(), source })
}

fn written(name: RecipeName, file: &mut Table<'_>, sources: &Sources<'_>) -> Option<Recipe> {
    let attempts = file.or("attempts", NonZeroU8::MIN, integer);
    let retests = file.or("retests", RETESTS, integer);
    let deadlines = file.or("deadlines", defaults(), table(deadlines));
    let supplied = file.optional("supplied", path);
    let flash = file.required("flash", table(|flash| self::flash(flash, sources)));
    let boot = file.required("boot", table(boot));
    let self_test = file.required("self-test", table(self_test));
    let identity = file.required("identity", table(|it| Identity::written(it, sources, &name)));
    let provision = file.required("provision", table(|provision| Provision::written(provision, sources)));
    let tag = file.required("tag", table(tag));
    let recipe = Recipe {
        name,
        // Known when all the files that belong to it were read.
        digest: [0; 32],
        attempts: attempts?,
        retests: retests?,
        flash: flash?,
        boot: boot?,
        self_test: self_test?,
        identity: identity?,
        provision: provision?,
        supplied: supplied?.map(Supplied),
        tag: tag?,
        deadlines: deadlines?,
    };
    check(file, &recipe);
    Some(recipe)
}

/// What only shows when the parts are held together.
fn check(file: &Table<'_>, recipe: &Recipe) {
    let Recipe { identity, provision, .. } = recipe;
    let answers = provision.answers(identity).complaints();
    for (key, complaint) in &answers {
        file.complain("provision", format!("{key} {complaint}"));
    }
    let is_supplied = matches!(identity.key, KeyOrigin::Supplied { .. }) || provision.is_supplied();
    match (&recipe.supplied, is_supplied) {
        (None, true) => file.complain(
            "supplied",
            "is missing: name the folder where a folder for each serial number holds what is supplied",
        ),
        (Some(_), false) => {
            file.complain("supplied", "is not needed: neither key nor entropy nor root-of-trust is supplied")
        }
        (Some(Supplied(folder)), true) if !folder.is_dir() => {
            file.complain("supplied", format!("{} is no folder", folder.display()));
        }
        _ => {}
    }
    // The longest serial number there can be. What an order adds is checked when it is opened.
    let (Ok(order), Ok(serial)) = ("order".parse(), "0".repeat(32).parse()) else { return };
    let values = Values::default();
    let unit = Unit { product: &recipe.name, order: &order, serial: &serial, values: &values };
    let needs_order = recipe.value_names().iter().any(|name| !["product", "serial"].contains(name));
    if answers.is_empty()
        && !needs_order
        && let Err(error) = recipe.check_unit(&unit)
    {
        file.complain("provision", format!("{error} (with a serial number of 32 characters)"));
    }
}

fn default_deadline(step: Step) -> Duration {
    Duration::from_secs(match step {
        Step::Flash => 60,
        Step::Boot | Step::Tag => 10,
        Step::SelfTest | Step::Identity | Step::Provision => 30,
    })
}

fn defaults() -> BTreeMap<Step, Duration> {
    Step::ALL.into_iter().map(|step| (step, default_deadline(step))).collect()
}

fn deadlines(file: &mut Table<'_>) -> Option<BTreeMap<Step, Duration>> {
    let read: Vec<_> = Step::ALL
        .into_iter()
        .map(|step| (step, file.or(step.name(), default_deadline(step), duration)))
        .collect();
    read.into_iter().map(|(step, deadline)| Some((step, deadline?))).collect()
}

fn flash(file: &mut Table<'_>, sources: &Sources<'_>) -> Option<Flash> {
    let chip = file.required("chip", text);
    let image = file.required("image", path);
    let format = file.or("format", ImageFormat::Elf, text);
    let digest = image.as_ref().and_then(|path: &PathBuf| sources.read(file, "image", path));
    let unique_id = file.optional("unique-id", table(unique_id));
    let image = Image { path: image?, format: format?, digest: digest?.1 };
    Some(Flash { chip: chip?, image, unique_id: unique_id? })
}

fn unique_id(file: &mut Table<'_>) -> Option<MemoryRange> {
    let address = file.required("address", integer);
    let length: Option<u8> = file.required("bytes", integer);
    if length.is_some_and(|length| !(1..=MemoryRange::LONGEST).contains(&length)) {
        file.complain("bytes", format!("must be 1 to {}", MemoryRange::LONGEST));
    }
    Some(MemoryRange { address: address?, length: length? })
}

fn boot(file: &mut Table<'_>) -> Option<Boot> {
    Some(Boot { firmware_version: file.required("firmware-version", text)? })
}

fn self_test(file: &mut Table<'_>) -> Option<SelfTest> {
    let limits = file.required("limits", tables_by_name(limits))?;
    Some(SelfTest { limits: limits.into_iter().collect() })
}

fn limits(name: &str, file: &mut Table<'_>) -> Option<(String, Limits)> {
    let min: Option<Quantity> = file.required("min", text);
    let max: Option<Quantity> = file.required("max", text);
    match Limits::new(min?, max?) {
        Ok(limits) => Some((name.to_owned(), limits)),
        Err(error) => {
            file.complain("min", error.to_string());
            None
        }
    }
}

fn tag(file: &mut Table<'_>) -> Option<Tag> {
    let uri = file.required("uri", text);
    let record_type = file.required("record-type", text);
    let tag = Tag { uri: uri?, record_type: record_type? };
    match tag.message(&EnrolmentId::of_fingerprint(&[0; 32])) {
        Ok(message) if message.len() > ROOM_ON_TAG => file.complain(
            "uri",
            format!(
                "makes a message of {} bytes, an NTAG213 holds {ROOM_ON_TAG}; shorten uri or record-type",
                message.len()
            ),
        ),
        Ok(_) => {}
        Err(error @ NdefError::RecordType { .. }) => file.complain("record-type", error.to_string()),
        Err(error) => file.complain("uri", error.to_string()),
    }
    Some(tag)
}
