//! What a device is called, and where its key comes from.

use std::path::PathBuf;

use factory_fixtures::fcc::message::KeyRequest;
use factory_proto::ids::{EndpointName, RecipeName};
use factory_settings::{Table, integer, path, text};
use rcgen::{DistinguishedName, DnType};

use super::{
    UnitError,
    credential::{self, LONGEST_CHAIN},
    source::Sources,
    template::{Template, Unit},
};

/// What the device is called, and where its key comes from.
#[derive(Debug, Clone)]
pub struct Identity {
    /// As in `{product}-{serial}`.
    pub endpoint_name: Template,
    /// O of the subject.
    pub organization: Option<String>,
    /// C of the subject.
    pub country: Option<String>,
    /// Where the device's key comes from.
    pub key: KeyOrigin,
    /// How many certificates of its chain the device gets, the leaf first: 1 to 5.
    pub chain_depth: usize,
}

/// Where a device's key comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyOrigin {
    /// The device makes it and asks for a certificate: no one else ever has it.
    ByDevice,
    /// The station makes it and wipes it.
    ByTool,
    /// It lies ready with its certificate, whose CA is this one; DER.
    Supplied {
        /// The CA.
        authority: Vec<u8>,
    },
}

impl Identity {
    pub(super) fn written(file: &mut Table<'_>, sources: &Sources<'_>, product: &RecipeName) -> Option<Self> {
        let endpoint_name: Option<Template> = file.required("endpoint-name", text);
        let organization: Option<Option<String>> = file.optional("organization", text);
        let country: Option<Option<String>> = file.optional("country", text);
        let key = file.or("key", "by-device".to_owned(), text);
        let authority: Option<Option<PathBuf>> = file.optional("supplied-ca", path);
        let chain_depth = file.or("chain-depth", 1, integer);

        if country.iter().flatten().any(|c| c.len() != 2 || !c.bytes().all(|b| b.is_ascii_uppercase())) {
            file.complain("country", "must be two capital letters (ISO 3166)");
        }
        // A comma would begin another attribute in the subject that the device is asked for.
        if organization.iter().flatten().any(|o| o.is_empty() || o.len() > 64 || o.contains([',', '='])) {
            file.complain("organization", "must be 1 to 64 bytes without comma and equals sign");
        }
        let endpoint_name = endpoint_name.and_then(|name| check_endpoint_name(file, name, product));
        let chain_depth = chain_depth.and_then(|depth| check_depth(file, depth));
        let key = origin(file, sources, key.as_deref(), authority?);
        Some(Self {
            endpoint_name: endpoint_name?,
            organization: organization?,
            country: country?,
            key: key?,
            chain_depth: chain_depth?,
        })
    }

    /// The endpoint name of one unit.
    ///
    /// # Errors
    /// Its values do not make one.
    pub fn endpoint_name(&self, unit: &Unit<'_>) -> Result<EndpointName, UnitError> {
        let key = "identity.endpoint-name";
        let name = self.endpoint_name.fill(unit).map_err(|error| UnitError::new(key, error))?;
        name.parse().map_err(|error| UnitError::new(key, format!("with {name:?} {error}")))
    }

    /// What the device gets of a certificate and of those that it is signed by, DER.
    ///
    /// # Errors
    /// There are fewer than the recipe wants.
    pub fn chain(&self, certificate: Vec<u8>, issuers: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>, UnitError> {
        let mut chain: Vec<Vec<u8>> = [certificate].into_iter().chain(issuers).collect();
        if chain.len() < self.chain_depth {
            return Err(UnitError::new(
                "identity.chain-depth",
                format!("is {}, the signer's chain has {} certificates", self.chain_depth, chain.len()),
            ));
        }
        chain.truncate(self.chain_depth);
        Ok(chain)
    }

    /// What the device is asked to make: its own key, and the request for it. `account` is the OU of the subject.
    pub fn request(&self, key: &str, endpoint_name: &EndpointName, account: Option<&str>) -> KeyRequest {
        let parts = self.subject(endpoint_name, account);
        let parts: Vec<String> = parts.into_iter().map(|(_, key, value)| format!("{key}={value}")).collect();
        KeyRequest { name: key.to_owned(), subject: parts.join(",") }
    }

    /// The same subject for a request that the station makes.
    pub fn distinguished_name(
        &self,
        endpoint_name: &EndpointName,
        account: Option<&str>,
    ) -> DistinguishedName {
        let mut name = DistinguishedName::new();
        for (kind, _, value) in self.subject(endpoint_name, account) {
            name.push(kind, value);
        }
        name
    }

    fn subject<'a>(
        &'a self,
        endpoint_name: &'a EndpointName,
        account: Option<&'a str>,
    ) -> Vec<(DnType, &'static str, &'a str)> {
        let country = self.country.as_deref().map(|country| (DnType::CountryName, "C", country));
        let organization = self.organization.as_deref().map(|it| (DnType::OrganizationName, "O", it));
        let unit = account.map(|account| (DnType::OrganizationalUnitName, "OU", account));
        let name = (DnType::CommonName, "CN", endpoint_name.as_str());
        country.into_iter().chain(organization).chain(unit).chain([name]).collect()
    }
}

fn check_depth(file: &Table<'_>, depth: usize) -> Option<usize> {
    if (1..=LONGEST_CHAIN).contains(&depth) {
        return Some(depth);
    }
    file.complain("chain-depth", format!("must be 1 to {LONGEST_CHAIN}, as many as a device takes"));
    None
}

fn check_endpoint_name(file: &Table<'_>, template: Template, product: &RecipeName) -> Option<Template> {
    if template.names().all(|name| ["product", "order"].contains(&name)) {
        file.complain(
            "endpoint-name",
            "must hold {serial}, or a value that differs from unit to unit, so that each has a name of its own",
        );
        return None;
    }
    // The longest serial number there can be. What an order adds is checked when it is opened.
    let longest = "0".repeat(32);
    let name = template.fill_with(|name| match name {
        "product" => Some(product.as_str()),
        "serial" => Some(&longest),
        _ => None,
    });
    if let Ok(name) = name
        && let Err(error) = name.parse::<EndpointName>()
    {
        file.complain("endpoint-name", format!("with a serial number of 32 characters it {error}"));
        return None;
    }
    Some(template)
}

fn origin(
    file: &Table<'_>,
    sources: &Sources<'_>,
    key: Option<&str>,
    authority: Option<PathBuf>,
) -> Option<KeyOrigin> {
    match (key?, authority) {
        ("supplied", Some(path)) => {
            let authority = sources.parsed(file, "supplied-ca", &path, credential::authority)?;
            Some(KeyOrigin::Supplied { authority })
        }
        ("supplied", None) => {
            file.complain(
                "supplied-ca",
                "is missing: name the CA that supplied certificates must be signed by",
            );
            None
        }
        (_, Some(_)) => {
            file.complain("supplied-ca", "is only for supplied keys (key = \"supplied\")");
            None
        }
        ("by-device", None) => Some(KeyOrigin::ByDevice),
        ("by-tool", None) => Some(KeyOrigin::ByTool),
        _ => {
            file.complain(
                "key",
                "must be \"by-device\" (the device makes it), \"by-tool\" (the station makes it), or \"supplied\"",
            );
            None
        }
    }
}
