//! The recipes that a station holds, by name and digest, and which of each name is active. Knows no disk and no journal.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::SystemTime,
};

use data_encoding::HEXLOWER;
use factory_proto::ids::RecipeName;

use super::{Recipe, RecipeError, file};
use crate::signatures::Signatures;

/// What a recipe is known by: its name, and SHA-256 of its file and of all files that it names.
pub type RecipeKey = (RecipeName, [u8; 32]);

/// Where a recipe is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The station's folder of recipes.
    Folder,
    /// It was uploaded.
    Uploaded,
}

/// A recipe that the station holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// What it is known by.
    pub key: RecipeKey,
    /// Where it is from; one that is both was uploaded.
    pub origin: Origin,
    /// Since when it is held.
    pub since: SystemTime,
    /// Whether orders are opened with it when they name no digest.
    pub active: bool,
    /// Why it cannot be used; one complaint a line.
    pub complaint: Option<String>,
}

/// All recipes of the station.
#[derive(Default)]
pub struct Recipes(RwLock<State>);

#[derive(Default)]
struct State {
    held: BTreeMap<RecipeKey, Kept>,
    /// As the folder was when the station started.
    folder: BTreeMap<RecipeName, [u8; 32]>,
    /// As it was said.
    activated: BTreeMap<RecipeName, [u8; 32]>,
}

#[derive(Default)]
struct Kept {
    from_folder: Option<(Arc<Recipe>, SystemTime)>,
    uploaded: Option<(Result<Arc<Recipe>, String>, SystemTime)>,
}

impl Kept {
    fn usable(&self) -> Result<Arc<Recipe>, String> {
        match (&self.from_folder, &self.uploaded) {
            (Some((recipe, _)), _) => Ok(recipe.clone()),
            (None, Some((recipe, _))) => recipe.clone(),
            (None, None) => Err("it is gone".to_owned()),
        }
    }
}

impl State {
    fn active(&self, name: &RecipeName) -> Option<[u8; 32]> {
        self.activated.get(name).or_else(|| self.folder.get(name)).copied()
    }

    fn knows(&self, name: &RecipeName) -> bool {
        self.held.keys().any(|(held, _)| held == name) || self.activated.contains_key(name)
    }
}

impl Recipes {
    /// Loads every `*.toml` of a folder, signed as demanded; all mistakes in all of them at once.
    pub fn load(folder: &Path, signatures: &Signatures) -> Result<Self, RecipeError> {
        let (mut state, now) = (State::default(), SystemTime::now());
        for (name, recipe) in file::load(folder, signatures)? {
            state.folder.insert(name.clone(), recipe.digest);
            let kept = Kept { from_folder: Some((recipe.clone(), now)), uploaded: None };
            state.held.insert((name, recipe.digest), kept);
        }
        Ok(Self(RwLock::new(state)))
    }

    /// The recipe of that name with that digest, as an order was opened with it.
    pub fn get(&self, name: &RecipeName, digest: &[u8; 32]) -> Result<Arc<Recipe>, RecipeError> {
        let state = self.read();
        match state.held.get(&(name.clone(), *digest)) {
            Some(kept) => kept.usable().map_err(|reason| RecipeError::Broken {
                name: name.clone(),
                digest: HEXLOWER.encode(digest),
                reason,
            }),
            None if state.knows(name) => {
                Err(RecipeError::NotHeld { name: name.clone(), digest: HEXLOWER.encode(digest) })
            }
            None => Err(RecipeError::Unknown(name.clone())),
        }
    }

    /// The active recipe of that name.
    pub fn named(&self, name: &RecipeName) -> Result<Arc<Recipe>, RecipeError> {
        let state = self.read();
        let active = state.active(name);
        let known = state.knows(name);
        drop(state);
        match active {
            Some(digest) => self.get(name, &digest),
            None if known => Err(RecipeError::NoneActive(name.clone())),
            None => Err(RecipeError::Unknown(name.clone())),
        }
    }

    /// The active ones that can be used, by name.
    pub fn all(&self) -> Vec<Arc<Recipe>> {
        let state = self.read();
        let active = |(key, kept): (&RecipeKey, &Kept)| {
            (state.active(&key.0) == Some(key.1)).then(|| kept.usable().ok()).flatten()
        };
        state.held.iter().filter_map(active).collect()
    }

    /// All of them, by name and digest.
    pub fn held(&self) -> Vec<Held> {
        let state = self.read();
        let held = |(key, kept): (&RecipeKey, &Kept)| {
            let (origin, since) = match (&kept.uploaded, &kept.from_folder) {
                (Some((_, since)), _) => (Origin::Uploaded, *since),
                (None, Some((_, since))) => (Origin::Folder, *since),
                (None, None) => return None,
            };
            let active = state.active(&key.0) == Some(key.1);
            Some(Held { key: key.clone(), origin, since, active, complaint: kept.usable().err() })
        };
        state.held.iter().filter_map(held).collect()
    }

    /// Takes in one that was uploaded, or what is wrong with what was kept of it.
    pub(crate) fn insert(&self, key: RecipeKey, recipe: Result<Recipe, String>, since: SystemTime) {
        self.write().held.entry(key).or_default().uploaded = Some((recipe.map(Arc::new), since));
    }

    /// Makes one the active one of its name.
    pub(crate) fn activate(&self, (name, digest): RecipeKey) {
        self.write().activated.insert(name, digest);
    }

    /// Lets go of one that was uploaded.
    pub(crate) fn remove(&self, key: &RecipeKey) {
        let mut state = self.write();
        if let Some(kept) = state.held.get_mut(key) {
            kept.uploaded = None;
            if kept.from_folder.is_none() {
                state.held.remove(key);
            }
        }
    }

    // No step under this lock can fail half-way.
    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}
