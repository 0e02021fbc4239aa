use factory_proto::station::{
    WatchEventsRequest, station_client::StationClient, watch_events_response::Event,
};
use tonic::transport::Channel;

use crate::{budget, connect::refused, unit::outcome};

pub async fn watch(station: &mut StationClient<Channel>) -> anyhow::Result<()> {
    let mut events = station.watch_events(WatchEventsRequest {}).await.map_err(refused)?.into_inner();
    while let Some(message) = events.message().await.map_err(refused)? {
        let text = match message.event {
            Some(Event::NestState(state)) if !state.parked.is_empty() => format!("parked: {}", state.parked),
            Some(Event::NestState(state)) => if state.busy { "busy" } else { "free" }.to_owned(),
            Some(Event::RunAccepted(accepted)) => format!("accepted for {}", accepted.work_order),
            Some(Event::StepStarted(step)) => format!("{} …", step.step),
            Some(Event::StepEnded(step)) => format!("{} {}", step.step, outcome(step.outcome)),
            Some(Event::Progress(progress)) => {
                format!(
                    "{} {} {}/{}",
                    progress.step, progress.phase, progress.done_bytes, progress.total_bytes
                )
            }
            Some(Event::RunClosed(closed)) => {
                let set_aside = if closed.quarantine.is_some() { "QUARANTINE " } else { "" };
                format!("{} {set_aside}{} {}", outcome(closed.outcome), closed.failing_step, closed.reason)
            }
            Some(Event::RunResumed(resumed)) => {
                let resumption = resumed.resumption.unwrap_or_default();
                format!("left in {:?}, goes on with {:?}", resumption.left_in, resumption.resumed_at)
            }
            Some(Event::UnitRefused(refused)) => {
                format!("REFUSED by {}: {}", refused.controller, refused.reasons.join("; "))
            }
            Some(Event::OfflineBudget(budget)) => budget::told(&budget),
            Some(Event::Missed(missed)) => format!("{missed} events were missed"),
            // A newer station tells something that this tool does not know.
            None => continue,
        };
        println!("{} {} {text}", message.nest, message.serial);
    }
    Ok(())
}
