//! A recipe from the configuration of the factory configurator utility (FCU facts, section 2). Whatever has no place
//! in a recipe is named, never dropped.

use std::{
    env, fmt,
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use clap::Args;
use yaml_serde::{Mapping, Value};

#[derive(Args)]
pub struct Import {
    /// The utility's configuration, fcu.yml.
    file: PathBuf,
    /// The recipe to write; must not be there yet. What the configuration holds inline is written beside it.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

impl Import {
    pub fn run(self) -> anyhow::Result<()> {
        let text =
            fs::read_to_string(&self.file).with_context(|| format!("cannot read {}", self.file.display()))?;
        let folder = self.out.parent().unwrap_or(Path::new(""));
        let name = self.file.display().to_string();
        let imported = Imported::read(&text).with_context(|| format!("{name} is no configuration"))?;
        for Inline { name, bytes } in &imported.inline {
            write_new(&folder.join(name), bytes)?;
        }
        write_new(&self.out, imported.recipe(&name).as_bytes())?;
        println!("wrote {}", self.out.display());
        for left in &imported.left {
            println!("not carried over: {left}");
        }
        println!(
            "fill in what the utility does not know, then run stationctl recipe check {}",
            self.out.display()
        );
        Ok(())
    }
}

/// Never writes over a file: it may be the only copy of a key.
fn write_new(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o640).open(path);
    let mut file =
        file.with_context(|| format!("cannot write {}; it must not be there yet", path.display()))?;
    Ok(file.write_all(bytes)?)
}

/// Something that the configuration does not name but holds.
struct Inline {
    name: String,
    bytes: Vec<u8>,
}

/// What became of a configuration.
#[derive(Default)]
struct Imported {
    top: Vec<Line>,
    identity: Vec<Line>,
    provision: Vec<Line>,
    /// `parameter`, `certificate` or `key`, and its lines.
    custom: Vec<(&'static str, Vec<Line>)>,
    inline: Vec<Inline>,
    /// What has no place in a recipe: its key, and where it belongs.
    left: Vec<String>,
}

/// A key and its value, in TOML.
struct Line {
    key: &'static str,
    value: toml::Value,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}", self.key, self.value)
    }
}

fn line(key: &'static str, value: impl Into<toml::Value>) -> Line {
    Line { key, value: value.into() }
}

impl Imported {
    fn read(text: &str) -> anyhow::Result<Self> {
        let value: Value = yaml_serde::from_str(text)?;
        let Value::Mapping(all) = value else { bail!("it holds no keys") };
        let mut keys = Keys::of(&all);
        let mut it = Self::default();
        it.connection(&mut keys);
        it.device(&mut keys);
        it.update(&mut keys);
        it.keys(&mut keys)?;
        it.custom(&mut keys)?;
        it.authority(&mut keys);
        it.left.extend(keys.troubles);
        let unknown = keys.rest.iter().map(|(key, _)| format!("{key}: this is not a key that is known here"));
        it.left.extend(unknown);
        Ok(it)
    }

    fn connection(&mut self, keys: &mut Keys) {
        let bootstraps = keys.flag("use-bootstrap").unwrap_or(true);
        let first_to_claim = keys.flag("first-to-claim").unwrap_or(false);
        let (bootstrap_uri, claim_uri, lwm2m_uri) = (
            keys.text("bootstrap-server-uri"),
            keys.text("bootstrap-server-uri-first-to-claim"),
            keys.text("lwm2m-server-uri"),
        );
        let mut ca = |mode: &str| {
            let keys_tried = ["-certificate-file", "-certificate", "-cert-file", "-cert"];
            let found: Vec<String> =
                keys_tried.iter().filter_map(|end| keys.text(&format!("{mode}-server-ca{end}"))).collect();
            found.into_iter().next()
        };
        let (bootstrap_ca, lwm2m_ca) = (ca("bootstrap"), ca("lwm2m"));
        let (uri, ca, uri_key) = match (bootstraps, first_to_claim) {
            (true, true) => (claim_uri, bootstrap_ca, "bootstrap-server-uri-first-to-claim"),
            (true, false) => (bootstrap_uri, bootstrap_ca, "bootstrap-server-uri"),
            (false, _) => (lwm2m_uri, lwm2m_ca, "lwm2m-server-uri"),
        };
        self.provision.push(line("connection", if bootstraps { "bootstrap" } else { "lwm2m" }));
        let ownership = if bootstraps && first_to_claim { "first-to-claim" } else { "pre-assigned" };
        self.provision.push(line("ownership", ownership));
        match uri {
            None => self.left.push(format!("{uri_key} is not there: set provision.server-uri")),
            Some(uri) => {
                let account = uri.split_once("?aid=").or_else(|| uri.split_once("&aid="));
                match account {
                    Some((_, account)) if ownership == "pre-assigned" => {
                        self.provision.push(line("account-id", account));
                    }
                    None if ownership == "pre-assigned" => self.left.push(format!(
                        "{uri_key} names no account (aid): set provision.account-id, and add it to server-uri"
                    )),
                    _ => {}
                }
                self.provision.push(line("server-uri", uri));
            }
        }
        match ca {
            None => self.left.push(
                "the server's CA certificate is not named: save it from the portal and set provision.server-ca".to_owned(),
            ),
            Some(ca) => {
                let file = self.file_or_inline("server-ca.pem", ca);
                self.provision.push(line("server-ca", file));
            }
        }
    }

