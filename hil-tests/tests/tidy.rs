//! The rules of the workspace that a program can check, read from `cargo metadata`.

use std::{collections::BTreeSet, process::Command};

use serde::Deserialize;

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    license: Option<String>,
    license_file: Option<String>,
    source: Option<String>,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
}

fn metadata() -> Metadata {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked", "--filter-platform", &platform])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON")
}

/// What each of our crates may import of ours, apart from its tests.
const DIRECTIONS: [(&str, &[&str]); 9] = [
    ("factory-proto", &[]),
    ("factory-journal", &[]),
    ("factory-jws", &[]),
    ("factory-settings", &[]),
    ("factory-door", &[]),
    ("factory-hsm", &["factory-proto", "factory-journal", "factory-jws", "factory-settings", "factory-door"]),
    ("factory-fixtures", &["factory-proto"]),
    (
        "factory-station",
        &[
            "factory-proto",
            "factory-journal",
            "factory-jws",
            "factory-settings",
            "factory-door",
            "factory-fixtures",
        ],
    ),
    (
        "factory-hil-tests",
        &[
            "factory-proto",
            "factory-journal",
            "factory-jws",
            "factory-settings",
            "factory-door",
            "factory-fixtures",
            "factory-station",
            "factory-hsm",
        ],
    ),
];

/// The one crate that may name a library.
const HOMES: [(&str, &str); 8] = [
    ("sled", "factory-journal"),
    ("cryptoki", "factory-hsm"),
    ("probe-rs", "factory-fixtures"),
    ("nfc1", "factory-fixtures"),
    ("rusb", "factory-fixtures"),
    ("tokio-serial", "factory-fixtures"),
    ("rusqlite", "factory-hil-tests"),
    ("postgres", "factory-hil-tests"),
];

#[test]
fn our_crates_depend_on_each_other_only_downwards() {
    for package in metadata().packages.iter().filter(|package| package.source.is_none()) {
        let (_, allowed) = DIRECTIONS
            .iter()
            .find(|(name, _)| *name == package.name)
            .unwrap_or_else(|| panic!("{} has no place in the directions", package.name));
        let ours = package.dependencies.iter().filter(|dependency| {
            dependency.name.starts_with("factory-") && dependency.kind.as_deref() != Some("dev")
        });
        for dependency in ours {
            assert!(
                allowed.contains(&dependency.name.as_str()),
                "{} imports {}",
                package.name,
                dependency.name
            );
        }
    }
}

#[test]
fn each_hardware_library_has_one_home() {
    let metadata = metadata();
    for (library, home) in HOMES {
        for package in metadata.packages.iter().filter(|package| package.source.is_none()) {
            let named = package
                .dependencies
                .iter()
                .any(|dependency| dependency.name == library && dependency.kind.as_deref() != Some("dev"));
            assert!(!named || package.name == home, "{} names {library}, whose home is {home}", package.name);
        }
    }
}

#[test]
fn every_dependency_has_a_licence_that_we_may_ship() {
    // An expression is fine when each of its AND parts offers one of these.
    const FINE: [&str; 13] = [
        "Apache-2.0",
        "BlueOak-1.0.0",
        "MIT",
        "MIT-0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "ISC",
        "Zlib",
        "0BSD",
        "CC0-1.0",
        "Unicode-3.0",
        "Unlicense",
        "MPL-2.0",
    ];
    let fine = |expression: &str| {
        expression
            .split(" AND ")
            .all(|part| part.split([' ', '/', '(', ')']).any(|word| FINE.contains(&word)))
    };
    // libnfc's bindings: LGPL, linked dynamically against Debian's library.
    const LGPL: [&str; 2] = ["nfc1", "nfc1-sys"];
    let odd: BTreeSet<String> = metadata()
        .packages
        .iter()
        .filter(|package| !LGPL.contains(&package.name.as_str()))
        .filter(|package| match &package.license {
            Some(expression) => !fine(expression),
            None => package.license_file.is_none(),
        })
        .map(|package| format!("{} ({:?})", package.name, package.license))
        .collect();
    assert!(odd.is_empty(), "{odd:#?}");
}

#[test]
fn there_is_one_tls_provider() {
    let output = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()))
        .args([
            "tree",
            "--workspace",
            "--locked",
            "--offline",
            "--edges",
            "normal",
            "--prefix",
            "none",
            "--format",
            "{p}",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8_lossy(&output.stdout);
    let crates: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(crates.contains("aws-lc-rs"));
    for other in ["ring", "openssl", "openssl-sys", "native-tls"] {
        assert!(!crates.contains(other), "{other} is linked beside aws-lc-rs");
    }
}
