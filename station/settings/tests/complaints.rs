//! What people are told about the files they wrote.

use std::num::NonZeroU8;
use std::path::{Path, PathBuf};
use std::time::Duration;

use factory_settings::{
    SettingsError, Table, duration, flag, integer, list, parse, path, read, table, tables_by_name, text,
};
use proptest::prelude::*;

#[derive(Debug, PartialEq)]
struct Station {
    name: String,
    verify: bool,
    deadline: Duration,
    serial: Option<u32>,
    hosts: Vec<String>,
    flash: Option<Flash>,
    nests: Vec<Nest>,
    limits: Vec<(String, i16)>,
}

#[derive(Debug, PartialEq)]
struct Flash {
    image: PathBuf,
    attempts: NonZeroU8,
}

#[derive(Debug, PartialEq)]
struct Nest {
    console: PathBuf,
}

fn station(file: &mut Table<'_>) -> Option<Station> {
    let name = file.required("name", text);
    let verify = file.or("verify", true, flag);
    let deadline = file.or("deadline", Duration::from_secs(5), duration);
    let serial = file.optional("serial", integer);
    let hosts = file.or("hosts", Vec::new(), list(text));
    let flash = file.optional("flash", table(flash));
    let nests = file.or("nest", Vec::new(), list(table(nest)));
    let limits = file.or("limits", Vec::new(), tables_by_name(limit));
    if name.as_deref() == Some("nobody") {
        file.complain("name", "must be somebody");
    }
    Some(Station {
        name: name?,
        verify: verify?,
        deadline: deadline?,
        serial: serial?,
        hosts: hosts?,
        flash: flash?,
        nests: nests?,
        limits: limits?,
    })
}

fn flash(flash: &mut Table<'_>) -> Option<Flash> {
    let image = flash.required("image", path);
    let attempts = flash.or("attempts", NonZeroU8::MIN, integer);
    Some(Flash { image: image?, attempts: attempts? })
}

fn nest(nest: &mut Table<'_>) -> Option<Nest> {
    Some(Nest { console: nest.required("console", path)? })
}

fn limit(name: &str, limit: &mut Table<'_>) -> Option<(String, i16)> {
    Some((name.to_owned(), limit.required("max", integer)?))
}

fn check(written: &str, expected: &[&str]) {
    let complaints = parse("s.toml", written, station).expect_err("there should be complaints").to_string();
    let complaints: Vec<&str> = complaints.lines().collect();
    assert_eq!(complaints, expected, "for {written:?}");
}

#[test]
fn a_complete_file_means_what_it_says() {
    let written = r#"
        name = "one"
        verify = false
        deadline = "1m 30s"
        serial = 0x10
        hosts = ["a", "b"]
        flash = { image = "boot.elf", attempts = 3 }
        [[nest]]
        console = "/dev/one"
        [[nest]]
        console = "two"
        [limits]
        vdd.max = -3
        [limits.rail]
        max = 7
    "#;
    let meant = Station {
        name: "one".into(),
        verify: false,
        deadline: Duration::from_secs(90),
        serial: Some(16),
        hosts: vec!["a".into(), "b".into()],
        flash: Some(Flash { image: "/etc/factory/boot.elf".into(), attempts: NonZeroU8::new(3).unwrap() }),
        nests: vec![Nest { console: "/dev/one".into() }, Nest { console: "/etc/factory/two".into() }],
        limits: vec![("rail".into(), 7), ("vdd".into(), -3)],
    };
    assert_eq!(parse("/etc/factory/s.toml", written, station).unwrap(), meant);
}

#[test]
fn absent_keys_take_their_defaults() {
    let station = parse("s.toml", "name = 'n'", station).unwrap();
    assert!(station.verify);
    assert_eq!(station.deadline, Duration::from_secs(5));
    assert_eq!((station.serial, station.flash), (None, None));
}

#[test]
fn a_missing_key_is_missed_at_the_line_of_its_table() {
    check("", &["s.toml:1: key `name`: is missing"]);
    check("name = 'n'\n\n[flash]\n", &["s.toml:3: key `flash.image`: is missing"]);
    check(
        "name = 'n'\n[[nest]]\nconsole = 'c'\n\n[[nest]]\n",
        &["s.toml:5: key `nest[2].console`: is missing"],
    );
    check("name = 'n'\n[limits]\na.max = 1\nb = {}", &["s.toml:4: key `limits.b.max`: is missing"]);
}

#[test]
fn a_value_of_the_wrong_type_is_told_the_right_one() {
    check("name = 1", &["s.toml:1: key `name`: must be a string, not an integer"]);
    check("name = 'n'\nverify = 'yes'", &["s.toml:2: key `verify`: must be true or false, not a string"]);
    check(
        "name = 'n'\nserial = 1.5",
        &["s.toml:2: key `serial`: must be an integer, not a number with a point"],
    );
    check("name = 'n'\nhosts = 'a'", &["s.toml:2: key `hosts`: must be a list, not a string"]);
    check("name = 'n'\nhosts = ['a',\n 2]", &["s.toml:3: key `hosts[2]`: must be a string, not an integer"]);
    check("name = 'n'\nnest = [1]", &["s.toml:2: key `nest[1]`: must be a table, not an integer"]);
    check("name = 'n'\nlimits = true", &["s.toml:2: key `limits`: must be a table, not true or false"]);
    check(
        "name = 'n'\nflash.image = 1979-05-27",
        &["s.toml:2: key `flash.image`: must be a path, not a date"],
    );
}