    fn device(&mut self, keys: &mut Keys) {
        let time_sync = keys.flag("time-sync").unwrap_or(true);
        let verify = keys.flag("verify-on-device");
        let mut info = keys.section("device-info");
        let zone = info.text("timezone");
        let mut put = |name: &str, key: &'static str| match info.text(name) {
            Some(value) if !value.is_empty() => self.provision.push(line(key, value)),
            _ => self.left.push(format!("device-info.{name} is empty: set provision.{key}")),
        };
        put("manufacturer", "manufacturer");
        put("model-number", "model-number");
        put("device-type", "device-type");
        put("hardware-version", "hardware-version");
        put("memory-total-kb", "memory-total-kb");
        self.provision.push(line("time-sync", time_sync));
        match zone {
            Some(zone) if time_sync => self.provision.push(line("time-zone", zone)),
            Some(_) => self.left.push("device-info.timezone: only given with time-sync".to_owned()),
            None => {}
        }
        self.provision.extend(verify.map(|verify| line("verify-on-device", verify)));
        self.left.extend(info.complaints("device-info"));
    }

    fn update(&mut self, keys: &mut Keys) {
        if let Some(certificate) = keys.text("update-auth-certificate-file").filter(|it| !it.is_empty()) {
            let file = self.file_or_inline("update-certificate.pem", certificate);
            self.provision.push(line("update-certificate", file));
        }
        for key in ["vendor-id", "class-id"] {
            self.provision.extend(keys.text(key).filter(|id| !id.is_empty()).map(|id| line(key, id)));
        }
    }

    fn keys(&mut self, keys: &mut Keys) -> anyhow::Result<()> {
        let origin = |key: &str, mode: Option<String>| match mode.as_deref() {
            None | Some("by_device") => Ok("by-device"),
            Some("by_tool") => Ok("by-tool"),
            Some("externally_supplied") => Ok("supplied"),
            Some(other) => bail!("{key} is {other:?}, not by_device, by_tool or externally_supplied"),
        };
        let key = origin("device-key-generation-mode", keys.text("device-key-generation-mode"))?;
        let entropy = origin("entropy-generation-mode", keys.text("entropy-generation-mode"))?;
        self.identity.push(line("key", key));
        self.provision.push(line("entropy", entropy));
        if [key, entropy].contains(&"supplied") {
            self.top.push(line("supplied", "units"));
            self.left.push(
                "the folder of device_keys_location is an argument of the utility: put a folder for each serial number \
                 into \"units\", with device-key.pem, device-certificate.pem and entropy.bin as far as they are supplied"
                    .to_owned(),
            );
        }
        if key == "supplied" {
            self.left
                .push("the CA of supplied certificates is not named: set identity.supplied-ca".to_owned());
        }
        if let Some(depth) = keys.integer("device-certificate-chain-depth") {
            self.identity.push(line("chain-depth", depth));
        }
        Ok(())
    }

    /// What the utility keeps of its own CA belongs to the signer.
    fn authority(&mut self, keys: &mut Keys) {
        if let Some(intermediate) = keys.flag("setup-ca-as-intermediate") {
            let verbs = if intermediate { "csr and import" } else { "init" };
            self.left.push(format!(
                "setup-ca-as-intermediate: the CA's key lives in the signer's token; see factory-signerd {verbs}"
            ));
        }
        if keys.take("certificate-authority").is_some() {
            self.left
                .push("certificate-authority: the CA's subject belongs into the signer's file".to_owned());
        }
        let mut certificate = keys.section("device-certificate");
        for (names, key) in [
            (["organization", "organization-name"], "organization"),
            (["country", "country-name"], "country"),
        ] {
            let found = names.iter().find_map(|name| certificate.text(name)).filter(|it| !it.is_empty());
            self.identity.extend(found.map(|value| line(key, value)));
        }
        let rest = certificate.complaints("device-certificate");
        self.left.extend(rest.into_iter().map(|rest| format!("{rest}; set it in the signer's profile")));
        if keys.text("supported-crypto-scheme").is_some() {
            self.left.push("supported-crypto-scheme: always P-256 with ECDSA and SHA-256".to_owned());
        }
    }

    fn custom(&mut self, keys: &mut Keys) -> anyhow::Result<()> {
        let Some(value) = keys.take("custom-properties") else { return Ok(()) };
        let items = match value {
            Value::Sequence(items) => items,
            Value::Null => return Ok(()),
            _ => bail!("custom-properties is no list"),
        };
        for (index, item) in items.iter().enumerate() {
            let Value::Mapping(item) = item else { bail!("custom-properties[{}] has no keys", index + 1) };
            let mut item = Keys::of(item);
            let name =
                item.text("name").with_context(|| format!("custom-properties[{}] has no name", index + 1))?;
            self.property(&name, &mut item);
            self.left.extend(item.complaints(&format!("custom-properties {name:?}")));
        }
        Ok(())
    }

    fn property(&mut self, name: &str, item: &mut Keys) {
        let kind = item.text("type").unwrap_or_default().replace('_', "-");
        let (group, end) = match kind.as_str() {
            "certificate" => ("certificate", "pem"),
            "private-key" | "public-key" => ("key", "pem"),
            "config-param" | "config-parameter" | "" => ("parameter", "bin"),
            _ => {
                return self
                    .left
                    .push(format!("custom-properties {name:?}: its type {kind:?} is not known here"));
            }
        };
        let mut lines = vec![line("name", name)];
        match (item.take("data"), item.text("data-file")) {
            (None, Some(file)) => lines.push(line("file", file)),
            (Some(Value::Number(number)), None) if group == "parameter" && number.is_i64() => {
                lines.push(line("integer", number.as_i64().unwrap_or_default()));
            }
            (Some(Value::String(text)), None) if group == "parameter" => {
                // A brace would ask for a unit's value.
                lines.push(line("text", text.replace('{', "{{").replace('}', "}}")));
            }
            (Some(Value::String(text)), None) => {
                let file = format!("{name}.{end}");
                self.inline.push(Inline { name: file.clone(), bytes: text.into_bytes() });
                lines.push(line("file", file));
            }
            _ => {
                return self.left.push(format!(
                    "custom-properties {name:?}: it needs either data, of a kind that its type can have, or data-file"
                ));
            }
        }
        self.custom.push((group, lines));
    }

    /// The name of a file: as it stands there, or of one that is written for it.
    fn file_or_inline(&mut self, name: &str, value: String) -> String {
        if !value.contains("-----BEGIN") {
            return value;
        }
        self.inline.push(Inline { name: name.to_owned(), bytes: value.into_bytes() });
        name.to_owned()
    }

    /// The recipe, with what is still to be done on top.
    fn recipe(&self, source: &str) -> String {
        let mut out = format!("# Made from {source} by stationctl recipe import.\n");
        for left in &self.left {
            out += &format!("# Not carried over: {}\n", left.replace('\n', " "));
        }
        out += "#\n# The utility knows nothing of flash, boot, self-test and tag: fill in those tables.\n\n";
        let lines = |lines: &[Line]| lines.iter().map(|line| format!("{line}\n")).collect::<String>();
        out += &lines(&self.top);
        out += "\n[identity]\n# An argument of the utility's, endpoint_name.\nendpoint-name = \"{serial}\"\n";
        out += &lines(&self.identity);
        out += "\n[provision]\n";
        out += &lines(&self.provision);
        for (group, item) in &self.custom {
            out += &format!("\n[[provision.{group}]]\n{}", lines(item));
        }
        out
    }
}

