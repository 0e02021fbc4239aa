//! The key ceremony: makes the token, and for each role its key and certificate, once, and records what was done.
//!
//! A certificate is self-signed, or comes back from the brand owner's root, which got a request. Never changes what
//! exists: whatever is in the way is named and left alone.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use pem::{EncodeConfig, LineEnding, Pem};
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;

pub mod fitness;
pub mod role;
pub mod transcript;

use role::{Role, RoleName};
use transcript::{Entry, Transcript};

use crate::{
    authority::{Authority, AuthorityError},
    chain,
    config::Config,
    credential::Pin,
    profile::{
        self, Name, Subject, Validity, YEAR,
        device::{Kind, Profile},
    },
    provenance,
    token::{
        TokenError,
        commission::{self, ExistingKey, KeyAttributes, NewKey},
        key::{RemoteKey, SignDigest, SigningError},
        module::{Module, Token},
    },
};

/// What certificates are to say.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The CA's CN.
    pub common_name: Name,
    /// O and C.
    pub subject: Subject,
    /// How long they are valid.
    pub lifetime: Duration,
}

/// Why there is no CA; what had been begun was undone.
#[derive(Debug, thiserror::Error)]
pub enum CeremonyError {
    /// A CA that devices may trust already, and nothing else is missing.
    #[error("certificate {} exists already: nothing was changed, add an [[authority]] to make another CA", .0.display())]
    CertificateExists(PathBuf),
    /// Something else lies where the certificate should go.
    #[error(
        "{} holds something else already: nothing was changed, move it away if it is not this role's certificate",
        .0.display()
    )]
    Occupied(PathBuf),
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
    /// The signer's file has no such role.
    #[error("the signer's file has no {0}: add it there, or correct --role")]
    NoRole(RoleName),
    /// The brand owner's answer is not what was asked for.
    #[error("{} is not the certificate of {role}: {fault}", path.display())]
    Import {
        /// The file.
        path: PathBuf,
        /// For which role.
        role: RoleName,
        /// What is wrong with it.
        fault: String,
    },
    /// The certificate was made, and its key is another.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

/// A token that is open for a ceremony.
pub struct Ceremony<'a> {
    module: Module,
    token: Token,
    pin: &'a Pin,
    now: OffsetDateTime,
}

impl<'a> Ceremony<'a> {
    /// Loads the module and finds the token; with the security officer's PIN, makes it of a blank one.
    ///
    /// # Errors
    /// There is no such token, or it cannot be made.
    pub fn open(
        config: &Config,
        pin: &'a Pin,
        so_pin: Option<&Pin>,
        now: OffsetDateTime,
    ) -> Result<Self, CeremonyError> {
        let module = Module::load(&config.module)?;
        let token = commission::prepare(&module, &config.token_label, pin, so_pin)?;
        Ok(Self { module, token, pin, now })
    }

