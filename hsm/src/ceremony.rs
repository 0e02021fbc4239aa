//! The key ceremony: makes the token, and for each role its key and certificate, once, and records what was done.
//!
//! Never changes what exists: whatever is in the way is named and left alone.

use std::{
    fmt,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use data_encoding::HEXUPPER;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use crate::{
    authority::{Authority, AuthorityError},
    config::{Config, RoleKey},
    credential::Pin,
    profile::{self, Name, Subject, Validity},
    token::{
        TokenError,
        commission::{self, KeyAttributes, NewKey},
        key::{RemoteKey, SigningError},
        module::{Module, Token},
    },
};

/// The CA that is to be made.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Its CN.
    pub common_name: Name,
    /// Its O and C.
    pub subject: Subject,
    /// How long it is valid.
    pub lifetime: Duration,
}

/// Why there is no CA; what had been begun was undone.
#[derive(Debug, thiserror::Error)]
pub enum CeremonyError {
    /// A CA that devices may trust already, and nothing else is missing.
    #[error("certificate {} exists already: nothing was changed, add an [[authority]] to make another CA", .0.display())]
    CertificateExists(PathBuf),
    /// One name, and several CAs to be made.
    #[error(
        "{0} CAs are missing, and each needs a name of its own: add one [[authority]] at a time, and run init for each"
    )]
    SeveralCas(usize),
    /// Platforms refuse a second CA with the subject of another.
    #[error("CA certificate {} has the common name {name:?} already: choose another --ca-common-name", path.display())]
    NameTaken {
        /// The other CA's certificate.
        path: PathBuf,
        /// Its CN.
        name: String,
    },
    /// The certificate has no place to go.
    #[error("certificate {} cannot be written: its folder must exist and be writable", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The token or its key.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The certificate was not made.
    #[error(transparent)]
    Signing(#[from] SigningError),
    /// The certificate was made and is wrong.
    #[error("the CA certificate that was made is not usable ({0})")]
    Unusable(&'static str),
    /// The certificate was made, and its key is another.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

/// What was done, for the record.
#[derive(Debug)]
pub struct Transcript {
    module: String,
    token: Token,
    made: Vec<Made>,
}

/// A role's key and certificate.
#[derive(Debug)]
struct Made {
    role: &'static str,
    key_label: String,
    attributes: KeyAttributes,
    common_name: Name,
    serial: [u8; 16],
    validity: Validity,
    fingerprint: [u8; 32],
    certificate: PathBuf,
}

/// What a key is for.
#[derive(Debug, Clone, Copy)]
enum Role<'a> {
    DeviceIdentity(&'a RoleKey),
    Provenance(&'a RoleKey),
    Firmware(&'a RoleKey),
}

/// Makes what `config` names as `plan` says: of each role what is not there yet.
pub fn initialise(
    config: &Config,
    plan: &Plan,
    user_pin: &Pin,
    so_pin: Option<&Pin>,
    now: OffsetDateTime,
) -> Result<Transcript, CeremonyError> {
    let roles = (config.authorities.iter().map(|authority| Role::DeviceIdentity(&authority.role)))
        .chain([Role::Provenance(&config.provenance)])
        .chain(config.firmware.as_ref().map(Role::Firmware));
    let missing: Vec<Role<'_>> =
        roles.filter(|role| fs::symlink_metadata(&role.key().certificate).is_err()).collect();
    if missing.is_empty() {
        return Err(CeremonyError::CertificateExists(config.authorities[0].role.certificate.clone()));
    }
    let cas = missing.iter().filter(|role| matches!(role, Role::DeviceIdentity(_))).count();
    match cas {
        0 => {}
        1 => check_name(config, plan)?,
        several => return Err(CeremonyError::SeveralCas(several)),
    }
    let module = Module::load(&config.module)?;
    let token = commission::prepare(&module, &config.token_label, user_pin, so_pin)?;
    let mut made = Vec::new();
    for role in missing {
        let key = NewKey::generate(&module, &token, user_pin, &role.key().key_label)?;
        made.push(role.make(key, plan, now)?);
    }
    let module_name = module.to_string();
    module.finalize()?;
    Ok(Transcript { module: module_name, token, made })
}

/// Whether the CA that is to be made can be told from those that are there.
fn check_name(config: &Config, plan: &Plan) -> Result<(), CeremonyError> {
    let paths = config.authorities.iter().map(|authority| &authority.role.certificate);
    for path in paths.filter(|path| fs::symlink_metadata(path).is_ok()) {
        let name = plan.common_name.to_string();
        if Authority::read(path)?.is_called(&name) {
            return Err(CeremonyError::NameTaken { path: path.clone(), name });
        }
    }
    Ok(())
}

impl<'a> Role<'a> {
    fn name(self) -> &'static str {
        match self {
            Self::DeviceIdentity(_) => "device identity",
            Self::Provenance(_) => "provenance",
            Self::Firmware(_) => "firmware integrity",
        }
    }

    fn key(self) -> &'a RoleKey {
        match self {
            Self::DeviceIdentity(key) | Self::Provenance(key) | Self::Firmware(key) => key,
        }
    }

    fn common_name(self, plan: &Plan) -> Name {
        match self {
            Self::DeviceIdentity(_) => plan.common_name.clone(),
            Self::Provenance(_) => "Station Provenance".parse().expect("it is a name"),
            Self::Firmware(_) => "Firmware Integrity".parse().expect("it is a name"),
        }
    }

    /// Certifies the key by itself, and leaves both when all is well.
    fn make(self, key: NewKey, plan: &Plan, now: OffsetDateTime) -> Result<Made, CeremonyError> {
        let (serial, common_name) = (profile::random_serial(), self.common_name(plan));
        let validity = Validity::of_authority(now, plan.lifetime);
        let params = match self {
            Self::DeviceIdentity(_) => profile::authority(&common_name, &plan.subject, validity, serial),
            Self::Provenance(_) | Self::Firmware(_) => {
                profile::signature(&common_name, &plan.subject, validity, serial)
            }
        };
        let certificate =
            RemoteKey::new(&key, key.point()).certify(|own_key| params.self_signed(&own_key))?;
        if let Self::DeviceIdentity(_) = self {
            let authority = Authority::new(certificate.der().clone()).map_err(CeremonyError::Unusable)?;
            authority.check_key(&key)?;
        }
        write_new(&self.key().certificate, &certificate.pem())?;
        let made = Made {
            role: self.name(),
            key_label: self.key().key_label.clone(),
            attributes: key.attributes().clone(),
            common_name,
            serial,
            validity,
            fingerprint: Sha256::digest(certificate.der()).into(),
            certificate: self.key().certificate.clone(),
        };
        key.keep();
        Ok(made)
    }
}

/// Writes a file that must not exist yet, and returns when it is on the disk.
fn write_new(path: &Path, text: &str) -> Result<(), CeremonyError> {
    let mut file = File::create_new(path).map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => CeremonyError::CertificateExists(path.to_owned()),
        _ => CeremonyError::Unwritable { path: path.to_owned(), source },
    })?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).and_then(|()| {
        match path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            Some(folder) => File::open(folder)?.sync_all(),
            None => File::open(".")?.sync_all(),
        }
    });
    written.map_err(|source| {
        // Ours, and useless: its key is about to be destroyed.
        let _ = fs::remove_file(path);
        CeremonyError::Unwritable { path: path.to_owned(), source }
    })
}

impl fmt::Display for Transcript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "module        {}", self.module)?;
        writeln!(f, "token         {:?}, serial {}", self.token.label, self.token.serial)?;
        write!(f, "              {}", self.token.hardware)?;
        self.made.iter().try_for_each(|made| write!(f, "\n{made}"))
    }
}

impl fmt::Display for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "role          {}", self.role)?;
        writeln!(f, "key           {:?}, P-256", self.key_label)?;
        writeln!(f, "              {}", self.attributes)?;
        writeln!(f, "certificate   {}", self.certificate.display())?;
        writeln!(f, "  CN          {}", self.common_name)?;
        writeln!(f, "  serial      {}", HEXUPPER.encode(&self.serial))?;
        writeln!(f, "  valid from  {}", self.validity.not_before.date())?;
        writeln!(f, "        to    {}", self.validity.not_after.date())?;
        write!(f, "  SHA-256     {}", with_colons(&self.fingerprint))
    }
}

/// As `openssl x509 -fingerprint -sha256` prints it.
fn with_colons(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| HEXUPPER.encode(&[*byte])).collect::<Vec<_>>().join(":")
}
