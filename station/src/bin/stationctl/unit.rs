use std::time::SystemTime;

use clap::Args;
use factory_proto::{
    disposition::Disposition,
    station::{
        self as messages, AbortUnitRequest, DisposeUnitRequest, GetUnitRequest, ListUnitsRequest, Outcome,
        ReleaseUnitRequest, RunState, StartGoldenUnitRequest, StartUnitRequest, Unit,
        station_client::StationClient,
    },
};
use tonic::transport::Channel;
use uuid::Uuid;

use crate::{connect::refused, values::NamedValue};

#[derive(Args)]
pub struct Start {
    /// The board's serial number.
    serial: String,
    /// The nest that it lies in; without one, the nest that has been free for longest, which is printed too.
    #[arg(long)]
    nest: Option<String>,
    /// The work order that it belongs to.
    #[arg(long)]
    order: String,
    /// A UUID; the same one gives the same run again.
    #[arg(long)]
    command_id: Option<Uuid>,
    /// A value of its own, as in mac=00:11; once for each.
    #[arg(long = "value", value_name = "NAME=VALUE")]
    values: Vec<NamedValue>,
}

impl Start {
    pub async fn run(self, station: &mut StationClient<Channel>) -> anyhow::Result<()> {
        let chosen = self.nest.is_none();
        let request = StartUnitRequest {
            command_id: self.command_id.unwrap_or_else(Uuid::now_v7).to_string(),
            work_order: self.order,
            serial: self.serial,
            nest: self.nest.unwrap_or_default(),
            values: self.values.into_iter().map(|NamedValue { name, value }| (name, value)).collect(),
        };
        let started = station.start_unit(request).await.map_err(refused)?.into_inner();
        if chosen {
            println!("{} {}", started.run_id, started.nest);
        } else {
            println!("{}", started.run_id);
        }
        Ok(())
    }
}

#[derive(Args)]
pub struct Golden {
    /// The golden unit's serial number, as `[golden]` of the station file names it.
    serial: String,
    /// The nest that it lies in.
    #[arg(long)]
    nest: String,
    /// A UUID; the same one gives the same run again.
    #[arg(long)]
    command_id: Option<Uuid>,
}

impl Golden {
    pub async fn run(self, station: &mut StationClient<Channel>) -> anyhow::Result<()> {
        let command_id = self.command_id.unwrap_or_else(Uuid::now_v7).to_string();
        let request = StartGoldenUnitRequest { command_id, serial: self.serial, nest: self.nest };
        let started = station.start_golden_unit(request).await.map_err(refused)?.into_inner();
        println!("{}", started.run_id);
        Ok(())
    }
}

#[derive(Args)]
pub struct Abort {
    /// The run's id.
    run: String,
    /// Why; is kept in the result.
    #[arg(long)]
    reason: String,
}

impl Abort {
    pub async fn run(self, station: &mut StationClient<Channel>) -> anyhow::Result<()> {
        let command_id = Uuid::now_v7().to_string();
        let request = AbortUnitRequest { command_id, run_id: self.run, reason: self.reason };
        station.abort_unit(request).await.map_err(refused)?;
        Ok(())
    }
}

#[derive(Args)]
pub struct Release {
    /// The unit's serial number.
    serial: String,
    /// What was done to it; is kept.
    #[arg(long)]
    reason: String,
    /// It was changed: repaired, or a part of it replaced. Its next run is then no retest.
    #[arg(long)]
    reworked: bool,
}

impl Release {
    pub async fn run(self, station: &mut StationClient<Channel>) -> anyhow::Result<()> {
        let command_id = Uuid::now_v7().to_string();
        let Self { serial, reason, reworked } = self;
        let request = ReleaseUnitRequest { command_id, serial, reason, reworked };
        station.release_unit(request).await.map_err(refused)?;
        Ok(())
    }
}

#[derive(Args)]
pub struct Dispose {
    /// The unit's serial number.
    serial: String,
    /// shipped, quarantined or scrapped.
    disposition: Disposition,
}

impl Dispose {
    pub async fn run(self, station: &mut StationClient<Channel>) -> anyhow::Result<()> {
        let request = DisposeUnitRequest {
            command_id: Uuid::now_v7().to_string(),
            serial: self.serial,
            disposition: messages::Disposition::from(self.disposition).into(),
        };
        station.dispose_unit(request).await.map_err(refused)?;
        Ok(())
    }
}

