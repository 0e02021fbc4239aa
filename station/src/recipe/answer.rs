//! How long a device's answers can become (FCC protocol, section 7). One that outgrows its buffer is lost although
//! all is done, the closing of the factory code included, so it must not come to that.

use factory_fixtures::fcc::{names, outline::MAX_REQUESTS};

use super::provision::{Provision, Warnings};

/// What an answer without certificate requests is built in, in bytes.
const BUFFER: usize = 512;
/// What one with certificate requests is built in.
const LARGE_BUFFER: usize = 2560;
/// An answer that reports success and nothing else, with the longest session id that the station gives.
const BARE: usize = 130;
/// The head of the warnings' text.
const WARNINGS_HEAD: usize = 15;
/// A certificate request without its subject: five with 200 bytes of subject each took 2292.
const REQUEST: usize = 235;

/// What the answers depend on.
pub(super) struct Answers<'a> {
    pub provision: &'a Provision,
    /// How many certificates the device's own chain has.
    pub chain_depth: usize,
    /// Whether the device makes its own key.
    pub requests_key: bool,
}

impl Answers<'_> {
    /// Which keys of the recipe make an answer too long, and what to do.
    pub(super) fn complaints(&self) -> Vec<(&'static str, String)> {
        let mut complaints = Vec::new();
        let warnings = self.warnings();
        let length = BARE + WARNINGS_HEAD + warnings.iter().map(|warning| warning.len() + 1).sum::<usize>();
        if length > BUFFER {
            complaints.push((
                "time-sync",
                format!(
                    "leaves the device {} things to warn of, in an answer of up to {length} bytes, and it has \
                     {BUFFER} for it: set the time, give an update certificate with vendor-id and class-id, or give \
                     shorter chains",
                    warnings.len()
                ),
            ));
        }
        let requests = self.provision.custom.requests.len() + usize::from(self.requests_key);
        let names: usize = self.provision.custom.requests.iter().map(|it| it.name.len()).sum();
        let length = BARE + names + requests * (REQUEST + 200);
        if requests > MAX_REQUESTS || length > LARGE_BUFFER {
            complaints.push((
                "key",
                format!(
                    "has the device make {requests} keys and answer with up to {length} bytes; it makes {MAX_REQUESTS} \
                     at most, and has {LARGE_BUFFER} bytes for the answer: ask for fewer keys, or give them shorter names"
                ),
            ));
        }
        complaints
    }

    /// What the device will warn of, whatever the unit.
    fn warnings(&self) -> Vec<String> {
        let Provision { connection, time, update, warnings, .. } = self.provision;
        let mut all = Vec::new();
        let mut warn = |reason: &str, item: &str| all.push(format!("{reason}:{item}"));
        if time.is_none() {
            for item in [names::CURRENT_TIME, names::TIME_ZONE, names::UTC_OFFSET] {
                warn("Item not set", item);
            }
            let unchecked = "Certificate validity cannot be checked";
            (0..self.chain_depth).for_each(|_| warn(unchecked, connection.names().device_certificate));
            update.certificate.iter().for_each(|_| warn(unchecked, names::UPDATE_CERTIFICATE));
        }
        if !connection.bootstraps {
            warn("Bootstrap mode not activated", names::USE_BOOTSTRAP);
        }
        let missing = [
            (update.certificate.is_empty(), names::UPDATE_CERTIFICATE),
            (update.class_id.is_none(), names::CLASS_ID),
            (update.vendor_id.is_none(), names::VENDOR_ID),
        ];
        missing.iter().filter(|(is_missing, _)| *is_missing).for_each(|(_, item)| warn("Item not set", item));
        if *warnings == Warnings::Fail && connection.bootstraps {
            warn("CA identifier wasn't set properly", connection.names().server_ca);
        }
        all
    }
}
