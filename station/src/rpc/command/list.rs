//! Which part of a list is asked for: of runs, or of audited calls.

use std::time::SystemTime;

use factory_journal::Sequence;
use factory_proto::{outcome::Outcome, station as messages};
use tonic::Status;

use super::fields::{Fields, MOST_NESTS};
use crate::{listing::Selection, rpc::page::ListDigest};

/// Part of a list.
pub struct Page {
    /// From this record on.
    pub from: Sequence,
    /// At most so many.
    pub size: usize,
}

/// A page of runs.
pub struct List {
    /// Of these.
    pub selection: Selection,
    /// Which list that is.
    pub digest: ListDigest,
    /// From this record on.
    pub from: Sequence,
    /// At most so many.
    pub size: usize,
}

impl TryFrom<messages::ListUnitsRequest> for List {
    type Error = Status;
    fn try_from(request: messages::ListUnitsRequest) -> Result<Self, Status> {
        let mut fields = Fields::default();
        let digest = ListDigest::of(&request);
        let from = match request.page_token.as_str() {
            "" => Some(Sequence::START),
            token => fields.check("page_token", digest.begins(token)),
        };
        let size = fields.page_size(request.page_size);
        let selection = selection(&mut fields, &request);
        let list = || Some(Self { selection: selection?, digest, from: from?, size: size? });
        fields.finish(list())
    }
}

fn selection(fields: &mut Fields, request: &messages::ListUnitsRequest) -> Option<Selection> {
    let order = fields.optional("work_order", &request.work_order);
    let serial = fields.optional("serial", &request.serial);
    let nest = fields.optional("nest", &request.nest);
    let mut outcomes = Vec::new();
    for (at, outcome) in request.outcomes.iter().enumerate().take(MOST_NESTS) {
        let known = messages::Outcome::try_from(*outcome).ok();
        let outcome: Option<Outcome> = known.and_then(|outcome| outcome.try_into().ok());
        outcomes.extend(fields.check(&format!("outcomes[{at}]"), outcome.ok_or("is no outcome")));
    }
    let ended = match messages::RunState::try_from(request.state) {
        Ok(messages::RunState::Unspecified) => Some(None),
        Ok(messages::RunState::Open) => Some(Some(false)),
        Ok(messages::RunState::Closed) => Some(Some(true)),
        Err(_) => fields.check("state", Err("is no state of a run")),
    };
    let started_from = fields.time("started_from", request.started_from.as_ref());
    let started_before = fields.time("started_before", request.started_before.as_ref());
    Some(Selection {
        order: order?,
        serial: serial?,
        nest: nest?,
        outcomes,
        ended: ended?,
        started_from: started_from?,
        started_before: started_before?,
    })
}

/// A page of audited calls.
pub struct ListAudit {
    /// Which part.
    pub page: Page,
    /// Only those kept since then.
    pub since: Option<SystemTime>,
}

impl TryFrom<messages::ListAuditRecordsRequest> for ListAudit {
    type Error = Status;
    fn try_from(request: messages::ListAuditRecordsRequest) -> Result<Self, Status> {
        let mut fields = Fields::default();
        let page = fields.page(request.page_size, &request.page_token);
        let since = request.since.map(SystemTime::try_from).transpose();
        let since = fields.check("since", since);
        let list = || Some(Self { page: page?, since: since? });
        fields.finish(list())
    }
}
