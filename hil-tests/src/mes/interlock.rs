//! The side of a controller that says whether a unit may start, and listens to heartbeats.
//!
//! An MES looks into its database for each verdict; this one objects to what its temper names, and counts failures.
//! It answers the same question with the same answer, whichever of its addresses it comes to, and reserves nothing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use factory_proto::station::{
    HeartbeatRequest, HeartbeatResponse, Outcome, ValidateUnitRequest, ValidateUnitResponse, Validation,
    ValidationResult, Verdict,
};
use tokio::sync::watch;
use tonic::Status;

use super::temper::{Answers, Temper};

/// What was asked and told; clones share it.
#[derive(Clone, Default)]
pub struct Gate(Arc<Heard>);

#[derive(Default)]
struct Heard {
    heard: Mutex<Vec<ValidateUnitRequest>>,
    beats: watch::Sender<Option<HeartbeatRequest>>,
    questions: watch::Sender<usize>,
}

impl Gate {
    /// Answers one question, or does not.
    ///
    /// # Errors
    /// What its temper says.
    pub async fn validate(
        &self,
        question: ValidateUnitRequest,
        temper: &Temper,
    ) -> Result<ValidateUnitResponse, Status> {
        let answer = judge(&question, temper);
        self.heard().push(question);
        self.0.questions.send_modify(|questions| *questions += 1);
        match temper.answers {
            Answers::AtOnce => Ok(answer),
            Answers::Never => std::future::pending().await,
            Answers::After(time) => {
                tokio::time::sleep(time).await;
                Ok(answer)
            }
            Answers::With(code) => Err(Status::new(code, "so it was set")),
        }
    }

    /// Takes one heartbeat.
    pub fn beat(&self, beat: HeartbeatRequest, temper: &Temper) -> HeartbeatResponse {
        self.0.beats.send_replace(Some(beat));
        HeartbeatResponse { offline_allowance: temper.allowance.clone().unwrap_or_default() }
    }

    /// All questions, as they came.
    pub fn questions(&self) -> Vec<ValidateUnitRequest> {
        self.heard().clone()
    }

    /// Waits until so many questions have come.
    pub async fn asked(&self, questions: usize) {
        // The sender lives as long as this does.
        let _ = self.0.questions.subscribe().wait_for(|asked| *asked >= questions).await;
    }

    /// Waits for a heartbeat that is as wanted.
    pub async fn beaten(&self, mut wanted: impl FnMut(&HeartbeatRequest) -> bool) -> HeartbeatRequest {
        let mut beats = self.0.beats.subscribe();
        loop {
            if let Some(beat) = beats.borrow_and_update().as_ref().filter(|beat| wanted(beat)) {
                return beat.clone();
            }
            beats.changed().await.expect("the sender lives as long as this does");
        }
    }

    fn heard(&self) -> MutexGuard<'_, Vec<ValidateUnitRequest>> {
        self.0.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One verdict for each validation that was asked for.
fn judge(question: &ValidateUnitRequest, temper: &Temper) -> ValidateUnitResponse {
    let objections = temper.objects.get(&question.serial);
    let verdict = |validation: Validation| {
        let mut reasons: Vec<String> = objections
            .into_iter()
            .flatten()
            .filter(|(about, _)| *about == validation)
            .map(|(_, reason)| reason.clone())
            .collect();
        let failed = question.newest_runs.iter().filter(|run| run.outcome() == Outcome::Fail).count();
        if validation == Validation::Retest && temper.failures.is_some_and(|most| failed > most) {
            reasons.push(format!("it has failed {failed} times"));
        }
        let verdict = if reasons.is_empty() { Verdict::Passed } else { Verdict::Failed };
        ValidationResult {
            validation: validation.into(),
            verdict: verdict.into(),
            reason: reasons.join(", "),
        }
    };
    let results: Vec<_> = question.validations().map(verdict).collect();
    let passed = results.iter().all(|result| result.verdict() == Verdict::Passed);
    let overall = if passed { Verdict::Passed } else { Verdict::Failed };
    ValidateUnitResponse { overall: overall.into(), results, reason: String::new() }
}
