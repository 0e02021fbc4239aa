use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use clap::Args;
use factory_proto::station::{GetYieldsRequest, GetYieldsResponse, Tries, station_client::StationClient};
use tonic::transport::Channel;

use crate::{connect::refused, unit::outcome};

/// As many ways to lose a unit as fit on a screen.
const WAYS: usize = 20;

#[derive(Args)]
#[command(
    after_help = "Runs that ended with PASS or FAIL count. First-pass yield: of units' first counting runs; retest yield: of \
counting runs of units that were tested before and not changed since."
)]
pub struct Yield {
    /// Only runs of this work order.
    #[arg(long, required_unless_present = "last")]
    order: Option<String>,
    /// Only runs in this nest.
    #[arg(long)]
    nest: Option<String>,
    /// Only runs of the last so long, as in 8h.
    #[arg(long, value_name = "TIME")]
    last: Option<humantime::Duration>,
}

impl Yield {
    pub async fn run(self, station: &mut StationClient<Channel>) -> anyhow::Result<()> {
        let from = match self.last {
            Some(last) => Some(SystemTime::now().checked_sub(*last).context("--last reaches too far back")?),
            None => None,
        };
        let request = GetYieldsRequest {
            work_order: self.order.unwrap_or_default(),
            nest: self.nest.unwrap_or_default(),
            ended_from: from.map(Into::into),
            ended_before: None,
        };
        show(&station.get_yields(request).await.map_err(refused)?.into_inner());
        Ok(())
    }
}

fn show(yields: &GetYieldsResponse) {
    let outcomes: Vec<String> =
        yields.outcomes.iter().map(|count| format!("{} {}", count.runs, outcome(count.outcome))).collect();
    println!(
        "runs              {}",
        if outcomes.is_empty() { "none".to_owned() } else { outcomes.join(", ") }
    );
    if yields.left_out > 0 {
        println!("                  and {} older ones, which were not looked at", yields.left_out);
    }
    println!("units             {}", tries(yields.units));
    println!("first-pass yield  {}", tries(yields.first));
    println!("retest yield      {}", tries(yields.retests));
    println!("after rework      {}", tries(yields.reworks));
    for loss in yields.pareto.iter().take(WAYS) {
        let step = if loss.step.is_empty() { "between steps" } else { &loss.step };
        println!(
            "  {:5} runs, {:5} units  {:8} {step}: {}",
            loss.runs,
            loss.units,
            outcome(loss.outcome),
            loss.cause
        );
    }
    if !yields.cycle_times.is_empty() {
        println!("{:18}{:10}{:>7}{:>10}{:>10}{:>10}", "step", "nest", "count", "median", "95%", "longest");
    }
    for time in &yields.cycle_times {
        let step = if time.step.is_empty() { "whole run" } else { &time.step };
        let [median, most, longest] = [time.median, time.percentile_95, time.longest].map(|took| {
            let took = took.and_then(|took| Duration::try_from(took).ok()).unwrap_or_default();
            format!("{:.3} s", took.as_secs_f64())
        });
        println!("{step:18}{:10}{:>7}{median:>10}{most:>10}{longest:>10}", time.nest, time.count);
    }
    if !yields.bottleneck.is_empty() {
        println!(
            "bottleneck        {}, {:.0} % of the time at steps",
            yields.bottleneck,
            yields.bottleneck_share * 100.0
        );
    }
}

fn tries(tries: Option<Tries>) -> String {
    match tries.unwrap_or_default() {
        Tries { runs: 0, .. } => "-".to_owned(),
        #[allow(clippy::cast_precision_loss)] // To a tenth of a percent.
        Tries { runs, passed } => {
            format!("{:.1} % ({passed} of {runs})", passed as f64 * 100.0 / runs as f64)
        }
    }
}
