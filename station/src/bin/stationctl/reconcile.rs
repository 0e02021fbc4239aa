//! The books of an order, for people.

use anyhow::ensure;
use clap::Args;
use factory_proto::station::{
    ReconcileWorkOrderRequest, UnitDifference, UnitStanding, UnsettledUnit, station_client::StationClient,
};
use tonic::transport::Channel;

use crate::connect::refused;

/// As many as the station gives at a time.
const PAGE: u32 = 1000;

#[derive(Args)]
pub struct Reconcile {
    /// The work order's id.
    order: String,
}

impl Reconcile {
    pub async fn run(self, station: &mut StationClient<Channel>) -> anyhow::Result<()> {
        let mut page_token = String::new();
        loop {
            let is_first = page_token.is_empty();
            let request =
                ReconcileWorkOrderRequest { work_order: self.order.clone(), page_size: PAGE, page_token };
            let books = station.reconcile_work_order(request).await.map_err(refused)?.into_inner();
            if is_first {
                let (here, signer) = (books.station.unwrap_or_default(), books.signer.unwrap_or_default());
                println!(
                    "station: {} units = {} in nests + {} shipped + {} scrapped + {} quarantined + {} open; {} passed, {} \
                     failed, {} not started",
                    here.units,
                    here.in_nests,
                    here.shipped,
                    here.scrapped,
                    here.quarantined,
                    here.open,
                    here.passed,
                    here.failed,
                    here.not_started
                );
                println!(
                    "signer: {} issued = {} shipped + {} scrapped + {} quarantined + {} superseded + {} open",
                    signer.units_counted + signer.replacements_counted,
                    signer.shipped,
                    signer.scrapped,
                    signer.quarantined,
                    signer.superseded,
                    signer.open
                );
            }
            books.unsettled.iter().for_each(|unit| println!("{}", line(unit)));
            page_token = books.next_page_token;
            if page_token.is_empty() {
                let unsettled = books.unsettled_units;
                ensure!(unsettled == 0, "{unsettled} units of {} are not settled", self.order);
                return Ok(());
            }
        }
    }
}

fn line(unit: &UnsettledUnit) -> String {
    let what = match unit.difference() {
        UnitDifference::Unspecified => "not accounted for".to_owned(),
        UnitDifference::StationUnaware => "the signer has it, and this station never asked for it".to_owned(),
        UnitDifference::SignerUnaware => "has a certificate that the signer does not know".to_owned(),
        UnitDifference::Place => format!("the signer has it as {}", unit.signer.to_lowercase()),
    };
    let standing = match unit.station() {
        UnitStanding::Unspecified => "unknown here".to_owned(),
        known => known.as_str_name().trim_start_matches("UNIT_STANDING_").to_lowercase().replace('_', " "),
    };
    let serial = if unit.serial.is_empty() { "-" } else { &unit.serial };
    let issuance = match unit.issuance_id.as_str() {
        "" => String::new(),
        id => format!(" ({}, issuance {id})", unit.endpoint_name),
    };
    format!("{serial}: {standing}; {what}{issuance}")
}
