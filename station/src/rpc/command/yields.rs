//! Which runs' yields are asked for.

use factory_proto::station as messages;
use tonic::Status;

use super::fields::Fields;
use crate::yields::survey::Asked;

/// Which runs' yields.
pub fn yields(request: messages::GetYieldsRequest) -> Result<Asked, Status> {
    let mut fields = Fields::default();
    let order = fields.optional("work_order", &request.work_order);
    let nest = fields.optional("nest", &request.nest);
    let from = fields.time("ended_from", request.ended_from.as_ref());
    let to = fields.time("ended_before", request.ended_before.as_ref());
    if request.work_order.is_empty() && request.ended_from.is_none() {
        fields.check::<()>("ended_from", Err("is missing: give it, or a work_order"));
    }
    let asked = || Some(Asked { order: order?, nest: nest?, from: from?, to: to? });
    fields.finish(asked())
}