/// The keys of a table that nobody has asked for yet.
struct Keys {
    rest: Vec<(String, Value)>,
    troubles: Vec<String>,
}

impl Keys {
    fn of(table: &Mapping) -> Self {
        let key = |key: &Value| key.as_str().map_or_else(|| format!("{key:?}"), |key| key.replace('_', "-"));
        Self {
            rest: table.iter().map(|(name, value)| (key(name), value.clone())).collect(),
            troubles: Vec::new(),
        }
    }

    fn take(&mut self, key: &str) -> Option<Value> {
        let at = self.rest.iter().position(|(name, _)| name == key)?;
        Some(self.rest.remove(at).1)
    }

    /// What a key says, with what it asks of the environment put in.
    fn text(&mut self, key: &str) -> Option<String> {
        let text = match self.take(key)? {
            Value::String(text) => text,
            Value::Number(number) => number.to_string(),
            Value::Null => return None,
            other => {
                self.troubles.push(format!("{key}: it is {}, not text", kind(&other)));
                return None;
            }
        };
        match with_environment(&text, |name| env::var(name).ok()) {
            Ok(text) => Some(text),
            Err(lookup) => {
                self.troubles.push(format!("{key}: {lookup}"));
                None
            }
        }
    }

    fn flag(&mut self, key: &str) -> Option<bool> {
        match self.take(key)? {
            Value::Bool(flag) => Some(flag),
            other => {
                self.troubles.push(format!("{key}: it is {}, not true or false", kind(&other)));
                None
            }
        }
    }

