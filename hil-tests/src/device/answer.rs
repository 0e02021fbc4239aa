//! Builds the answer's payload, in the small buffer that the real program has (FCC protocol, sections 5, 7).

use std::convert::Infallible;

use minicbor::{Encoder, encode::Error};

use super::status::{Failure, Status};

const SMALL_BUFFER: usize = 512;
const LARGE_BUFFER: usize = 2560;

/// What a message's processing found out so far.
#[derive(Debug, Default)]
pub struct Findings {
    /// The session id, once it was reached.
    pub session: Option<String>,
    /// `reason:item` each.
    pub warnings: Vec<String>,
    /// Key name and PKCS#10 request each.
    pub csrs: Vec<(String, Vec<u8>)>,
    /// Messages that ask for certificate requests get a larger buffer.
    pub has_large_buffer: bool,
}

impl Findings {
    /// The payload, unless it outgrows its buffer.
    pub fn answer(&self, outcome: Result<(), Failure>) -> Option<Vec<u8>> {
        let payload = self.write(outcome).expect("a vector takes all that is written");
        let buffer = if self.has_large_buffer { LARGE_BUFFER } else { SMALL_BUFFER };
        (payload.len() <= buffer).then_some(payload)
    }

    fn write(&self, outcome: Result<(), Failure>) -> Result<Vec<u8>, Error<Infallible>> {
        let mut out = Encoder::new(Vec::new());
        out.begin_map()?;
        if outcome.is_ok() && !self.csrs.is_empty() {
            out.str("Csrs")?.array(self.csrs.len() as u64)?;
            for (name, der) in &self.csrs {
                out.begin_map()?.str("PrKN")?.str(name)?.str("Data")?.bytes(der)?.end()?;
            }
        }
        out.str("SchemeVersion")?.str("0.0.1")?;
        if let Some(session) = &self.session {
            out.str("SID")?.str(session)?;
        }
        let (status, info) = match outcome {
            Ok(()) => (Status::Success, "The Factory process succeeded\n".to_owned()),
            Err(failure) => (failure.status, failure.info),
        };
        out.str("ReturnStatus")?.u8(status as u8)?.str("InfoMessage")?.str(&info)?;
        if !self.warnings.is_empty() {
            let lines: String = self.warnings.iter().map(|warning| format!("{warning}\n")).collect();
            out.str("WarningInfo")?.str(&lines)?;
        }
        out.end()?;
        Ok(out.into_writer())
    }
}
