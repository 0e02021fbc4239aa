//! What one unit is given: its recipe, filled with its own values and with its credentials.

use std::time::{SystemTime, UNIX_EPOCH};

use factory_fixtures::fcc::{
    message::{Bundle, CertificateItem, CsrRequest, KeyHalf, KeyItem, KeyRequest, Parameter, Then, Value},
    names,
    outline::Outline,
};
use factory_proto::ids::{EndpointName, EnrolmentId};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    KeyOrigin, Recipe, UnitError,
    provision::{Provision, SecretOrigin, Warnings, memory},
    supplied::{self, SuppliedError, WantedChain},
    template::{Template, Unit},
};
use crate::{
    key::{DeviceKey, KeyError},
    record::Mark,
};

/// What a unit has been given for itself, until it is in the device. Holds secrets, hence has no `Debug`.
pub struct Credentials {
    /// Its name.
    pub endpoint_name: EndpointName,
    /// Its certificate and what of its chain it gets, leaf first, DER; empty until it is issued.
    pub chain: Vec<Vec<u8>>,
    /// Its key; `None` where the device made it.
    pub key: Option<DeviceKey>,
    /// The seed of its random number generator, 48 bytes.
    pub entropy: Option<Zeroizing<Vec<u8>>>,
    /// The root of its storage encryption, 16 bytes.
    pub root_of_trust: Option<Zeroizing<Vec<u8>>>,
}

