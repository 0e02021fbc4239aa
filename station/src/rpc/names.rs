//! A list of units over the wire: whether each can be made, and may have the name that it would get.

use std::collections::HashSet;

use factory_proto::ids::{EndpointName, OrderId, Serial};
use tonic::Status;

use super::refusal::{Refusal, refused};
use crate::{
    claims::{ClaimError, Claims},
    golden::Golden,
    recipe::{Recipe, template::Unit},
    record::Mark,
    unit_list::UnitList,
};

/// Up to so many complaints.
const MOST: usize = 20;

/// The names of a list's units, of which every one must be one that can be made, and have a name of its own.
pub fn of<'a>(
    recipe: &Recipe,
    order: &OrderId,
    list: &'a UnitList,
    golden: &Golden,
) -> Result<Vec<(&'a Serial, EndpointName)>, Status> {
    let (mut names, mut seen) = (Vec::new(), HashSet::new());
    let mut complaints = Vec::new();
    for (serial, values) in list.iter() {
        let unit = Unit { product: &recipe.name, order, serial, values };
        let checked = recipe.check_unit(&unit).and_then(|()| recipe.identity.endpoint_name(&unit));
        match checked {
            Ok(_) if golden.is_named(serial) => {
                complaints.push(format!("unit {serial}: it is a golden unit, and nothing is made of it"));
            }
            Ok(name) if seen.insert(name.clone()) => names.push((serial, name)),
            Ok(name) => {
                complaints.push(format!("unit {serial}: the endpoint name {name} is another unit's too"));
            }
            Err(error) => complaints.push(format!("unit {serial}: {error}")),
        }
        if complaints.len() == MOST {
            break;
        }
    }
    refuse(complaints).map(|()| names)
}

/// No unit of a list that is to be opened may get a name that is another unit's.
pub fn check(claims: &Claims, names: &[(&Serial, EndpointName)]) -> Result<(), Status> {
    let mut complaints = Vec::new();
    for (serial, name) in names {
        match claims.check(&Mark::EndpointName(name.clone()), serial) {
            Ok(()) => {}
            Err(taken @ ClaimError::Taken(_)) => complaints.push(format!("unit {serial}: {taken}")),
            Err(error @ ClaimError::Journal(_)) => return Err(refused(error)),
        }
        if complaints.len() == MOST {
            break;
        }
    }
    refuse(complaints)
}

fn refuse(complaints: Vec<String>) -> Result<(), Status> {
    if complaints.is_empty() {
        return Ok(());
    }
    Err(Refusal::of_fields(complaints.into_iter().map(|what| ("unit_list".to_owned(), what)).collect()))
}
