//! The whole table of rights, held against the API's descriptors and against each role.

use std::collections::BTreeSet;

use factory_station::{
    role::{Role, Roles},
    rpc::{
        access::{Kind, RIGHTS, Right, method},
        refusal::DOMAIN,
    },
};
use prost_types::FileDescriptorSet;
use tonic::{Code, Status, transport::Channel};
use tonic_types::StatusExt;

use crate::{
    daemon::{Daemon, ENGINEER, ROLES, folder},
    pki::Pki,
    raw::call,
};

fn methods(set: &FileDescriptorSet, service: &str) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    for file in &set.file {
        for found in
            file.service.iter().filter(|found| format!("{}.{}", file.package(), found.name()) == service)
        {
            paths.extend(found.method.iter().map(|method| format!("/{service}/{}", method.name())));
        }
    }
    paths
}

#[test]
fn the_table_holds_each_method_that_is_served_once_and_no_other() {
    let decode = |bytes| <FileDescriptorSet as prost::Message>::decode(bytes).unwrap();
    let mut served = methods(&factory_proto::descriptors(), "factory.station.v1.Station");
    served.extend(methods(&decode(tonic_health::pb::FILE_DESCRIPTOR_SET), "grpc.health.v1.Health"));
    let reflection = decode(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET);
    served.extend(methods(&reflection, "grpc.reflection.v1.ServerReflection"));
    let listed: Vec<String> = RIGHTS.iter().map(|right| right.path.to_owned()).collect();
    assert_eq!(listed.iter().cloned().collect::<BTreeSet<_>>(), served);
    assert_eq!(listed.len(), served.len(), "a method has two rows");
}

#[test]
fn the_table_says_what_each_role_is_there_for() {
    // Of what changes something; all look.
    const OPERATORS: [&str; 9] = [
        "StartUnit",
        "StartGoldenUnit",
        "AbortUnit",
        "AttestRegistration",
        "LoadOfflineBudget",
        "ParkNest",
        "ClearNest",
        "IdentifyNest",
        "EnableNest",
    ];
    for right in RIGHTS {
        let looks = matches!(right.kind, Kind::Looks | Kind::Streams);
        let method = method(right.path);
        let may = |role| match role {
            Role::Engineer => true,
            Role::Mes => method != "ReleaseUnit",
            Role::Operator => OPERATORS.contains(&method) || (looks && method != "ListAuditRecords"),
            Role::Viewer => looks,
        };
        let expected: Roles = Role::ALL.into_iter().filter(|role| may(*role)).collect();
        assert_eq!(right.roles, expected, "{method}");
        let reads =
            ["Get", "List", "Watch", "Describe", "Reconcile", "RunPreflight", "Check", "ServerReflection"];
        assert_eq!(looks, reads.iter().any(|word| method.starts_with(word)), "{method}");
    }
}

