//! Malformed, oversized, unauthorised and repeated calls by the thousand, made from the API's own descriptors.

use std::{collections::HashMap, fmt::Debug};

use factory_station::rpc::access::{Kind, LARGE, RIGHTS, Right};
use prost_types::{
    DescriptorProto, FieldDescriptorProto,
    field_descriptor_proto::{Label, Type},
};
use tokio::task::JoinSet;
use tonic::{Code, transport::Channel};

use crate::{
    daemon::{Daemon, ENGINEER, ROLES},
    pki::Pki,
    raw::call,
};

/// Messages of each method, from each of three callers.
const MESSAGES: usize = 250;
/// Calls under way at a time, so that the log is written for many at once.
const AT_A_TIME: usize = 16;
/// What the daemon may grow by: its log's index and the runtime's buffers, not the calls.
const GROWTH: u64 = 24 * 1024;

/// Numbers that are the same each time (xorshift64*, Vigna 2016).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(high).unwrap() % sides
    }

    fn one<'a, T: Debug>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.roll(of.len())]
    }
}

/// The messages of the API by their full names.
type Messages = HashMap<String, DescriptorProto>;

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap());
}

fn field(messages: &Messages, field: &FieldDescriptorProto, dice: &mut Dice, out: &mut Vec<u8>) {
    let tag = u64::try_from(field.number()).unwrap() << 3;
    let bytes = match field.r#type() {
        Type::String => {
            let long = "x".repeat(300);
            let texts = [
                "",
                "WO-1",
                "SN0001",
                "nest-1",
                "A",
                "..",
                "a/b",
                "\u{0}\u{1b}[2J",
                "ünïcode",
                "18446744073709551616",
                "018f4e2a-0000-7000-8000-000000000001",
                "{018f4e2a-0000-7000-8000-000000000001}",
                &long,
            ];
            dice.one(&texts).as_bytes().to_vec()
        }
        Type::Bytes => vec![0xff; dice.roll(2000)],
        Type::Message => message(messages, field.type_name(), dice),
        _ => {
            varint(tag, out);
            let numbers = [0, 1, 2, 1000, 1001, u64::from(u32::MAX), u64::MAX];
            return varint(*dice.one(&numbers), out);
        }
    };
    varint(tag | 2, out);
    varint(bytes.len() as u64, out);
    out.extend(bytes);
}

/// A message of this type; some fields are there, some several times.
fn message(messages: &Messages, name: &str, dice: &mut Dice) -> Vec<u8> {
    let mut out = Vec::new();
    for found in messages.get(name).map(|message| message.field.as_slice()).unwrap_or_default() {
        let most = if found.label() == Label::Repeated { 4 } else { 2 };
        // Most are there, or nothing gets further than the first field.
        let times = if dice.roll(8) == 0 { dice.roll(most + 1) } else { 1 };
        (0..times).for_each(|_| field(messages, found, dice, &mut out));
    }
    out
}

/// What somebody could make of a message on its way.
fn damage(mut message: Vec<u8>, largest: usize, dice: &mut Dice) -> Vec<u8> {
    match dice.roll(12) {
        0 => message.truncate(dice.roll(message.len() + 1)),
        1 if !message.is_empty() => {
            let at = dice.roll(message.len());
            message[at] ^= 1 << dice.roll(8);
        }
        2 => message = (0..dice.roll(200)).map(|_| u8::try_from(dice.roll(256)).unwrap()).collect(),
        3 if largest < LARGE => message.resize(largest + 1, 0x0a),
        _ => {}
    }
    message
}

