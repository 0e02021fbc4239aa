//! The recipes of a station: uploaded, listed, activated, removed.

use std::{fs, path::PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use data_encoding::HEXLOWER_PERMISSIVE;
use factory_proto::station::{
    ActivateRecipeRequest, ListRecipesRequest, RecipeDescription, RecipeOrigin, RemoveRecipeRequest,
    UploadRecipeChunk, UploadRecipeRequest, UploadRecipeStart, station_client::StationClient,
    upload_recipe_request::Part,
};
use factory_station::{
    recipe::Recipe,
    signatures::{Demand, Signatures},
};
use tonic::transport::Channel;
use uuid::Uuid;

use crate::connect::refused;

/// As much as fits into a message with ease.
const PIECE: usize = 256 * 1024;

/// SHA-256 of a recipe.
#[derive(Debug, Clone)]
pub struct Digest(pub Vec<u8>);

/// Reads 64 hex digits.
pub fn digest(text: &str) -> Result<Digest, String> {
    match HEXLOWER_PERMISSIVE.decode(text.as_bytes()) {
        Ok(digest) if digest.len() == 32 => Ok(Digest(digest)),
        _ => Err("must be 64 hex digits".to_owned()),
    }
}

#[derive(Subcommand)]
pub enum Verb {
    /// Uploads a recipe with all that it names and their signatures, and prints its SHA-256.
    Upload(Upload),
    /// Lists the recipes that the station holds.
    List,
    /// Makes a recipe the one that orders of its name are opened with.
    Activate(Which),
    /// Has the station let go of an uploaded recipe.
    Remove(Which),
}

#[derive(Args)]
pub struct Upload {
    /// The recipe file; all that it names lies beside it.
    file: PathBuf,
    /// A UUID; the same one does it once.
    #[arg(long)]
    command_id: Option<Uuid>,
}

/// Which recipe.
#[derive(Args)]
pub struct Which {
    /// Its name.
    recipe: String,
    /// SHA-256 of it in hex.
    #[arg(value_parser = digest)]
    digest: Digest,
    /// A UUID; the same one does it once.
    #[arg(long)]
    command_id: Option<Uuid>,
}

impl Verb {
    pub async fn run(self, station: &mut StationClient<Channel>) -> anyhow::Result<()> {
        match self {
            Self::Upload(upload) => {
                let messages = tokio_stream::iter(upload.messages()?);
                let uploaded = station.upload_recipe(messages).await.map_err(refused)?.into_inner();
                println!("{}", HEXLOWER_PERMISSIVE.encode(&uploaded.recipe_digest));
            }
            Self::List => {
                let listed = station.list_recipes(ListRecipesRequest {}).await.map_err(refused)?.into_inner();
                listed.recipes.iter().for_each(show);
            }
            Self::Activate(which) => {
                let command_id = which.command_id();
                let Which { recipe, digest: Digest(recipe_digest), .. } = which;
                let request = ActivateRecipeRequest { command_id, recipe, recipe_digest };
                station.activate_recipe(request).await.map_err(refused)?;
            }
            Self::Remove(which) => {
                let command_id = which.command_id();
                let Which { recipe, digest: Digest(recipe_digest), .. } = which;
                let request = RemoveRecipeRequest { command_id, recipe, recipe_digest };
                station.remove_recipe(request).await.map_err(refused)?;
            }
        }
        Ok(())
    }
}

impl Which {
    fn command_id(&self) -> String {
        self.command_id.unwrap_or_else(Uuid::now_v7).to_string()
    }
}

impl Upload {
    /// What is sent; the station judges whose signatures are good.
    fn messages(&self) -> anyhow::Result<Vec<UploadRecipeRequest>> {
        let unsigned = Signatures::demanded(&Demand::Nothing)?;
        let (recipe, named) = Recipe::read_alone(&self.file, &unsigned)?;
        let start = UploadRecipeStart {
            command_id: self.command_id.unwrap_or_else(Uuid::now_v7).to_string(),
            recipe: recipe.name.to_string(),
        };
        let mut messages = vec![UploadRecipeRequest { part: Some(Part::Start(start)) }];
        for path in [self.file.clone()].into_iter().chain(named) {
            let mut signature = path.clone().into_os_string();
            signature.push(".sig");
            let signature = PathBuf::from(signature);
            for path in [path].into_iter().chain(signature.exists().then_some(signature)) {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
                let mut pieces: Vec<&[u8]> = bytes.chunks(PIECE).collect();
                if pieces.is_empty() {
                    pieces.push(&[]);
                }
                messages.extend(pieces.into_iter().map(|piece| UploadRecipeRequest {
                    part: Some(Part::Chunk(UploadRecipeChunk { file: name.clone(), data: piece.to_vec() })),
                }));
            }
        }
        Ok(messages)
    }
}

fn show(recipe: &RecipeDescription) {
    let origin = match recipe.origin() {
        RecipeOrigin::Folder => "from the folder",
        RecipeOrigin::Uploaded => "uploaded",
        RecipeOrigin::Unspecified => "from somewhere",
    };
    let active = if recipe.active { ", active" } else { "" };
    let used_by = match recipe.used_by.as_slice() {
        [] => String::new(),
        orders => format!(", used by {}", orders.join(", ")),
    };
    println!(
        "{} {} {origin}{active}{used_by}",
        recipe.recipe,
        HEXLOWER_PERMISSIVE.encode(&recipe.recipe_digest)
    );
    for complaint in recipe.complaint.lines() {
        println!("  cannot be used: {complaint}");
    }
}
