//! The fields of a message, read one by one: collects what is wrong with each. Knows no message.

use std::{fmt::Display, str::FromStr, time::SystemTime};

use factory_journal::Sequence;
use prost_types::Timestamp;
use tonic::Status;
use uuid::Uuid;

use super::Page;
use crate::{
    commands::{Command, Contents},
    rpc::refusal::Refusal,
};

pub(super) const LARGEST_PAGE: u32 = 1000;
/// Of what may be given several times in a message.
pub(super) const MOST_NESTS: usize = 1000;
const LONGEST_REASON: usize = 200;

/// Collects what is wrong with a message.
#[derive(Default)]
pub(super) struct Fields(Vec<(String, String)>);

impl Fields {
    pub fn parse<T: FromStr<Err: Display>>(&mut self, name: &str, text: &str) -> Option<T> {
        self.check(name, text.parse())
    }

    pub fn check<T>(&mut self, name: &str, value: Result<T, impl Display>) -> Option<T> {
        value.map_err(|error| self.0.push((name.to_owned(), error.to_string()))).ok()
    }

    /// What may be left empty.
    pub fn optional<T: FromStr<Err: Display>>(&mut self, name: &str, text: &str) -> Option<Option<T>> {
        if text.is_empty() { Some(None) } else { self.parse(name, text).map(Some) }
    }

    pub fn time(&mut self, name: &str, time: Option<&Timestamp>) -> Option<Option<SystemTime>> {
        let Some(time) = time else { return Some(None) };
        let time = SystemTime::try_from(*time).ok().filter(|time| *time >= SystemTime::UNIX_EPOCH);
        self.check(name, time.ok_or("is no time since 1970")).map(Some)
    }

    pub fn range(&mut self, name: &str, value: u32, low: u32, high: u32) -> Option<u32> {
        let within = (low..=high).contains(&value).then_some(value);
        self.check(name, within.ok_or_else(|| format!("is {value}, must be {low} to {high}")))
    }

    pub fn digest(&mut self, bytes: &[u8]) -> Option<[u8; 32]> {
        let length = bytes.len();
        self.check("recipe_digest", bytes.try_into().map_err(|_| format!("has {length} bytes, must have 32")))
    }

    /// A reason that must be there.
    pub fn given_reason(&mut self, reason: String) -> Option<String> {
        if reason.trim().is_empty() {
            return self.check("reason", Err("must say why"));
        }
        self.reason(reason)
    }

    /// The command that a call brings.
    pub fn command<C: factory_proto::command::Command>(&mut self, request: &mut C) -> Option<Command> {
        let id: Option<Uuid> = self.parse("command_id", &request.id().clone());
        Some(Contents::of(request).command(id?))
    }

    pub fn reason(&mut self, reason: String) -> Option<String> {
        self.short("reason", reason)
    }

    /// What people say.
    pub fn short(&mut self, name: &str, text: String) -> Option<String> {
        let length = text.chars().count();
        let short = (length <= LONGEST_REASON).then_some(text);
        self.check(
            name,
            short.ok_or_else(|| format!("has {length} characters, at most {LONGEST_REASON} are allowed")),
        )
    }

    pub fn page(&mut self, size: u32, token: &str) -> Option<Page> {
        let from = match token {
            "" => Some(Sequence::START),
            token => {
                let from = token.parse::<u64>().ok().map(Sequence::from);
                self.check("page_token", from.ok_or("is not from an answer of this station"))
            }
        };
        let size = self.page_size(size);
        Some(Page { from: from?, size: size? })
    }

    pub fn page_size(&mut self, size: u32) -> Option<usize> {
        let size = match size {
            0 => Some(100),
            size => self.range("page_size", size, 1, LARGEST_PAGE),
        };
        usize::try_from(size?).ok()
    }

    /// The command, or INVALID_ARGUMENT with all complaints. A part is missing only after a complaint.
    pub fn finish<T>(self, command: Option<T>) -> Result<T, Status> {
        match command {
            Some(command) if self.0.is_empty() => Ok(command),
            _ => Err(Refusal::of_fields(self.0)),
        }
    }
}
