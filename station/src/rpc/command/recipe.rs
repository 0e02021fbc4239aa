//! What is done with a recipe.

use factory_proto::{ids::RecipeName, station as messages};
use tonic::Status;

use super::fields::Fields;
use crate::{commands::Command, recipe::RecipeKey};

/// A recipe comes.
pub fn upload(mut start: messages::UploadRecipeStart) -> Result<(Command, RecipeName), Status> {
    let mut fields = Fields::default();
    let command = fields.command(&mut start);
    let recipe = fields.parse("recipe", &start.recipe);
    fields.finish(command.zip(recipe))
}

/// Something is done with a recipe.
pub fn recipe<C: factory_proto::command::Command>(
    request: &mut C,
    recipe: &str,
    digest: &[u8],
) -> Result<(Command, RecipeKey), Status> {
    let mut fields = Fields::default();
    let command = fields.command(request);
    let key = fields.parse("recipe", recipe).zip(fields.digest(digest));
    fields.finish(command.zip(key))
}
