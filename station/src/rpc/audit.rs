//! Keeps each call that would change something: who, what, from where, and what came of it; durable before it is answered.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
    time::{Duration, Instant, SystemTime},
};

use factory_door::guest::{Guest as _, Origin};
use factory_journal::{Journal, JournalError, Room, Sequence};
use tonic::{Code, Status, body::Body, codegen::http};
use tracing::{error, warn};

use super::{access::method, command::ListAudit, frame::Message};
use crate::{
    callers::Caller,
    record::{CallAbout, CallAudited, Record},
};

/// What is kept of a text from outside: no id of ours is longer, and a reason is for people.
const LONGEST_ID: usize = 64;
const LONGEST_REASON: usize = 200;

/// What a command's fields say that it is about, by the names that they have in all messages.
type Field = fn(&mut CallAbout) -> &mut Option<String>;
const FIELDS: [(&str, Field); 6] = [
    ("command_id", |about| &mut about.command),
    ("work_order", |about| &mut about.order),
    ("serial", |about| &mut about.serial),
    ("nest", |about| &mut about.nest),
    ("run_id", |about| &mut about.run),
    ("recipe", |about| &mut about.recipe),
];

/// Where each method's request has these fields.
static NUMBERS: LazyLock<HashMap<String, HashMap<u32, Field>>> = LazyLock::new(|| {
    let files = factory_proto::descriptors().file;
    let messages: HashMap<_, _> = files
        .iter()
        .flat_map(|file| {
            file.message_type
                .iter()
                .map(move |message| (format!(".{}.{}", file.package(), message.name()), message))
        })
        .collect();
    let methods = files.iter().flat_map(|file| {
        file.service.iter().flat_map(move |service| {
            let path = format!("/{}.{}", file.package(), service.name());
            service
                .method
                .iter()
                .map(move |method| (format!("{path}/{}", method.name()), method.input_type()))
        })
    });
    let numbers = |message: &str| {
        let fields = messages.get(message).map(|message| message.field.as_slice()).unwrap_or_default();
        let known = fields.iter().filter_map(|field| {
            let (_, known) = FIELDS.iter().find(|(name, _)| *name == field.name())?;
            Some((u32::try_from(field.number()).ok()?, *known))
        });
        known.collect()
    };
    methods.map(|(path, message)| (path, numbers(message))).collect()
});

/// A call that is to be kept.
pub struct Audited {
    path: &'static str,
    record: CallAudited,
}

impl Audited {
    /// Somebody calls; what it is about is not known yet.
    pub fn begun(caller: &Caller, from: Origin, path: &'static str) -> Self {
        let record = CallAudited {
            time: SystemTime::now(),
            caller: caller.name().to_owned(),
            roles: caller.roles().iter().map(|role| role.to_string()).collect(),
            from: from.to_string(),
            method: method(path).to_owned(),
            about: CallAbout::default(),
            code: Code::Unknown as u32,
            reason: String::new(),
            turned_away: 0,
        };
        Self { path, record }
    }

    /// Learns from its message what it is about.
    pub fn is_about(&mut self, message: &Message) {
        let Some(numbers) = NUMBERS.get(self.path) else { return };
        for (number, bytes) in message.fields() {
            if let Some(field) = numbers.get(&number) {
                let text = String::from_utf8_lossy(bytes);
                *field(&mut self.record.about) = Some(bounded(&text, LONGEST_ID));
            }
        }
    }
}

/// Keeps calls in the journal.
pub struct Auditor(Arc<Journal<Record>>);

impl Auditor {
    /// In this one.
    pub fn new(journal: Arc<Journal<Record>>) -> Self {
        Self(journal)
    }

    /// Keeps a call that was not let through; of many of one caller some are only counted, for the next one that is kept.
    pub async fn refused(&self, caller: &Caller, audited: Audited, status: &Status) {
        if !caller.may_be_told_of(Instant::now()) || *self.0.room().borrow() != Room::Enough {
            return;
        }
        warn!(%caller, from = audited.record.from, method = audited.record.method, "call refused");
        // It is refused in any case; of the journal's failure health tells.
        let _ = self.keep(caller, audited, status).await;
    }

    /// Keeps what came of a call, and gives the answer on.
    ///
    /// # Errors
    /// The call's own, or the journal's.
    pub async fn answered(
        &self,
        caller: &Caller,
        audited: Audited,
        answer: Result<http::Response<Body>, Status>,
    ) -> Result<http::Response<Body>, Status> {
        let said = match &answer {
            Ok(answer) => Status::from_header_map(answer.headers()).unwrap_or_else(|| Status::ok("")),
            Err(status) => status.clone(),
        };
        match self.keep(caller, audited, &said).await {
            Err(failure) if said.code() == Code::Ok => {
                let reason = factory_fixtures::fault::chain(&failure);
                error!(reason, "a call was not audited");
                Err(Status::internal(format!(
                    "the call took effect, but its audit record is not durable: see to the journal, then send the same \
                     command again: {reason}"
                )))
            }
            // It changed nothing, and says why not.
            _ => answer,
        }
    }

    async fn keep(
        &self,
        caller: &Caller,
        audited: Audited,
        status: &Status,
    ) -> Result<Sequence, JournalError> {
        let record = CallAudited {
            code: status.code() as u32,
            reason: bounded(status.message(), LONGEST_REASON),
            turned_away: caller.allowance().take_turned_away(),
            ..audited.record
        };
        self.0.append(Record::CallAudited(Box::new(record))).await
    }
}

/// Kept calls, each with its number, and where the next page begins.
pub type Page = (Vec<(Sequence, CallAudited)>, Option<Sequence>);

/// Records of the present may have been written by a clock that was set back since.
const A_DAY: Duration = Duration::from_secs(24 * 3600);

/// A page of kept calls, oldest first. Blocks.
///
/// # Errors
/// The journal cannot be read.
pub fn page(journal: &Journal<Record>, list: &ListAudit) -> Result<Page, JournalError> {
    let mut page = Vec::new();
    let mut from = list.page.from;
    // A later page begins behind that time already.
    if let (Sequence::START, Some(since)) = (from, list.since) {
        let Some(first) = journal.by_time(since, SystemTime::now() + A_DAY)?.next() else {
            return Ok((page, None));
        };
        from = first?.sequence;
    }
    for entry in journal.read(from) {
        let entry = entry?;
        let Record::CallAudited(audited) = entry.record else { continue };
        if page.len() == list.page.size {
            return Ok((page, Some(entry.sequence)));
        }
        page.push((entry.sequence, *audited));
    }
    Ok((page, None))
}

fn bounded(text: &str, longest: usize) -> String {
    text.chars().take(longest).collect()
}
