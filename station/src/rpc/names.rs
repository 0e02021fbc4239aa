//! Whether the units of a list may have the names that they would get. Knows not whether they can be made.

use factory_proto::ids::OrderId;
use tonic::Status;

use super::{
    UNIT_COMPLAINTS,
    refusal::{Refusal, refused},
};
use crate::{
    claims::{ClaimError, Claims},
    recipe::{Recipe, template::Unit},
    record::Mark,
    unit_list::UnitList,
};

/// No unit of a list that is to be opened may get a name that is another unit's; up to so many complaints.
pub fn check(claims: &Claims, recipe: &Recipe, order: &OrderId, list: &UnitList) -> Result<(), Status> {
    let mut complaints = Vec::new();
    for (serial, values) in list.iter() {
        let unit = Unit { product: &recipe.name, order, serial, values };
        // One that cannot be made was complained of before.
        let Ok(name) = recipe.identity.endpoint_name(&unit) else { continue };
        match claims.check(&Mark::EndpointName(name), serial) {
            Ok(()) => continue,
            Err(taken @ ClaimError::Taken(_)) => {
                complaints.push(("unit_list".to_owned(), format!("unit {serial}: {taken}")));
            }
            Err(error @ ClaimError::Journal(_)) => return Err(refused(error)),
        }
        if complaints.len() == UNIT_COMPLAINTS {
            break;
        }
    }
    if complaints.is_empty() { Ok(()) } else { Err(Refusal::of_fields(complaints)) }
}