#[test]
fn a_value_out_of_range_is_told_why() {
    check(
        "name = 'n'\nserial = -1",
        &["s.toml:2: key `serial`: -1 does not fit: invalid digit found in string"],
    );
    check(
        "name = 'n'\nlimits.a.max = 40_000",
        &["s.toml:2: key `limits.a.max`: 40000 does not fit: number too large to fit in target type"],
    );
    check(
        "name = 'n'\n[flash]\nimage = ''\nattempts = 0",
        &[
            "s.toml:3: key `flash.image`: must not be empty",
            "s.toml:4: key `flash.attempts`: 0 does not fit: number would be zero for non-zero type",
        ],
    );
    check(
        "name = 'n'\ndeadline = '5'",
        &[
            "s.toml:2: key `deadline`: must be a duration such as \"5s\": time unit needed, for example 5sec or 5ms",
        ],
    );
    check("name = 'nobody'", &["s.toml:1: key `name`: must be somebody"]);
}

#[test]
fn an_unknown_key_is_told_what_is_known() {
    check("name = 'n'\nverfiy = true", &["s.toml:2: key `verfiy`: unknown key, did you mean `verify`?"]);
    check(
        "name = 'n'\n[flash]\nimage = 'i'\ncolour = 1",
        &["s.toml:4: key `flash.colour`: unknown key, known here: image, attempts"],
    );
}

#[test]
fn all_mistakes_are_reported_at_once_in_the_order_of_the_file() {
    check(
        "name = 1\nverify = 2\n[[nest]]\n[[nest]]\nconsole = 3\nprobe = 4",
        &[
            "s.toml:1: key `name`: must be a string, not an integer",
            "s.toml:2: key `verify`: must be true or false, not an integer",
            "s.toml:3: key `nest[1].console`: is missing",
            "s.toml:5: key `nest[2].console`: must be a path, not an integer",
            "s.toml:6: key `nest[2].probe`: unknown key, known here: console",
        ],
    );
}

#[test]
fn a_broken_line_hides_what_follows_from_it_and_nothing_else() {
    check(
        "name = \nverify = 2",
        &[
            "s.toml:1: string values must be quoted, expected literal string",
            "s.toml:2: key `verify`: must be true or false, not an integer",
        ],
    );
    check(
        "name = 'n'\nname = 'm'\nserial = true",
        &["s.toml:2: duplicate key", "s.toml:3: key `serial`: must be an integer, not true or false"],
    );
    check(
        "name 'n'\n[flash\nimage = 'i'",
        &["s.toml:1: key with no value, expected `=`", "s.toml:2: unclosed table, expected `]`"],
    );
}

#[test]
fn of_many_mistakes_people_are_told_a_hundred() {
    let unknown = |count| (0..count).map(|key| format!("name{key} = 1\n")).collect::<String>();
    let check = |written: &str, last: &str| {
        let complaints = parse("s.toml", written, station).expect_err("there are mistakes");
        assert_eq!(complaints.iter().count(), 100);
        let complaints = complaints.to_string();
        assert!(complaints.ends_with(last), "{complaints}");
    };
    check(&format!("{}name = 'n'", unknown(100)), "did you mean `name`?");
    check(&format!("{}name = 'n'", unknown(101)), "did you mean `name`?\ns.toml: and more");
    // Hundreds of thousands of either, as an upload may hold them, took a minute and gigabytes.
    check(&unknown(20_000), "\ns.toml: and more");
    check(&"=\n".repeat(100_000), "\ns.toml: and more");
    let long = "x".repeat(100_000);
    check(&format!("[limits.{long}]\n{}", unknown(20_000)), "\ns.toml: and more");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let error = read(Path::new("/nowhere/s.toml"), station).unwrap_err();
    assert!(matches!(&error, SettingsError::Read { path, .. } if path == Path::new("/nowhere/s.toml")));
    assert_eq!(error.to_string(), "cannot read /nowhere/s.toml");
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(written in any::<String>()) {
        let _ = parse("s.toml", &written, station).map_err(|complaints| complaints.to_string());
    }

    #[test]
    fn no_text_that_looks_like_a_file_makes_it_panic(
        written in r#"((name|nest|flash|limits|é|"|'''|\[|\]|\{|\}|=|\.|,|1|0x|-|true|#|\n| ){0,4}){0,30}"#
    ) {
        let lines = written.lines().count().max(1) + 1;
        if let Err(complaints) = parse("s.toml", &written, station) {
            prop_assert!(complaints.iter().all(|complaint| (1..=lines).contains(&complaint.line)));
        }
    }
}
