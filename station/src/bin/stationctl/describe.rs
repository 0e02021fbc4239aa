use std::time::{Duration, SystemTime};

use data_encoding::HEXLOWER;
use factory_proto::station::{
    DescribeStationRequest, GoldenStanding, WorkOrderState, station_client::StationClient,
};
use tonic::transport::Channel;

use crate::{budget, connect::refused, unit::outcome};

const SHOWN: usize = 10;

pub async fn describe(station: &mut StationClient<Channel>) -> anyhow::Result<()> {
    let answer = station.describe_station(DescribeStationRequest {}).await.map_err(refused)?.into_inner();
    println!("station {} {}", answer.station, answer.version);
    if let Some(caller) = answer.caller {
        println!("you are taken for {}, whose roles are {}", caller.caller, caller.roles.join(", "));
    }
    println!("station file: SHA-256 {}", HEXLOWER.encode(&answer.configuration_digest));
    println!("last record of the log: {}", answer.last_sequence);
    let since = answer.oldest_unacknowledged.and_then(|time| SystemTime::try_from(time).ok());
    let since = since.map_or_else(String::new, |time| format!(", the oldest {} old", age(time)));
    println!("results without acknowledgement: {}{since}", answer.unacknowledged_results);
    for refused in answer.refused_results {
        let what = match refused.run_id.as_str() {
            "" => "a signed head".to_owned(),
            run => format!("the result of run {run}"),
        };
        println!("set aside, for the controller refused it: {what}: {}", refused.reason);
    }
    if !answer.journal_trouble.is_empty() {
        println!("no new unit is started: {}", answer.journal_trouble);
    }
    if !answer.provenance_trouble.is_empty() {
        println!("no heads of the log are signed: {}", answer.provenance_trouble);
    }
    for part in answer.parts.iter().filter(|part| !part.trouble.is_empty()) {
        let since = part.since.and_then(|time| SystemTime::try_from(time).ok());
        let since = since.map_or_else(String::new, |time| format!(" for {}", age(time)));
        println!("{} in trouble{since}: {}", part.part, part.trouble);
    }
    for controller in answer.controllers {
        let used = if controller.in_use { ", in use" } else { "" };
        let trouble = match controller.trouble.as_str() {
            "" => String::new(),
            trouble => format!(", does not answer: {trouble}"),
        };
        println!("controller {}{used}{trouble}", controller.address);
    }
    println!("{}", budget::told(&answer.offline_budget.unwrap_or_default()));
    // The newest are what an operator asks about; the log has them all.
    for unit in answer.refused_units.iter().take(SHOWN) {
        let time = unit.time.and_then(|time| SystemTime::try_from(time).ok());
        let since = time.map_or_else(String::new, |time| format!(", {} ago", age(time)));
        println!(
            "unit {} in nest {} was refused{since}: {}",
            unit.serial,
            unit.nest,
            unit.reasons.join("; ")
        );
    }
    println!("recipes: {}", answer.recipes.join(", "));
    for nest in answer.nests {
        let state = match (nest.run_id.as_str(), nest.parked.as_str()) {
            ("", "") => "free".to_owned(),
            ("", reason) => format!("parked: {reason}"),
            (run, _) => run.to_owned(),
        };
        println!("nest {}: {state}", nest.nest);
        let GoldenStanding { due_since, due, last } = nest.golden.unwrap_or_default();
        if !due.is_empty() {
            let since = due_since.and_then(|time| SystemTime::try_from(time).ok());
            let since = since.map_or_else(String::new, |time| format!(" for {}", age(time)));
            println!("  golden unit due{since}: {due}");
        }
        if let Some(last) = last {
            let ended = last.ended.and_then(|time| SystemTime::try_from(time).ok());
            let ended = ended.map_or_else(String::new, |time| format!(", {} ago", age(time)));
            println!("  last golden unit: {} {}{ended} {}", last.serial, outcome(last.outcome), last.reason);
        }
    }
    for order in answer.work_orders {
        println!(
            "order {}: {} of {} passed, recipe {}{}",
            order.work_order,
            order.passed,
            order.quantity,
            order.recipe,
            match order.state() {
                WorkOrderState::Paused => format!(", paused: {}", order.state_reason),
                WorkOrderState::Closed => format!(", closed: {}", order.state_reason),
                WorkOrderState::Open | WorkOrderState::Unspecified => String::new(),
            }
        );
    }
    Ok(())
}

/// To the second: nobody needs more of a backlog.
fn age(time: SystemTime) -> humantime::FormattedDuration {
    humantime::format_duration(Duration::from_secs(time.elapsed().unwrap_or_default().as_secs()))
}