    fn integer(&mut self, key: &str) -> Option<i64> {
        let value = self.take(key)?;
        if value.as_i64().is_none() && !value.is_null() {
            self.troubles.push(format!("{key}: it is {}, not a number", kind(&value)));
        }
        value.as_i64()
    }

    fn section(&mut self, key: &str) -> Self {
        match self.take(key) {
            Some(Value::Mapping(table)) => Self::of(&table),
            None | Some(Value::Null) => Self { rest: Vec::new(), troubles: Vec::new() },
            Some(other) => {
                Self { rest: Vec::new(), troubles: vec![format!("it is {}, not a table", kind(&other))] }
            }
        }
    }

    /// What nobody asked for, and what could not be used.
    fn complaints(self, section: &str) -> Vec<String> {
        let unknown = self
            .rest
            .into_iter()
            .map(|(key, _)| format!("{section}.{key}: this is not a key that is known here"));
        let troubles = self.troubles.into_iter().map(|trouble| format!("{section}.{trouble}"));
        unknown.chain(troubles).collect()
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "empty",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Sequence(_) => "a list",
        Value::Mapping(_) => "a table",
        Value::Tagged(_) => "a tagged value",
    }
}

/// The utility's files may ask for a variable, as in `<%= ENV['RESOURCES'] %>/fcu.crt`.
fn with_environment(text: &str, lookup: impl Fn(&str) -> Option<String>) -> Result<String, String> {
    let (mut out, mut rest) = (String::new(), text);
    while let Some((before, behind)) = rest.split_once("<%") {
        let not_known = || format!("the lookup in {text:?} is not understood; put its value there");
        let (inside, after) = behind.split_once("%>").ok_or_else(not_known)?;
        let name = inside.trim_start_matches('=').trim();
        let name = name.strip_prefix("ENV[").and_then(|name| name.strip_suffix(']')).ok_or_else(not_known)?;
        let name = name.trim_matches(['\'', '"']);
        out += before;
        out += &lookup(name).ok_or_else(|| {
            format!("it asks for the variable {name}, which is not set; set it and import again")
        })?;
        rest = after;
    }
    Ok(out + rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_configuration_asks_of_the_environment_is_put_in() {
        let lookup = |name: &str| (name == "HOME_OF_FCU").then(|| "/opt/fcu".to_owned());
        let check = |text: &str, wanted: Result<&str, &str>| {
            let found = with_environment(text, lookup);
            assert_eq!(found.as_deref().map_err(String::as_str), wanted);
        };
        check("plain", Ok("plain"));
        check("<%= ENV['HOME_OF_FCU'] %>/fcu.crt", Ok("/opt/fcu/fcu.crt"));
        check("a<%=ENV[\"HOME_OF_FCU\"]%>b", Ok("a/opt/fcub"));
        check(
            "<%= ENV['NONE'] %>",
            Err("it asks for the variable NONE, which is not set; set it and import again"),
        );
        check("<% x", Err("the lookup in \"<% x\" is not understood; put its value there"));
    }
}
