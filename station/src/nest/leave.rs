//! A nest that fails more than it should takes no more units: when its unit has left, durably, until somebody has enabled
//! or cleared it. What says so is `pack.rs`.

use factory_journal::Sequence;
use tracing::{error, warn};

use super::Keeper;
use crate::record::Record;

impl Keeper {
    /// Parks the nest if it has left the pack with its last unit. So does a station that starts, of one that was killed
    /// between the two.
    pub(super) async fn leave(&mut self) {
        if self.left_pack.is_some() {
            return;
        }
        let Some(left) = self.shared.pack.left(&self.name) else { return };
        match self.shared.journal.append(Record::NestLeftPack(left.clone())).await {
            Ok(_) => {
                warn!(nest = %self.name, reason = %left, "nest has left the pack");
                self.left_pack = Some(left);
            }
            // No unit starts either, for the same reason.
            Err(error) => {
                error!(nest = %self.name, %error, "that the nest has left the pack was not made durable")
            }
        }
    }

    /// Lets it begin anew: what it made before this record does not count any more.
    pub(super) fn rejoin(&mut self, since: Sequence) {
        self.left_pack = None;
        self.shared.pack.begin_anew(&self.name, since);
    }
}
