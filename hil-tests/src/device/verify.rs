//! The device's check of its whole configuration (FCC protocol, section 6). Looks only at what is stored;
//! stops at the first failure, collects warnings on the way.

use x509_parser::prelude::X509Certificate;

use super::{
    items::Clock,
    keys::{self, PrivateKey},
    status::{Failure, Status},
    store::{Holdings, Kind},
};

const TEN_YEARS: Clock = 10 * 365 * 24 * 60 * 60;
/// A certificate may begin that much later than now, in seconds.
const CLOCK_TOLERANCE: Clock = 60;

/// The items of one way to reach the server.
struct Connection {
    server_ca: &'static str,
    server_uri: &'static str,
    device_key: &'static str,
    device_certificate: &'static str,
}

const BOOTSTRAP: Connection = Connection {
    server_ca: "mbed.BootstrapServerCACert",
    server_uri: "mbed.BootstrapServerURI",
    device_key: "mbed.BootstrapDevicePrivateKey",
    device_certificate: "mbed.BootstrapDeviceCert",
};

const LWM2M: Connection = Connection {
    server_ca: "mbed.LwM2MServerCACert",
    server_uri: "mbed.LwM2MServerURI",
    device_key: "mbed.LwM2MDevicePrivateKey",
    device_certificate: "mbed.LwM2MDeviceCert",
};

/// Checks a configuration against a clock; the warnings come as `reason:item`, also after a failure.
pub fn verify(holdings: &Holdings, clock: Clock, warnings: &mut Vec<String>) -> Result<(), Failure> {
    Check { holdings, clock, warnings }.run()
}

/// Whether the device is to bootstrap.
pub fn uses_bootstrap(holdings: &Holdings) -> Result<bool, Failure> {
    let name = "mbed.UseBootstrap";
    match <[u8; 4]>::try_from(config(holdings, name)?).map(u32::from_le_bytes) {
        Ok(0) => Ok(false),
        Ok(1) => Ok(true),
        Ok(_) => Err(Failure::about(Status::BootstrapMode, "Bootstrap mode value incorrect", name)),
        Err(_) => Err(Failure::about(Status::ItemSize, "Item size is wrong", name)),
    }
}

/// The public key of the bootstrap server's CA, which the device trusts for the time.
pub fn time_server(holdings: &Holdings) -> Result<Vec<u8>, Failure> {
    let certificate = stored_certificate(holdings, BOOTSTRAP.server_ca)?;
    Ok(keys::certified_point(&certificate).to_vec())
}

struct Check<'a> {
    holdings: &'a Holdings,
    clock: Clock,
    warnings: &'a mut Vec<String>,
}

