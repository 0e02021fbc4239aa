//! Which events are wanted.

use factory_journal::Sequence;
use factory_proto::{
    ids::NestName,
    station::{self as messages, EventKind},
};
use tonic::Status;

use super::fields::{Fields, MOST_NESTS};
use crate::rpc::watch::{Filter, Wanted};

impl TryFrom<messages::WatchEventsRequest> for Wanted {
    type Error = Status;
    fn try_from(request: messages::WatchEventsRequest) -> Result<Self, Status> {
        let mut fields = Fields::default();
        let mut filter = Filter::default();
        if request.nests.len() > MOST_NESTS {
            let text = format!("are {}, at most {MOST_NESTS} are taken", request.nests.len());
            fields.check::<()>("nests", Err(text));
        }
        for (at, nest) in request.nests.iter().enumerate().take(MOST_NESTS) {
            filter.nests.extend(fields.parse::<NestName>(&format!("nests[{at}]"), nest));
        }
        filter.order = fields.optional("work_order", &request.work_order).flatten();
        for (at, kind) in request.kinds.iter().enumerate().take(MOST_NESTS) {
            let known = EventKind::try_from(*kind).ok().filter(|kind| *kind != EventKind::Unspecified);
            filter.kinds.extend(fields.check(&format!("kinds[{at}]"), known.ok_or("is no kind of event")));
        }
        let after = request.after_sequence.map(Sequence::from);
        fields.finish(Some(Self { after, filter }))
    }
}
