//! Watches the token, its module and the ledger while the signer serves: tells health, and knows when only a fresh process helps.

use std::{sync::Arc, time::Duration};

use factory_journal::Room;
use humantime::format_duration;
use tokio::{sync::watch, time::interval};

use crate::{
    health::{Health, Part},
    token::{condition::Condition, session::Login},
};

/// How often it is seen whether a call hangs.
const GLANCE: Duration = Duration::from_millis(200);

/// Why the process must end, and be started again.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    /// A call that does not come back keeps its thread, and the module cannot be taken away under it.
    #[error(
        "a call has hung in the PKCS#11 module for {}, and only a new process can load it again: \
         this one ends so that the service manager starts it afresh, nothing in the ledger is lost", format_duration(*.0)
    )]
    Hung(Duration),
    /// A write failed, and only a restart can tell what is on the disk.
    #[error("the ledger failed ({0}): this process ends so that a new one reads what is on the disk")]
    Ledger(String),
}

/// Who is watched, and for how long a call may last.
pub struct Vigil {
    /// The token's login, shared by all its pools.
    pub login: Arc<Login>,
    /// The ledger's room.
    pub room: watch::Receiver<Room>,
    /// What the ledger was found to be, if it is not the one that stations were answered from.
    pub betrayed: watch::Receiver<Option<String>>,
    /// After this, a call that is inside the module is a fault.
    pub deadline: Duration,
    /// After this, it is beyond hope.
    pub hang_limit: Duration,
}

impl Vigil {
    /// Keeps `health` true, until the process has to end.
    pub async fn keep(mut self, health: &Health) -> Fatal {
        let mut condition = self.login.condition();
        let mut glances = interval(GLANCE);
        loop {
            let known = condition.borrow_and_update().clone();
            match known {
                // What is lost for a moment only is no news for anybody.
                Condition::Signs | Condition::Lost => health.set(Part::Token, None).await,
                Condition::Away { reason } | Condition::Barred { reason } => {
                    health.set(Part::Token, Some(reason)).await;
                }
            }
            let room = self.room.borrow_and_update().clone();
            match room {
                Room::Enough => health.set(Part::Ledger, None).await,
                Room::Low { free, needed } => {
                    let fault = format!("its disk has {free} bytes free, {needed} are needed: make space");
                    health.set(Part::Ledger, Some(fault)).await;
                }
                Room::Failed { reason } => {
                    health.set(Part::Ledger, Some(reason.clone())).await;
                    return Fatal::Ledger(reason);
                }
            }
            let betrayed = self.betrayed.borrow_and_update().clone();
            health.set(Part::Memory, betrayed).await;
            let longest = self.login.longest_call();
            if longest >= self.hang_limit {
                return Fatal::Hung(longest);
            }
            let hangs = longest >= self.deadline;
            health.set(Part::Module, hangs.then(|| "a call hangs inside it".to_owned())).await;
            tokio::select! {
                Ok(()) = condition.changed() => {}
                Ok(()) = self.room.changed() => {}
                Ok(()) = self.betrayed.changed() => {}
                _ = glances.tick() => {}
            }
        }
    }
}
