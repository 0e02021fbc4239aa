//! The books of an order in the words of the wire, a page of its unsettled units at a time.

use factory_proto::station as messages;

use super::wire;
use crate::{
    books::Order,
    orders::{
        reconcile::{Difference, Reconciled, StationBooks, Unsettled},
        tally::Standing,
    },
    signer::{IssuancePlace as Place, SignerBooks},
};

/// At most `size` unsettled units behind the first `from`, and all that is counted.
pub fn page(
    order: &Order,
    books: &Reconciled,
    from: usize,
    size: usize,
) -> messages::ReconcileWorkOrderResponse {
    let all = &books.unsettled;
    let next = from.saturating_add(size);
    messages::ReconcileWorkOrderResponse {
        work_order: Some(wire::order(order)),
        station: Some(station(&books.station)),
        signer: Some(signer(&books.signer)),
        unsettled: all.iter().skip(from).take(size).map(unsettled).collect(),
        unsettled_units: u32::try_from(all.len()).unwrap_or(u32::MAX),
        next_page_token: if next < all.len() { next.to_string() } else { String::new() },
    }
}

fn station(books: &StationBooks) -> messages::StationBooks {
    messages::StationBooks {
        units: books.units,
        passed: books.passed,
        failed: books.failed,
        in_nests: books.in_nests,
        shipped: books.shipped,
        scrapped: books.scrapped,
        quarantined: books.quarantined,
        open: books.open,
        not_started: books.not_started,
    }
}

fn signer(books: &SignerBooks) -> messages::SignerBooks {
    messages::SignerBooks {
        units_counted: books.units_counted,
        replacements_counted: books.replacements_counted,
        open: books.open,
        shipped: books.shipped,
        quarantined: books.quarantined,
        scrapped: books.scrapped,
        superseded: books.superseded,
    }
}

fn unsettled(unit: &Unsettled) -> messages::UnsettledUnit {
    let (issuance_id, endpoint_name) = match &unit.issuance {
        Some((id, name)) => (id.to_string(), name.clone()),
        None => Default::default(),
    };
    messages::UnsettledUnit {
        serial: unit.serial.as_ref().map(ToString::to_string).unwrap_or_default(),
        station: unit.standing.map_or(messages::UnitStanding::Unspecified, standing).into(),
        issuance_id,
        endpoint_name,
        signer: unit.signer.map_or("", place).to_owned(),
        difference: match unit.difference {
            None => messages::UnitDifference::Unspecified,
            Some(Difference::StationUnaware) => messages::UnitDifference::StationUnaware,
            Some(Difference::SignerUnaware) => messages::UnitDifference::SignerUnaware,
            Some(Difference::Place) => messages::UnitDifference::Place,
        }
        .into(),
    }
}

fn standing(standing: Standing) -> messages::UnitStanding {
    match standing {
        Standing::NotStarted => messages::UnitStanding::NotStarted,
        Standing::InNest => messages::UnitStanding::InNest,
        Standing::Open => messages::UnitStanding::Open,
        Standing::Shipped => messages::UnitStanding::Shipped,
        Standing::Quarantined => messages::UnitStanding::Quarantined,
        Standing::Scrapped => messages::UnitStanding::Scrapped,
    }
}

fn place(place: Place) -> &'static str {
    match place {
        Place::Open => "OPEN",
        Place::Shipped => "SHIPPED",
        Place::Quarantined => "QUARANTINED",
        Place::Scrapped => "SCRAPPED",
        Place::Superseded => "SUPERSEDED",
    }
}