/// Why a unit's credentials cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The unit's own values do not do.
    #[error(transparent)]
    Unit(#[from] UnitError),
    /// What should lie ready for the unit does not.
    #[error(transparent)]
    Supplied(#[from] SuppliedError),
    /// The station cannot make them.
    #[error("the device's key {0}")]
    Key(#[from] KeyError),
}

impl Credentials {
    /// What of them belongs to this unit alone, as far as it is known: its name, and a key that the device did not make.
    pub fn marks(&self) -> Vec<Mark> {
        let key = self.key.as_ref().map(|key| Mark::of_key(&key.public()));
        [Mark::EndpointName(self.endpoint_name.clone())].into_iter().chain(key).collect()
    }
}

impl Recipe {
    /// What a unit has before its device is spoken to: all that is supplied for it, and what the station draws.
    ///
    /// # Errors
    /// Something does not lie ready, or is not this unit's.
    pub fn credentials(&self, unit: &Unit<'_>) -> Result<Credentials, CredentialsError> {
        let provision = &self.provision;
        let mut credentials = Credentials {
            endpoint_name: self.identity.endpoint_name(unit)?,
            chain: Vec::new(),
            key: None,
            entropy: self.secret(provision.entropy, unit, "entropy.bin", supplied::ENTROPY)?,
            root_of_trust: self.secret(provision.root_of_trust, unit, "rot.bin", supplied::ROOT_OF_TRUST)?,
        };
        if let (KeyOrigin::Supplied { authority }, Some(folder)) = (&self.identity.key, &self.supplied) {
            let key = folder.key(unit.serial)?;
            let wanted = WantedChain {
                authority,
                key: &key.public(),
                endpoint_name: &credentials.endpoint_name,
                account: provision.connection.account(),
                depth: self.identity.chain_depth,
            };
            credentials.chain = folder.chain(unit.serial, &wanted)?;
            credentials.key = Some(key);
            check_enrolment_id(unit, &enrolment_id(&credentials.chain[0]))?;
        }
        Ok(credentials)
    }

    fn secret(
        &self,
        origin: SecretOrigin,
        unit: &Unit<'_>,
        name: &str,
        length: usize,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, CredentialsError> {
        Ok(match (origin, &self.supplied) {
            (SecretOrigin::ByTool, _) => {
                let mut bytes = Zeroizing::new(vec![0; length]);
                aws_lc_rs::rand::fill(&mut bytes).map_err(|_| KeyError::NoRandomness)?;
                Some(bytes)
            }
            (SecretOrigin::Supplied, Some(folder)) => Some(folder.secret(unit.serial, name, length)?),
            (SecretOrigin::ByDevice, _) | (SecretOrigin::Supplied, None) => None,
        })
    }

    /// The keys that one unit is asked to make; `None` when none.
    ///
    /// # Errors
    /// The unit's values do not do.
    pub fn key_requests(&self, session: &str, unit: &Unit<'_>) -> Result<Option<CsrRequest>, UnitError> {
        let endpoint_name = self.identity.endpoint_name(unit)?;
        let connection = &self.provision.connection;
        let own = (self.identity.key == KeyOrigin::ByDevice).then(|| {
            let key = connection.names().device_key;
            self.identity.request(key, &endpoint_name, connection.account())
        });
        let custom: Result<Vec<KeyRequest>, UnitError> =
            self.provision.custom.requests.iter().map(|it| it.key(&endpoint_name, unit)).collect();
        let keys: Vec<KeyRequest> = own.into_iter().chain(custom?).collect();
        Ok((!keys.is_empty()).then(|| CsrRequest { session: session.to_owned(), keys }))
    }

    /// Whether one unit can be made with the values that it has, from its name to the length of what it is given.
    ///
    /// # Errors
    /// The first reason why not.
    pub fn check_unit(&self, unit: &Unit<'_>) -> Result<(), UnitError> {
        let request = self.key_requests("check", unit)?;
        let credentials = Credentials {
            endpoint_name: self.identity.endpoint_name(unit)?,
            // As long as certificates of P-256 keys with the longest names get.
            chain: vec![vec![0; 1024]; self.identity.chain_depth],
            key: None,
            entropy: None,
            root_of_trust: None,
        };
        let bundle = self.provision.bundle("check", unit, &credentials, SystemTime::now())?;
        let messages = request.iter().map(CsrRequest::encode).chain([bundle.encode().to_vec()]);
        for message in messages {
            Outline::read(&message).map_err(|error| {
                UnitError::new("provision", format!("makes a message that is not sent: {error}"))
            })?;
        }
        Ok(())
    }
}

impl Provision {
    /// The message that gives one device all that it needs, and has it check this. Where warnings are failures,
    /// another message closes its factory code; otherwise this one does.
    ///
    /// # Errors
    /// The unit's values do not do.
    pub fn bundle(
        &self,
        session: &str,
        unit: &Unit<'_>,
        credentials: &Credentials,
        now: SystemTime,
    ) -> Result<Bundle, UnitError> {
        Ok(Bundle {
            session: session.to_owned(),
            entropy: credentials.entropy.clone(),
            root_of_trust: credentials.root_of_trust.clone(),
            keys: self.keys(credentials),
            certificates: self.certificates(credentials),
            parameters: self.parameters(unit, credentials, now)?,
            verify: self.verify,
            then: match self.warnings {
                Warnings::Keep => Then::Disable,
                Warnings::Fail => Then::KeepAlive,
            },
        })
    }

    fn keys(&self, credentials: &Credentials) -> Vec<KeyItem> {
        let own = credentials.key.as_ref().map(|key| KeyItem {
            name: self.connection.names().device_key.to_owned(),
            half: KeyHalf::Private,
            der: key.der().clone(),
        });
        let anchor = self.trust_anchors.iter().map(|anchor| KeyItem {
            name: anchor.name.clone(),
            half: KeyHalf::Public,
            der: Zeroizing::new(anchor.key.clone()),
        });
        own.into_iter().chain(anchor).chain(self.custom.keys.iter().cloned()).collect()
    }

    fn certificates(&self, credentials: &Credentials) -> Vec<CertificateItem> {
        let names = self.connection.names();
        let item = |name: &str, chain: Vec<Vec<u8>>, private_key: Option<&str>| CertificateItem {
            name: name.to_owned(),
            chain,
            private_key: private_key.map(str::to_owned),
        };
        let update = (!self.update.certificate.is_empty())
            .then(|| item(names::UPDATE_CERTIFICATE, self.update.certificate.clone(), None));
        let server = item(names.server_ca, vec![self.connection.server_ca.clone()], None);
        let own = item(names.device_certificate, credentials.chain.clone(), Some(names.device_key));
        [server]
            .into_iter()
            .chain(update)
            .chain([own])
            .chain(self.custom.certificates.iter().cloned())
            .collect()
    }

    fn parameters(
        &self,
        unit: &Unit<'_>,
        credentials: &Credentials,
        now: SystemTime,
    ) -> Result<Vec<Parameter>, UnitError> {
        let connection = &self.connection;
        let fill = |key: &str, template: &Template| {
            template.fill(unit).map_err(|error| UnitError::new(&format!("provision.{key}"), error))
        };
        let uri = fill("server-uri", &connection.server_uri)?;
        connection
            .check_uri(&uri)
            .map_err(|reason| UnitError::new("provision.server-uri", format!("with {uri:?} {reason}")))?;
        let device = &self.device;
        let memory = memory(&fill("memory-total-kb", &device.memory_total)?)
            .map_err(|reason| UnitError::new("provision.memory-total-kb", reason))?;

        let mut all = vec![
            number(names::USE_BOOTSTRAP, connection.bootstraps.into()),
            words(names::ENDPOINT_NAME, credentials.endpoint_name.as_str()),
            words(connection.names().server_uri, &uri),
            words(names::MANUFACTURER, &fill("manufacturer", &device.manufacturer)?),
            words(names::MODEL_NUMBER, &fill("model-number", &device.model_number)?),
            words(names::SERIAL_NUMBER, &fill("serial-number", &device.serial_number)?),
            words(names::DEVICE_TYPE, &fill("device-type", &device.device_type)?),
            words(names::HARDWARE_VERSION, &fill("hardware-version", &device.hardware_version)?),
            number(names::MEMORY_TOTAL, memory.into()),
        ];
        all.extend(self.update.vendor_id.map(|it| id(names::VENDOR_ID, it)));
        all.extend(self.update.class_id.map(|it| id(names::CLASS_ID, it)));
        if let Some(time) = &self.time {
            let seconds = now.duration_since(UNIX_EPOCH).map_err(|_| {
                UnitError::new("provision.time-sync", "needs the time, and the clock is before 1970")
            })?;
            all.push(number(names::CURRENT_TIME, seconds.as_secs().cast_signed()));
            all.push(words(names::TIME_ZONE, &time.zone));
            all.push(words(names::UTC_OFFSET, &time.utc_offset(now)));
        }
        match connection.account() {
            None => all.push(number(names::FIRST_TO_CLAIM, 1)),
            Some(account) => all.push(words(names::ACCOUNT_ID, account)),
        }
        for parameter in &self.custom.parameters {
            all.push(parameter.item(unit)?);
        }
        Ok(all)
    }
}

/// What a device is claimed by: computed from its certificate, DER.
pub fn enrolment_id(certificate: &[u8]) -> EnrolmentId {
    EnrolmentId::of_fingerprint(&Sha256::digest(certificate).into())
}

/// An id that the order gives the unit must be the one that its certificate has.
///
/// # Errors
/// It is another.
pub fn check_enrolment_id(unit: &Unit<'_>, computed: &EnrolmentId) -> Result<(), UnitError> {
    let Some(given) = unit.value("enrolment-id") else { return Ok(()) };
    if given.parse().as_ref() == Ok(computed) {
        return Ok(());
    }
    Err(UnitError::new(
        "enrolment id",
        format!(
            "is computed from the unit's certificate: {computed}; its order says {given}, which is another's"
        ),
    ))
}

fn words(name: &str, value: &str) -> Parameter {
    Parameter { name: name.to_owned(), value: Value::Text(value.to_owned()) }
}

fn number(name: &str, value: i64) -> Parameter {
    Parameter { name: name.to_owned(), value: Value::Integer(value) }
}

fn id(name: &str, value: Uuid) -> Parameter {
    Parameter { name: name.to_owned(), value: Value::Bytes(value.as_bytes().to_vec()) }
}