    /// Makes and certifies each of these roles' keys.
    ///
    /// # Errors
    /// Something is in the way, or the token does not do it; what had been begun was undone.
    pub fn certify(self, roles: &[Role<'_>], plan: &Plan) -> Result<Transcript, CeremonyError> {
        let mut entries = Vec::new();
        for role in roles {
            let key = NewKey::generate(&self.module, &self.token, self.pin, &role.key.key_label)?;
            let (serial, name) = (profile::random_serial(), role.common_name(&plan.common_name));
            let validity = Validity::of_authority(self.now, plan.lifetime);
            let params = role.certificate(&name, &plan.subject, validity, serial);
            let certificate =
                RemoteKey::new(&key, key.point()).certify(|own_key| params.self_signed(&own_key))?;
            if role.is_authority() {
                let authority =
                    Authority::new(vec![certificate.der().clone()]).map_err(CeremonyError::Unusable)?;
                authority.check_key(&key)?;
            }
            write_new(&role.key.certificate, &certificate.pem())?;
            let certificate = Some((role.key.certificate.clone(), certificate.der().clone()));
            entries.push(entry(role, key.attributes(), key.point(), certificate, None));
            key.keep();
        }
        self.done("init", entries)
    }

    /// Makes a role's key, if there is none, and writes a request for its certificate to `out`.
    ///
    /// # Errors
    /// The role has its certificate, something is in the way, or the token does not do it.
    pub fn request(self, role: &Role<'_>, plan: &Plan, out: &Path) -> Result<Transcript, CeremonyError> {
        if fs::symlink_metadata(&role.key.certificate).is_ok() {
            return Err(CeremonyError::CertificateExists(role.key.certificate.clone()));
        }
        let label = &role.key.key_label;
        let entries = match ExistingKey::open(&self.module, &self.token, self.pin, label) {
            Ok(key) => {
                write_new(out, &self.requested(role, plan, &key, key.point())?)?;
                vec![entry(role, key.attributes(), key.point(), None, Some(out))]
            }
            Err(TokenError::NoKey { .. }) => {
                let key = NewKey::generate(&self.module, &self.token, self.pin, label)?;
                write_new(out, &self.requested(role, plan, &key, key.point())?)?;
                let entry = entry(role, key.attributes(), key.point(), None, Some(out));
                key.keep();
                vec![entry]
            }
            Err(error) => return Err(error.into()),
        };
        self.done("csr", entries)
    }

    fn requested(
        &self,
        role: &Role<'_>,
        plan: &Plan,
        key: &dyn SignDigest,
        point: &[u8],
    ) -> Result<String, CeremonyError> {
        let name = role.common_name(&plan.common_name);
        let validity = Validity::of_authority(self.now, plan.lifetime);
        let mut params = role.certificate(&name, &plan.subject, validity, [0; 16]);
        // The root chooses it.
        params.serial_number = None;
        let request =
            RemoteKey::new(key, point).certify(|own_key| params.serialize_request(own_key)?.pem())?;
        Ok(request)
    }

    /// Takes the certificate that a root has signed for a role's key, with those above it, from `file` (PEM, the role's
    /// own first), and puts it where the signer's file says.
    ///
    /// # Errors
    /// It is not good for the role, or another one is there already; nothing was stored.
    pub fn import(self, role: &Role<'_>, file: &Path) -> Result<Transcript, CeremonyError> {
        let fault =
            |fault: String| CeremonyError::Import { path: file.to_owned(), role: role.name.clone(), fault };
        let chain = chain::read(file).map_err(fault)?;
        let certificate = chain[0].clone();
        let key = ExistingKey::open(&self.module, &self.token, self.pin, &role.key.key_label)?;
        let point = if role.is_authority() {
            let authority = Authority::new(chain.clone()).map_err(|it| fault(it.to_owned()))?;
            let platform = platform_profile();
            if !authority.may_issue(&platform) {
                return Err(fault(
                    "its extended key usages leave a device no clientAuth: have the root sign the request as it is".to_owned(),
                ));
            }
            chain::check_dates(&chain, self.now).map_err(fault)?;
            platform.validity(self.now, authority.validity()).map_err(|it| fault(it.to_string()))?;
            authority.point().to_vec()
        } else {
            let point = provenance::point(&certificate).map_err(|it| fault(it.to_owned()))?;
            chain::check(&chain, 1).map_err(|it| fault(it.to_owned()))?;
            chain::check_dates(&chain, self.now).map_err(fault)?;
            point
        };
        if point != key.point() {
            return Err(fault(format!(
                "it is for another key than {:?} in the token; send the request that `csr` wrote, not an older one",
                role.key.key_label
            )));
        }
        let pem: String = chain.iter().map(to_pem).collect();
        match fs::read_to_string(&role.key.certificate) {
            Ok(there) if there == pem => {}
            Ok(_) => return Err(CeremonyError::Occupied(role.key.certificate.clone())),
            Err(_) => write_new(&role.key.certificate, &pem)?,
        }
        let certificate = Some((role.key.certificate.clone(), certificate));
        let entries = vec![entry(role, key.attributes(), key.point(), certificate, None)];
        drop(key);
        self.done("import", entries)
    }

    fn done(self, act: &'static str, entries: Vec<Entry>) -> Result<Transcript, CeremonyError> {
        let (module, mechanisms) = (self.module.to_string(), self.module.mechanisms(&self.token)?);
        self.module.finalize()?;
        Ok(Transcript { act, time: self.now, module, token: self.token, mechanisms, entries })
    }
}

/// The roles that have no certificate yet; of all, or only the one that is named.
///
/// # Errors
/// There is none; or several CAs are missing, or the one that is has the name of another.
pub fn missing<'a>(
    config: &'a Config,
    only: Option<&RoleName>,
    plan: &Plan,
) -> Result<Vec<Role<'a>>, CeremonyError> {
    let roles = match only {
        Some(name) => vec![named(config, name)?],
        None => Role::all(config),
    };
    let first = roles[0].key.certificate.clone();
    let missing: Vec<_> =
        roles.into_iter().filter(|role| fs::symlink_metadata(&role.key.certificate).is_err()).collect();
    match missing.iter().filter(|role| role.is_authority()).count() {
        _ if missing.is_empty() => Err(CeremonyError::CertificateExists(first)),
        0 => Ok(missing),
        1 => check_name(config, plan).map(|()| missing),
        several => Err(CeremonyError::SeveralCas(several)),
    }
}