impl Check<'_> {
    fn run(mut self) -> Result<(), Failure> {
        self.time()?;
        let (used, unused) = if uses_bootstrap(self.holdings)? {
            (BOOTSTRAP, LWM2M)
        } else {
            self.warn("Bootstrap mode not activated", "mbed.UseBootstrap");
            (LWM2M, BOOTSTRAP)
        };
        filled(self.holdings, Kind::Config, "mbed.EndpointName")?;
        for name in ["Manufacturer", "ModelNumber", "DeviceType", "HardwareVersion"] {
            config(self.holdings, &format!("mbed.{name}"))?;
        }
        config(self.holdings, "mbed.MemoryTotalKB")?;
        config(self.holdings, "mbed.SerialNumber")?;
        self.server_ca(&used, &unused)?;
        self.server_uri(&used, &unused)?;
        self.identity(&used, &unused)?;
        self.update_certificate()?;
        self.uuid("mbed.ClassId")?;
        self.uuid("mbed.VendorId")
    }

    fn warn(&mut self, reason: &str, item: &str) {
        self.warnings.push(format!("{reason}:{item}"));
    }

    fn warn_if_redundant(&mut self, kind: Kind, name: &str) {
        if self.holdings.get(kind, name).is_some() {
            self.warn("Item redundant", name);
        }
    }

    fn time(&mut self) -> Result<(), Failure> {
        if self.clock == 0 {
            self.warn("Item not set", "mbed.CurrentTime");
        }
        if filled(self.holdings, Kind::Config, "mbed.Timezone").is_err() {
            self.warn("Item not set", "mbed.Timezone");
        }
        let name = "mbed.UTCOffset";
        match filled(self.holdings, Kind::Config, name) {
            Err(_) => self.warn("Item not set", name),
            Ok([b'+' | b'-', b'0'..=b'9', b'0'..=b'9', b':', b'0'..=b'9', b'0'..=b'9', ..]) => {}
            Ok(_) => return Err(Failure::about(Status::WrongUtcOffset, "UTC offset incorrect", name)),
        }
        Ok(())
    }

    fn server_ca(&mut self, used: &Connection, unused: &Connection) -> Result<(), Failure> {
        filled(self.holdings, Kind::Certificate, used.server_ca)?;
        self.warn_if_redundant(Kind::Certificate, unused.server_ca);
        if used.server_ca == BOOTSTRAP.server_ca {
            let trusted = self.holdings.time_server.as_ref().map(|key| key.0.as_slice());
            if trusted != Some(time_server(self.holdings)?.as_slice()) {
                self.warn("CA identifier wasn't set properly", used.server_ca);
            }
        }
        Ok(())
    }

    fn server_uri(&mut self, used: &Connection, unused: &Connection) -> Result<(), Failure> {
        let bootstraps = used.server_uri == BOOTSTRAP.server_uri;
        let uri = filled(self.holdings, Kind::Config, used.server_uri)?;
        self.warn_if_redundant(Kind::Config, unused.server_uri);

        let first_to_claim = match self.holdings.get(Kind::Config, "mbed.FirstToClaim") {
            Some(bytes) if bytes.len() != 4 => {
                return Err(Failure::about(Status::ItemSize, "Item size is wrong", used.server_uri));
            }
            flag => flag == Some([1, 0, 0, 0].as_slice()),
        };
        let wrong = Failure::about(Status::WrongUri, "URI format incorrect", used.server_uri);
        if !uri.starts_with(b"coap://") && !uri.starts_with(b"coaps://") {
            return Err(wrong);
        }
        match (first_to_claim, account_id(uri)) {
            (false, Some(_)) => Ok(()),
            (false, None) => Err(wrong),
            (true, None) if bootstraps => Ok(()),
            (true, _) => {
                let item = if bootstraps { used.server_uri } else { "mbed.FirstToClaim" };
                let reason = "first to claim not allowed";
                Err(Failure::about(Status::FirstToClaimNotAllowed, reason, item))
            }
        }
    }

    fn identity(&mut self, used: &Connection, unused: &Connection) -> Result<(), Failure> {
        let key = filled(self.holdings, Kind::PrivateKey, used.device_key)?;
        self.warn_if_redundant(Kind::PrivateKey, unused.device_key);

        let name = used.device_certificate;
        let certificate = stored_certificate(self.holdings, name)?;
        let matches = PrivateKey::from_der(key)
            .is_some_and(|key| key.public_point() == keys::certified_point(&certificate));
        if !matches {
            let reason = "Certificate public key validation failed";
            return Err(Failure::about(Status::KeyMismatch, reason, name));
        }
        self.warn_if_redundant(Kind::Certificate, unused.device_certificate);

        let endpoint = filled(self.holdings, Kind::Config, "mbed.EndpointName")?;
        check_subject(certificate.subject().iter_common_name().next(), endpoint, name)?;
        if used.server_uri == LWM2M.server_uri {
            let account = account_id(filled(self.holdings, Kind::Config, used.server_uri)?).unwrap_or(b"");
            check_subject(certificate.subject().iter_organizational_unit().next(), account, name)?;
        }
        if !serves_a_client(&certificate) {
            return Err(Failure::about(Status::CertificateInvalid, "Certificate invalid", name));
        }
        if certificate.issuer() == certificate.subject() {
            self.warn("Certificate is self signed", name);
        }
        self.validity_of_chain(name)
    }

    fn update_certificate(&mut self) -> Result<(), Failure> {
        let name = "mbed.UpdateAuthCert";
        if self.holdings.get(Kind::Certificate, name).is_none() {
            self.warn("Item not set", name);
            return Ok(());
        }
        self.validity_of_chain(name)
    }

    fn validity_of_chain(&mut self, name: &str) -> Result<(), Failure> {
        for part in self.holdings.chain(Kind::Certificate, name).unwrap_or_default() {
            let certificate = keys::certificate(&part.0).expect("only what can be read was stored");
            self.validity(&certificate, name)?;
        }
        Ok(())
    }

    fn validity(&mut self, certificate: &X509Certificate<'_>, name: &str) -> Result<(), Failure> {
        let validity = certificate.validity();
        let begins = Clock::from(validity.not_before.timestamp());
        let ends = Clock::from(validity.not_after.timestamp());
        if self.clock == 0 {
            self.warn("Certificate validity cannot be checked", name);
            return Ok(());
        }
        if self.clock > ends {
            return Err(Failure::about(Status::CertificateExpired, "Certificate expired", name));
        }
        if self.clock + CLOCK_TOLERANCE < begins {
            self.warn("Certificate validity cannot be checked", name);
        }
        if ends - self.clock < TEN_YEARS {
            self.warn("Certificate validity is less than 10 years", name);
        }
        Ok(())
    }

    fn uuid(&mut self, name: &str) -> Result<(), Failure> {
        match self.holdings.get(Kind::Config, name).map(<[u8]>::len) {
            None => self.warn("Item not set", name),
            Some(16) => {}
            Some(_) => return Err(Failure::about(Status::ItemSize, "Item size is wrong", name)),
        }
        Ok(())
    }
}

