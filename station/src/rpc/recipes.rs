//! Recipes over the wire: an upload as it streams in, and what is said of those that are held.

use std::time::Duration;

use factory_proto::station as messages;
use messages::upload_recipe_request::Part;
use tokio::time::timeout;
use tonic::{Status, Streaming};

use super::{command, internal, recipe_refused};
use crate::{
    recipe::Origin,
    shelf::{Shelf, ShelfError, Shown},
};

/// Between two messages of an upload; who is silent for longer makes room for others.
const SILENCE: Duration = Duration::from_secs(30);

/// Takes in a recipe; gives its digest.
pub async fn upload(
    shelf: &Shelf,
    mut stream: Streaming<messages::UploadRecipeRequest>,
    caller: String,
) -> Result<[u8; 32], Status> {
    let Some(Part::Start(start)) = next(&mut stream).await? else {
        return Err(Status::invalid_argument("part: the first message must hold `start`"));
    };
    let (name, by) = command::upload(&start, caller)?;
    let mut incoming = shelf.receive(name).map_err(refused)?;
    while let Some(part) = next(&mut stream).await? {
        let Part::Chunk(chunk) = part else {
            return Err(Status::invalid_argument("part: `start` may come once only"));
        };
        incoming.add(&chunk.file, &chunk.data).await.map_err(refused)?;
    }
    incoming.end().await.map_err(refused)?;
    shelf.keep(incoming, by).await.map_err(refused)
}

/// What the next message holds; `None` after the last one.
async fn next(stream: &mut Streaming<messages::UploadRecipeRequest>) -> Result<Option<Part>, Status> {
    let message = timeout(SILENCE, stream.message());
    let silent = |_| Status::deadline_exceeded(format!("nothing came for {} s", SILENCE.as_secs()));
    match message.await.map_err(silent)?? {
        None => Ok(None),
        Some(message) => match message.part {
            Some(part) => Ok(Some(part)),
            None => Err(Status::invalid_argument("part: is missing")),
        },
    }
}

/// What is said of a recipe that is held.
pub fn description(Shown { held, used_by }: Shown) -> messages::RecipeDescription {
    messages::RecipeDescription {
        recipe: held.key.0.to_string(),
        recipe_digest: held.key.1.to_vec(),
        active: held.active,
        origin: match held.origin {
            Origin::Folder => messages::RecipeOrigin::Folder,
            Origin::Uploaded => messages::RecipeOrigin::Uploaded,
        }
        .into(),
        since: Some(held.since.into()),
        used_by: used_by.iter().map(ToString::to_string).collect(),
        complaint: held.complaint.unwrap_or_default(),
    }
}

/// Why something is not done with a recipe.
pub fn refused(error: ShelfError) -> Status {
    let text = error.to_string();
    match error {
        ShelfError::Refused(_) => Status::invalid_argument(text),
        ShelfError::Uploading | ShelfError::Full => Status::resource_exhausted(text),
        ShelfError::Recipe(error) => recipe_refused(error),
        ShelfError::FromFolder(_) | ShelfError::Active(_) | ShelfError::InUse { .. } => {
            Status::failed_precondition(text)
        }
        ShelfError::Reused => Status::already_exists(text),
        ShelfError::Disk { .. } => {
            let reason = factory_fixtures::fault::chain(&error);
            tracing::error!(reason, "a recipe was not kept");
            Status::internal(reason)
        }
        ShelfError::Journal(error) => internal(error),
    }
}