#[derive(Args)]
pub struct Get {
    /// The run's id.
    run: String,
}

impl Get {
    pub async fn run(self, station: &mut StationClient<Channel>) -> anyhow::Result<()> {
        let answer = station.get_unit(GetUnitRequest { run_id: self.run }).await.map_err(refused)?;
        let unit = answer.into_inner().unit.unwrap_or_default();
        println!("{}", line(&unit));
        for step in &unit.steps {
            let elapsed = step.elapsed.unwrap_or_default();
            println!(
                "  {:10} {:8} {}.{:03} s",
                step.step,
                outcome(step.outcome),
                elapsed.seconds,
                elapsed.nanos / 1_000_000
            );
        }
        for m in &unit.measurements {
            let verdict = if m.within_limits { "" } else { "  OUT OF LIMITS" };
            println!(
                "  {:20} {}{} ({} to {}){verdict}",
                m.name, m.value, m.unit, m.lower_limit, m.upper_limit
            );
        }
        for answer in &unit.fcc_answers {
            let status = answer.return_status.map_or("none".to_owned(), |status| status.to_string());
            println!("  fcc {} status {status} {}", answer.session, answer.info_message.escape_debug());
            for warning in &answer.warnings {
                println!("    warning: {warning:?}");
            }
        }
        for resumption in &unit.resumptions {
            println!("  left in {:?}, went on with {:?}", resumption.left_in, resumption.resumed_at);
        }
        if let Some(quarantine) = &unit.quarantine {
            println!("  in quarantine: {}\n  what to do: {}", quarantine.reason, quarantine.remedy);
        }
        if let Some(identity) = &unit.identity {
            println!("  endpoint {}\n  enrolment id {}", identity.endpoint_name, identity.enrolment_id);
        }
        Ok(())
    }
}

#[derive(Args)]
pub struct List {
    /// Only runs of this work order.
    #[arg(long, default_value = "")]
    order: String,
    /// Only runs on this unit.
    #[arg(long, default_value = "")]
    serial: String,
    /// Only runs in this nest.
    #[arg(long, default_value = "")]
    nest: String,
    /// Only runs that ended so: PASS, FAIL, ERROR, TIMEOUT or ABORTED; once for each.
    #[arg(long = "outcome", value_name = "OUTCOME")]
    outcomes: Vec<factory_proto::outcome::Outcome>,
    /// Only runs that last.
    #[arg(long, conflicts_with = "closed")]
    open: bool,
    /// Only runs that have ended.
    #[arg(long)]
    closed: bool,
    /// Only runs that began then or later, as in 2026-11-25T06:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_rfc3339_weak)]
    started_from: Option<SystemTime>,
    /// Only runs that began before then.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_rfc3339_weak)]
    started_before: Option<SystemTime>,
}

impl List {
    pub async fn run(self, station: &mut StationClient<Channel>) -> anyhow::Result<()> {
        let state = match (self.open, self.closed) {
            (true, _) => RunState::Open,
            (_, true) => RunState::Closed,
            _ => RunState::Unspecified,
        };
        let mut request = ListUnitsRequest {
            work_order: self.order,
            serial: self.serial,
            nest: self.nest,
            outcomes: self.outcomes.into_iter().map(|outcome| Outcome::from(outcome).into()).collect(),
            state: state.into(),
            started_from: self.started_from.map(Into::into),
            started_before: self.started_before.map(Into::into),
            ..ListUnitsRequest::default()
        };
        loop {
            let page = station.list_units(request.clone()).await.map_err(refused)?.into_inner();
            for unit in &page.units {
                println!("{}", line(unit));
            }
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                return Ok(());
            }
        }
    }
}

fn line(unit: &Unit) -> String {
    let why = match unit.failing_step.as_str() {
        "" => unit.reason.clone(),
        step => format!("{step}: {}", unit.reason),
    };
    format!(
        "{} {} {} {} {:8} {why}",
        unit.run_id,
        if unit.golden { "(golden)" } else { &unit.work_order },
        unit.serial,
        unit.nest,
        outcome(unit.outcome)
    )
}

/// As the station writes it, without the enum's prefix.
pub fn outcome(number: i32) -> &'static str {
    match Outcome::try_from(number) {
        Ok(Outcome::Unspecified) => "RUNNING",
        Ok(known) => known.as_str_name().trim_start_matches("OUTCOME_"),
        Err(_) => "UNKNOWN",
    }
}