/// A configuration item, which may be empty.
fn config<'a>(holdings: &'a Holdings, name: &str) -> Result<&'a [u8], Failure> {
    let missing = || Failure::about(Status::ItemMissing, "Item does not exist", name);
    holdings.get(Kind::Config, name).ok_or_else(missing)
}

/// An item, which may not be empty.
fn filled<'a>(holdings: &'a Holdings, kind: Kind, name: &str) -> Result<&'a [u8], Failure> {
    match holdings.get(kind, name) {
        None => Err(Failure::about(Status::ItemMissing, "Item does not exist", name)),
        Some([]) => Err(Failure::about(Status::ItemEmpty, "Item empty", name)),
        Some(bytes) => Ok(bytes),
    }
}

/// A certificate, or the leaf of a chain.
fn stored_certificate<'a>(holdings: &'a Holdings, name: &str) -> Result<X509Certificate<'a>, Failure> {
    let der = filled(holdings, Kind::Certificate, name)?;
    Ok(keys::certificate(der).expect("only what can be read was stored"))
}

/// What follows `aid=` in a URI's query, to the end.
fn account_id(uri: &[u8]) -> Option<&[u8]> {
    let after = |mark: &[u8]| {
        let at = uri.windows(mark.len()).position(|window| window == mark)?;
        Some(&uri[at + mark.len()..])
    };
    after(b"&aid=").or_else(|| after(b"?aid="))
}

fn check_subject(
    attribute: Option<&x509_parser::x509::AttributeTypeAndValue<'_>>,
    wanted: &[u8],
    certificate: &str,
) -> Result<(), Failure> {
    let Some(attribute) = attribute else {
        return Err(Failure::about(Status::AttributeMissing, "General error", certificate));
    };
    if attribute.as_slice() != wanted {
        return Err(Failure::about(Status::NameWrong, "Certificate CN attribute invalid", certificate));
    }
    Ok(())
}

/// Without an extended key usage every use passes.
fn serves_a_client(certificate: &X509Certificate<'_>) -> bool {
    match certificate.extended_key_usage() {
        Ok(Some(usage)) => usage.value.any || usage.value.client_auth,
        Ok(None) => true,
        Err(_) => false,
    }
}
