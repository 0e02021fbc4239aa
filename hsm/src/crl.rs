//! Publishes what is void: a certificate revocation list for each CA (RFC 5280, section 5), signed with its key.
//!
//! A list is made at the start, when something has become void, and when half of its time is over.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rcgen::{
    CertificateRevocationListParams, Issuer as RcgenIssuer, KeyIdMethod, RevocationReason, RevokedCertParams,
    SerialNumber,
};
use time::OffsetDateTime;
use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep, timeout_at},
};
use tracing::{info, warn};

use crate::{
    issuers::{Ca, Issuers},
    ledger::{Ledger, Voided},
    token::key::{RemoteKey, SigningError},
};

/// A token that is away is not asked again at once.
const PAUSE: Duration = Duration::from_secs(5);
/// However much becomes void at a time, there are not more lists than one in so long.
const QUIET: Duration = Duration::from_millis(200);

/// Where lists are put.
pub struct Publisher {
    /// Who signs them.
    pub issuers: Arc<Issuers>,
    /// What is void.
    pub ledger: Arc<Ledger>,
    /// Where they go, each as the name of its CA and `.crl`, DER.
    pub directory: PathBuf,
    /// How long each is good.
    pub lifetime: Duration,
}

/// Why there is no new list; the old one stays.
#[derive(Debug, thiserror::Error)]
enum CrlError {
    #[error("the token did not sign it")]
    Signing(#[from] SigningError),
    #[error("{} cannot be written: the folder must exist and the signer may write there", path.display())]
    Unwritable { path: PathBuf, source: io::Error },
}

impl Publisher {
    /// Publishes, and goes on publishing. Ends never.
    pub async fn keep_publishing(self) {
        let this = Arc::new(self);
        let mut moves = this.ledger.moves();
        loop {
            moves.borrow_and_update();
            let known = this.ledger.voided_count();
            let publisher = this.clone();
            let written = spawn_blocking(move || publisher.publish(OffsetDateTime::now_utc())).await;
            match written {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    warn!(error = &error as &dyn std::error::Error, "the revocation lists stay as they are");
                    sleep(PAUSE).await;
                    continue;
                }
                Err(defect) => warn!(error = &defect as &dyn std::error::Error, "no list was made"),
            }
            let stale = Instant::now() + this.lifetime / 2;
            sleep(QUIET).await;
            while this.ledger.voided_count() == known {
                if timeout_at(stale, moves.changed()).await.is_err() {
                    break;
                }
            }
        }
    }

    fn publish(&self, now: OffsetDateTime) -> Result<(), CrlError> {
        for ca in self.issuers.cas() {
            let (now, voided) = self.ledger.voided(ca.fingerprint(), now.unix_timestamp());
            let count = voided.len();
            let list = self.list(ca, voided, time_of(now))?;
            let path = self.directory.join(format!("{}.crl", ca.name));
            replace(&path, &list).map_err(|source| CrlError::Unwritable { path: path.clone(), source })?;
            info!(path = %path.display(), void = count, "revocation list");
        }
        Ok(())
    }

    fn list(&self, ca: &Ca, voided: Vec<Voided>, now: OffsetDateTime) -> Result<Vec<u8>, CrlError> {
        let revoked = |it: Voided| RevokedCertParams {
            serial_number: SerialNumber::from_slice(&it.serial),
            revocation_time: time_of(it.time),
            reason_code: Some(if it.scrapped {
                RevocationReason::CessationOfOperation
            } else {
                RevocationReason::Superseded
            }),
            invalidity_date: None,
        };
        let milliseconds = u64::try_from(now.unix_timestamp_nanos() / 1_000_000).unwrap_or_default();
        let params = CertificateRevocationListParams {
            this_update: now,
            next_update: now + self.lifetime,
            // Its time is what makes each greater than the ones before.
            crl_number: SerialNumber::from_slice(&milliseconds.to_be_bytes()),
            issuing_distribution_point: None,
            revoked_certs: voided.into_iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::PreSpecified(ca.authority.key_identifier().to_vec()),
        };
        let list = RemoteKey::new(&*ca.pool, ca.authority.point()).certify(|ca_key| {
            params.signed_by(&RcgenIssuer::from_ca_cert_der(ca.authority.certificate(), ca_key)?)
        })?;
        Ok(list.der().to_vec())
    }
}

/// Whoever reads, reads the old one or the new one.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("crl.new");
    let mut file = File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(new, path)
}

fn time_of(seconds: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}