/// What README says: the calls of each row of its table, as it names them, and the roles that may.
fn readme() -> Vec<(Vec<String>, Roles)> {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
    let mut lines = readme.lines().skip_while(|line| !line.starts_with("| call | "));
    let cells = |line: &str| -> Vec<String> {
        line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    let columns: Vec<Role> = cells(lines.next().expect("README has the table"))[1..]
        .iter()
        .map(|name| Role::ALL.into_iter().find(|role| role.as_str() == name).expect("a role"))
        .collect();
    let row = |line: &str| {
        let cells = cells(line);
        let (calls, ticks) = cells.split_first().unwrap();
        assert_eq!(ticks.len(), columns.len(), "{line}");
        let may = columns.iter().zip(ticks).filter(|(_, tick)| match tick.as_str() {
            "✓" => true,
            "" => false,
            other => panic!("{other:?} is neither a tick nor nothing"),
        });
        let roles = may.map(|(role, _)| *role).collect();
        (calls.split(", ").map(str::to_owned).collect(), roles)
    };
    lines.skip(1).take_while(|line| line.starts_with('|')).map(row).collect()
}

#[test]
fn readme_has_the_same_table() {
    let readme = readme();
    let mut unused: BTreeSet<&str> = readme.iter().flat_map(|(calls, _)| calls).map(String::as_str).collect();
    assert_eq!(
        unused.len(),
        readme.iter().map(|(calls, _)| calls.len()).sum::<usize>(),
        "a call is named twice"
    );
    for right in RIGHTS {
        let service = match right.path.split('/').nth(1) {
            Some("grpc.health.v1.Health") => "health",
            Some("grpc.reflection.v1.ServerReflection") => "reflection",
            _ => method(right.path),
        };
        // A name stands before a beginning, as in Get….
        let named = |call: &&String| *call == service;
        let begun = |call: &&String| call.strip_suffix('…').is_some_and(|start| service.starts_with(start));
        let find = |is: &dyn Fn(&&String) -> bool| {
            readme.iter().find_map(|(calls, roles)| Some((calls.iter().find(|call| is(call))?, *roles)))
        };
        let (call, roles) = find(&named)
            .or_else(|| find(&begun))
            .unwrap_or_else(|| panic!("README's table does not say who may call {service}"));
        unused.remove(call.as_str());
        assert_eq!(roles, right.roles, "README's table is wrong about {service}");
    }
    assert!(unused.is_empty(), "README's table names what is not served: {unused:?}");
}

/// When to call again, if that is all that is wrong.
fn too_often(status: &Status) -> Option<std::time::Duration> {
    let info = status.get_details_retry_info().filter(|_| status.code() == Code::ResourceExhausted)?;
    info.retry_delay
}

async fn check(channel: &Channel, right: &Right, caller: &str, roles: &[Role]) {
    let mut answer = call(channel, right.path, Vec::new()).await;
    // There are more methods than calls that strangers have at once.
    while let Some(wait) = answer.as_ref().err().and_then(too_often) {
        tokio::time::sleep(wait).await;
        answer = call(channel, right.path, Vec::new()).await;
    }
    let roles = Roles::of(roles);
    let what = format!("{} by {caller}: {answer:?}", right.path);
    if roles.meet(right.roles) {
        assert!(
            answer.map_or_else(|status| status.code(), |()| Code::Ok) != Code::PermissionDenied,
            "{what}"
        );
        return;
    }
    let refused = answer.expect_err(&what);
    assert_eq!(refused.code(), Code::PermissionDenied, "{what}");
    let info = refused.get_details_error_info().expect("google.rpc.ErrorInfo");
    assert_eq!((info.reason.as_str(), info.domain.as_str()), ("ROLE_MISSING", DOMAIN));
    let said = |key: &str| info.metadata[key].clone();
    assert_eq!((said("method"), said("caller")), (method(right.path).to_owned(), caller.to_owned()));
    assert_eq!((said("needed_roles"), said("caller_roles")), (right.roles.to_string(), roles.to_string()));
}

#[tokio::test]
async fn each_role_may_call_what_the_table_says_and_nothing_else() {
    let pki = Pki::new();
    let daemon = Daemon::with_tls(&pki, ROLES);
    let callers: [(&str, &str, &[Role]); 6] = [
        ("mes.example", "dns:mes.example", &[Role::Mes]),
        (ENGINEER, "uri:spiffe://example/engineer", &[Role::Engineer]),
        ("operator.example", "dns:operator.example", &[Role::Operator]),
        ("viewer.example", "dns:viewer.example", &[Role::Viewer]),
        ("both.example", "dns:both.example", &[Role::Engineer, Role::Viewer]),
        ("stranger.example", "dns:stranger.example", &[]),
    ];
    // At the same time, since a method may wait for what is not there.
    let mut checks = tokio::task::JoinSet::new();
    for (certificate, caller, roles) in callers {
        let channel = daemon.connect(&pki, certificate).await.unwrap();
        checks.spawn(async move {
            for right in RIGHTS {
                check(&channel, right, caller, roles).await;
            }
        });
    }
    while let Some(checked) = checks.join_next().await {
        checked.unwrap();
    }
}

#[tokio::test]
async fn a_method_that_is_not_in_the_table_is_refused() {
    let pki = Pki::new();
    let daemon = Daemon::with_tls(&pki, ROLES);
    let check = async |name: &str, path: &'static str, code, reason: &str| {
        let channel = daemon.connect(&pki, name).await.unwrap();
        let refused: Status = call(&channel, path, Vec::new()).await.unwrap_err();
        let said = refused.get_details_error_info().expect("google.rpc.ErrorInfo").reason;
        assert_eq!((refused.code(), said.as_str()), (code, reason), "{refused}");
    };
    check(ENGINEER, "/factory.station.v1.Station/Explode", Code::Unimplemented, "METHOD_UNKNOWN").await;
    check(ENGINEER, "/factory.signer.v1.Signer/Issue", Code::Unimplemented, "METHOD_UNKNOWN").await;
    check("stranger.example", "/factory.station.v1.Station/Explode", Code::PermissionDenied, "ROLE_MISSING")
        .await;
}

#[tokio::test]
async fn whoever_calls_on_loopback_without_tls_is_what_the_file_says() {
    let daemon =
        Daemon::start(folder("listen = \"127.0.0.1:0\"\nlisten-roles = [\"operator\", \"viewer\"]", ""));
    let channel =
        Channel::from_shared(format!("http://{}", daemon.address)).unwrap().connect().await.unwrap();
    for right in RIGHTS {
        check(&channel, right, "anybody on this host", &[Role::Operator, Role::Viewer]).await;
    }
}
