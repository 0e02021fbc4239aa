//! What is said of a unit: that it may be started again, or what became of it. Durable before it has an effect.

use std::time::Duration;

use factory_proto::{disposition::Disposition, ids::Serial};
use tokio::time::timeout;

use super::{OrderError, Orders};
use crate::{
    commands::Turn,
    history::Past,
    record::{Record, UnitDisposed, UnitReleased},
    signer::Signer,
};

/// A unit whose result is durable leaves its nest in a moment.
const SETTLES: Duration = Duration::from_secs(2);

impl Orders {
    /// Lets a unit be started again that was set aside or failed, durably. The same command once more changes nothing.
    pub async fn release(&self, turn: &Turn, released: UnitReleased) -> Result<(), OrderError> {
        self.settled(&released.serial).await?;
        let _alone = self.opening.lock().await;
        if self.units.was_released(&released.serial, released.command)? {
            turn.commit(None).await?;
            return Ok(());
        }
        let failed = self.units.history(&released.serial, None)?.past == Past::Failed;
        if !failed && !self.lock().quarantined.contains_key(&released.serial) {
            return Err(OrderError::NothingToRelease(released.serial));
        }
        turn.commit(Some(Record::UnitReleased(released.clone()))).await?;
        self.lock().quarantined.remove(&released.serial);
        Ok(())
    }

    /// Keeps what became of a unit, and tells the signer first. The same command once more changes nothing.
    pub async fn dispose(
        &self,
        turn: &Turn,
        disposed: UnitDisposed,
        signer: &Signer,
    ) -> Result<(), OrderError> {
        self.settled(&disposed.serial).await?;
        let _alone = self.opening.lock().await;
        let UnitDisposed { command, serial, disposition } = &disposed;
        let before = self.units.disposition(serial)?;
        if before.as_ref().is_some_and(|before| before.command == *command) {
            turn.commit(None).await?;
            return Ok(());
        }
        if before.is_some_and(|before| before.disposition == Disposition::Scrapped) {
            return Err(self.scrapped(serial)?);
        }
        if let Some(run) = self.lock().running.get(serial) {
            return Err(OrderError::Running(Box::new(run.clone())));
        }
        if !self.units.is_known(serial)? {
            // Nor of a golden unit: it stays with its fixture.
            return Err(OrderError::NeverSeen(serial.clone()));
        }
        if *disposition == Disposition::Shipped && self.units.passed(serial)?.is_none() {
            return Err(OrderError::NotPassed(serial.clone()));
        }
        // A unit that failed before it had an identity is none of the signer's.
        if let Some(issuance) = signer.known_of(&self.units.issuances(serial)?).await?.live {
            signer.dispose(issuance, *disposition).await?;
        }
        turn.commit(Some(Record::UnitDisposed(disposed))).await?;
        Ok(())
    }

    /// Waits while a unit has its result, and has not left its nest: a watcher may be told of the one before the other.
    async fn settled(&self, serial: &Serial) -> Result<(), OrderError> {
        let settles = async {
            loop {
                let left = self.left.notified();
                let run = self.lock().running.get(serial).map(|run| run.run);
                match run {
                    Some(run) if self.units.find(run)?.is_some_and(|unit| unit.closed.is_some()) => {
                        left.await;
                    }
                    _ => return Ok(()),
                }
            }
        };
        timeout(SETTLES, settles).await.unwrap_or(Ok(()))
    }
}