/// The role of that name.
///
/// # Errors
/// The signer's file has none.
pub fn named<'a>(config: &'a Config, name: &RoleName) -> Result<Role<'a>, CeremonyError> {
    Role::named(config, name).ok_or_else(|| CeremonyError::NoRole(name.clone()))
}

/// A role's certificate and those above it, PEM, the root first: as the platform takes them.
///
/// # Errors
/// They cannot be read.
pub fn export(role: &Role<'_>) -> Result<String, CeremonyError> {
    let path = &role.key.certificate;
    let fault = |fault: String| CeremonyError::Import { path: path.clone(), role: role.name.clone(), fault };
    let chain = chain::read(path).map_err(fault)?;
    Ok(chain.iter().rev().map(to_pem).collect())
}

/// What the platform asks of a device certificate, which every CA must be able to give.
fn platform_profile() -> Profile {
    let name = "bootstrap".parse().expect("it is a name");
    Profile { name, subject: Subject::default(), kind: Kind::Client { lifetime: 10 * YEAR } }
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

fn entry(
    role: &Role<'_>,
    attributes: &KeyAttributes,
    point: &[u8],
    certificate: Option<(PathBuf, CertificateDer<'static>)>,
    request: Option<&Path>,
) -> Entry {
    Entry {
        role: role.name.clone(),
        key_label: role.key.key_label.clone(),
        attributes: attributes.clone(),
        point: point.to_vec(),
        certificate,
        request: request.map(Path::to_owned),
    }
}

fn to_pem(certificate: &CertificateDer<'_>) -> String {
    let config = EncodeConfig::new().set_line_ending(LineEnding::LF);
    pem::encode_config(&Pem::new("CERTIFICATE", certificate.as_ref()), config)
}

/// Writes a file that must not exist yet, as a whole or not at all, and returns when it is on the disk.
fn write_new(path: &Path, text: &str) -> Result<(), CeremonyError> {
    let unwritable = |source| CeremonyError::Unwritable { path: path.to_owned(), source };
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    // One that a crash has left.
    let _ = fs::remove_file(&new);
    let written = File::create_new(&new)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .and_then(|()| fs::hard_link(&new, path));
    let _ = fs::remove_file(&new);
    written.map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => CeremonyError::CertificateExists(path.to_owned()),
        _ => unwritable(source),
    })?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|source| {
        // Ours, and useless: its key is about to be destroyed.
        let _ = fs::remove_file(path);
        unwritable(source)
    })
}
