use std::time::{Duration, SystemTime};

use clap::Args;
use factory_proto::station::{AuditRecord, ListAuditRecordsRequest, station_client::StationClient};
use tonic::{Code, transport::Channel};

use crate::connect::refused;

/// What is looked at at a time.
const PAGE: u32 = 1000;

#[derive(Args)]
pub struct Audit {
    /// Only calls of this caller, as in dns:mes.example.
    #[arg(long)]
    caller: Option<String>,
    /// Only calls about this unit.
    #[arg(long)]
    serial: Option<String>,
    /// Only calls of the last time, as in 24h or 30days.
    #[arg(long, value_parser = humantime::parse_duration)]
    last: Option<Duration>,
}

impl Audit {
    pub async fn run(self, station: &mut StationClient<Channel>) -> anyhow::Result<()> {
        let mut page_token = String::new();
        let since = self.last.and_then(|last| SystemTime::now().checked_sub(last)).map(Into::into);
        loop {
            let request = ListAuditRecordsRequest { page_size: PAGE, page_token, since };
            let answer = station.list_audit_records(request).await.map_err(refused)?.into_inner();
            for record in answer.records.iter().filter(|record| self.wants(record)) {
                println!("{}", line(record));
            }
            page_token = answer.next_page_token;
            if page_token.is_empty() {
                return Ok(());
            }
        }
    }

    fn wants(&self, record: &AuditRecord) -> bool {
        self.caller.as_ref().is_none_or(|caller| *caller == record.caller)
            && self.serial.as_ref().is_none_or(|serial| *serial == record.serial)
    }
}

/// Number, time, caller and place, method, what it was about, and what came of it.
fn line(record: &AuditRecord) -> String {
    let time = record.time.and_then(|time| SystemTime::try_from(time).ok());
    let time = time.map_or_else(|| "?".to_owned(), |time| humantime::format_rfc3339_millis(time).to_string());
    let about = [
        ("order", &record.work_order),
        ("serial", &record.serial),
        ("nest", &record.nest),
        ("run", &record.run_id),
        ("recipe", &record.recipe),
        ("command", &record.command_id),
    ];
    // They came from outside: nothing in them may move the terminal.
    let about = about.iter().filter(|(_, value)| !value.is_empty());
    let about: String = about.map(|(name, value)| format!(" {name}={}", value.escape_debug())).collect();
    let outcome = match Code::from(i32::try_from(record.code).unwrap_or_default()) {
        Code::Ok => "OK".to_owned(),
        code => format!("{code:?}: {}", record.reason.escape_debug()),
    };
    let turned_away = match record.turned_away {
        0 => String::new(),
        calls => format!(" ({calls} calls before it were turned away)"),
    };
    format!(
        "{} {time} {} [{}] from {} {}{about}: {outcome}{turned_away}",
        record.sequence,
        record.caller.escape_debug(),
        record.roles.join(", "),
        record.from,
        record.method,
    )
}