fn memory(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Sends them, twice each where the caller may call, and holds each answer against what it may be.
async fn send(channel: &Channel, right: Right, messages: Vec<Vec<u8>>, allowed: bool, known: bool) {
    let largest = match right.kind {
        Kind::Changes { largest } => largest,
        // Its service bounds what all of its messages come to.
        Kind::Uploads => usize::MAX,
        Kind::Looks | Kind::Streams => 64 * 1024,
    };
    let mut under_way = JoinSet::new();
    for message in messages {
        if under_way.len() == AT_A_TIME {
            under_way.join_next().await.unwrap().unwrap();
        }
        let channel = channel.clone();
        under_way.spawn(async move {
            let size = message.len();
            let code = async |message| {
                call(&channel, right.path, message).await.map_or_else(|s| s.code(), |()| Code::Ok)
            };
            let first = code(message.clone()).await;
            let expected: &[Code] = match (allowed, known) {
                (true, _) if size > largest => &[Code::ResourceExhausted],
                // INTERNAL is what gRPC has for bytes that are no message.
                (true, _) => &[
                    Code::Ok,
                    Code::InvalidArgument,
                    Code::NotFound,
                    Code::FailedPrecondition,
                    Code::AlreadyExists,
                    Code::OutOfRange,
                    Code::Internal,
                ],
                (false, true) => &[Code::PermissionDenied],
                (false, false) => &[Code::PermissionDenied, Code::ResourceExhausted],
            };
            assert!(expected.contains(&first), "{first:?} to {size} bytes of {}: {message:02x?}", right.path);
            if allowed {
                assert_eq!(code(message.clone()).await, first, "of {} again: {message:02x?}", right.path);
            }
        });
    }
    while let Some(sent) = under_way.join_next().await {
        sent.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_calls_by_the_thousand_get_their_status_and_cost_no_memory() {
    let pki = Pki::new();
    let generous = "[limits]\ncalls = \"100000/s\"\n";
    let daemon = Daemon::with_tls(&pki, &format!("{ROLES}\n{generous}"));
    let files = factory_proto::descriptors().file;
    let messages: Messages = files
        .iter()
        .flat_map(|file| {
            let name = |message: &DescriptorProto| format!(".{}.{}", file.package(), message.name());
            // The entries of maps are messages within messages.
            let inner = file.message_type.iter().flat_map(move |outer| {
                let outer_name = name(outer);
                outer
                    .nested_type
                    .iter()
                    .map(move |inner| (format!("{outer_name}.{}", inner.name()), inner.clone()))
            });
            let outer = file.message_type.iter().map(move |message| (name(message), message.clone()));
            outer.chain(inner).collect::<Vec<_>>()
        })
        .collect();
    let requests: HashMap<String, String> = files
        .iter()
        .flat_map(|file| file.service.iter())
        .filter(|service| service.name() == "Station")
        .flat_map(|service| &service.method)
        .map(|method| {
            (format!("/factory.station.v1.Station/{}", method.name()), method.input_type().to_owned())
        })
        .collect();
    let mut dice = Dice(0x6d0d_2c4e_61a5_4f4b);
    let mut at_first = None;
    for _ in 0..2 {
        for (name, known) in [(ENGINEER, true), ("viewer.example", true), ("stranger.example", false)] {
            let channel = daemon.connect(&pki, name).await.unwrap();
            for right in RIGHTS.iter().filter(|right| requests.contains_key(right.path)) {
                let largest = if let Kind::Changes { largest } = right.kind { largest } else { 64 * 1024 };
                let made = (0..MESSAGES / 2)
                    .map(|_| damage(message(&messages, &requests[right.path], &mut dice), largest, &mut dice))
                    .collect();
                let looks = !matches!(right.kind, Kind::Changes { .. } | Kind::Uploads);
                let allowed = name == ENGINEER || (known && looks);
                send(&channel, *right, made, allowed, known).await;
            }
        }
        at_first.get_or_insert_with(|| memory(&daemon));
    }
    let (before, after) = (at_first.unwrap(), memory(&daemon));
    assert!(after < before + GROWTH, "it had {before} KiB, and has {after} KiB");
    let log = daemon.log();
    drop(daemon.stop());
    assert!(!log.contains("panicked"), "{log}");
}
