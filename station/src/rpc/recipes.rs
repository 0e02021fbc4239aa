//! Recipes over the wire: an upload as it streams in, and what is said of those that are held.

use std::{sync::Arc, time::Duration};

use factory_proto::station as messages;
use messages::upload_recipe_request::Part;
use tokio::time::timeout;
use tonic::{Status, Streaming};

use super::{
    command,
    refusal::{Refusal, refused},
};
use crate::{
    commands::{Command, to_the_end},
    recipe::Origin,
    shelf::{Shelf, Shown, incoming::Incoming},
};

/// Between two messages of an upload; who is silent for longer makes room for others.
const SILENCE: Duration = Duration::from_secs(30);

/// For all of it: 64 MiB over a line of 1 Mbit/s take 9 minutes.
const PATIENCE: Duration = Duration::from_secs(600);

/// Takes in a recipe; gives its digest.
pub async fn upload(
    shelf: &Arc<Shelf>,
    stream: Streaming<messages::UploadRecipeRequest>,
    caller: String,
) -> Result<[u8; 32], Status> {
    let slow = |_| Status::deadline_exceeded(format!("not all of it came in {} s", PATIENCE.as_secs()));
    let (incoming, command) = timeout(PATIENCE, receive(shelf, stream)).await.map_err(slow)??;
    let shelf = shelf.clone();
    to_the_end(async move { shelf.keep(incoming, command, caller).await }).await.map_err(refused)
}

/// All that comes, and by which command.
async fn receive(
    shelf: &Shelf,
    mut stream: Streaming<messages::UploadRecipeRequest>,
) -> Result<(Incoming, Command), Status> {
    let Some(Part::Start(start)) = next(&mut stream).await? else {
        return Err(part_refused("the first message must hold `start`"));
    };
    let (command, name) = command::upload(start)?;
    let mut incoming = shelf.receive(name).await.map_err(refused)?;
    while let Some(part) = next(&mut stream).await? {
        let Part::Chunk(chunk) = part else {
            return Err(part_refused("`start` may come once only"));
        };
        incoming.add(&chunk.file, &chunk.data).await.map_err(refused)?;
    }
    incoming.end().await.map_err(refused)?;
    Ok((incoming, command))
}

/// What the next message holds; `None` after the last one.
async fn next(stream: &mut Streaming<messages::UploadRecipeRequest>) -> Result<Option<Part>, Status> {
    let message = timeout(SILENCE, stream.message());
    let silent = |_| Status::deadline_exceeded(format!("nothing came for {} s", SILENCE.as_secs()));
    match message.await.map_err(silent)?? {
        None => Ok(None),
        Some(message) => match message.part {
            Some(part) => Ok(Some(part)),
            None => Err(part_refused("is missing")),
        },
    }
}

fn part_refused(fault: &str) -> Status {
    Refusal::of_fields(vec![("part".to_owned(), fault.to_owned())])
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
