//! Keeps each call that would change something: who, what, from where, and what came of it; durable before it is answered.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
    time::{Duration, Instant, SystemTime},
};

use factory_door::guest::{Guest as _, Origin};
use factory_journal::{Journal, JournalError, Room, Sequence};
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    field_descriptor_proto::{Label, Type},
};
use tonic::{Code, Status, body::Body, codegen::http};
use tracing::{error, warn};

use super::{
    access::method,
    command::ListAudit,
    frame::{self, Fields, Message},
};
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

/// What a field of a message holds, by its number.
type Numbers = HashMap<u32, Part>;

enum Part {
    Text(Field),
    /// The first request of a stream has them one level further in.
    Message(Numbers),
}

/// How far in they may be.
const DEPTH: usize = 1;

/// Where each method's request has these fields.
static METHODS: LazyLock<HashMap<String, Numbers>> =
    LazyLock::new(|| methods(&factory_proto::descriptors().file));

fn methods(files: &[FileDescriptorProto]) -> HashMap<String, Numbers> {
    let mut messages = HashMap::new();
    for file in files {
        let named = |message| (format!(".{}.{}", file.package(), DescriptorProto::name(message)), message);
        messages.extend(file.message_type.iter().map(named));
    }
    let mut methods = HashMap::new();
    for file in files {
        for service in &file.service {
            for method in &service.method {
                let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                methods.insert(path, numbers(&messages, method.input_type(), DEPTH));
            }
        }
    }
    methods
}

fn numbers(messages: &HashMap<String, &DescriptorProto>, name: &str, depth: usize) -> Numbers {
    let fields = messages.get(name).map(|message| message.field.as_slice()).unwrap_or_default();
    let part = |field: &FieldDescriptorProto| match field.r#type() {
        Type::String => {
            FIELDS.iter().find(|(name, _)| *name == field.name()).map(|(_, text)| Part::Text(*text))
        }
        Type::Message if depth > 0 && field.label() != Label::Repeated => {
            Some(Part::Message(numbers(messages, field.type_name(), depth - 1)))
        }
        _ => None,
    };
    fields.iter().filter_map(|field| Some((u32::try_from(field.number()).ok()?, part(field)?))).collect()
}

fn learn(about: &mut CallAbout, numbers: &Numbers, fields: Fields<'_>) {
    for (number, bytes) in fields {
        match numbers.get(&number) {
            Some(Part::Text(field)) => {
                *field(about) = Some(bounded(&String::from_utf8_lossy(bytes), LONGEST_ID));
            }
            Some(Part::Message(inner)) => learn(about, inner, frame::fields(bytes)),
            None => {}
        }
    }
}

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
        if let Some(numbers) = METHODS.get(self.path) {
            learn(&mut self.record.about, numbers, message.fields());
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

#[cfg(test)]
mod tests {
    use prost_types::{MethodDescriptorProto, ServiceDescriptorProto};

    use super::*;

    fn field(name: &str, number: i32, kind: Type, of: &str) -> FieldDescriptorProto {
        FieldDescriptorProto {
            name: Some(name.to_owned()),
            number: Some(number),
            r#type: Some(kind.into()),
            label: Some(Label::Optional.into()),
            type_name: (!of.is_empty()).then(|| of.to_owned()),
            ..FieldDescriptorProto::default()
        }
    }

    /// A file with a method whose request has these fields, and may hold a message with the others.
    fn about(
        outer: Vec<FieldDescriptorProto>,
        inner: Vec<FieldDescriptorProto>,
        message: &[u8],
    ) -> CallAbout {
        let message_type = |name: &str, field| DescriptorProto {
            name: Some(name.to_owned()),
            field,
            ..DescriptorProto::default()
        };
        let method = MethodDescriptorProto {
            name: Some("Do".to_owned()),
            input_type: Some(".x.Outer".to_owned()),
            ..MethodDescriptorProto::default()
        };
        let file = FileDescriptorProto {
            package: Some("x".to_owned()),
            message_type: vec![message_type("Outer", outer), message_type("Inner", inner)],
            service: vec![ServiceDescriptorProto {
                name: Some("S".to_owned()),
                method: vec![method],
                ..ServiceDescriptorProto::default()
            }],
            ..FileDescriptorProto::default()
        };
        let mut about = CallAbout::default();
        learn(&mut about, &methods(&[file])["/x.S/Do"], frame::fields(message));
        about
    }

    #[test]
    fn a_call_is_about_what_its_fields_say_and_those_of_the_message_in_it() {
        let serial = || field("serial", 2, Type::String, "");
        let start = field("start", 1, Type::Message, ".x.Inner");
        let message = b"\x12\x03SN1\x0a\x04\x12\x02SN";
        let flat = about(vec![serial()], vec![], message);
        assert_eq!(flat, CallAbout { serial: Some("SN1".to_owned()), ..CallAbout::default() });
        // The last one counts, as protobuf has it.
        let nested = about(vec![serial(), start.clone()], vec![serial()], message);
        assert_eq!(nested.serial.as_deref(), Some("SN"));
        // Neither what has the name and is no text, nor what repeats.
        let number = field("serial", 2, Type::Bytes, "");
        assert_eq!(about(vec![number], vec![], message), CallAbout::default());
        let many = FieldDescriptorProto { label: Some(Label::Repeated.into()), ..start };
        assert_eq!(about(vec![many], vec![serial()], message), CallAbout::default());
    }
}
