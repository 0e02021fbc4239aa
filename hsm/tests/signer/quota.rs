//! Nothing is signed that was not ordered: the brand owner's order, its quota, and its books.

use std::{fs, process::Command};

use factory_hsm::order::WorkOrder;
use factory_proto::signer::{
    DisposeRequest, Disposition, GetOrderRequest, IssuancePlace, IssuanceState, IssueRequest,
    ListIssuancesRequest, LookupRequest, Order, signer_client::SignerClient,
};
use tonic::{Code, Status};
use tonic_types::StatusExt;
use uuid::Uuid;

use crate::{
    orders::{self, USUAL},
    request::unit,
    rig::{Rig, Server},
};

fn refused<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, text: &str) {
    let status = answer.expect_err("it should be refused");
    assert_eq!(status.code(), code, "{status}");
    assert!(status.message().contains(text), "{status}");
}

fn order(rig: &Rig, change: impl FnOnce(&mut WorkOrder)) -> String {
    let mut order = orders::generous(&rig.path(""), USUAL);
    change(&mut order);
    orders::sign(&rig.path(""), &order)
}

async fn books(server: &Server) -> Order {
    let request = GetOrderRequest { work_order: USUAL.to_owned() };
    SignerClient::new(server.connect().await).get_order(request).await.unwrap().into_inner()
}

/// All issuances of the order, in pages.
async fn listed(server: &Server, page_size: u32) -> Vec<(String, String, IssuancePlace)> {
    let (mut client, mut listed) = (SignerClient::new(server.connect().await), Vec::new());
    let mut request =
        ListIssuancesRequest { work_order: USUAL.to_owned(), page_size, page_token: String::new() };
    loop {
        let page = client.list_issuances(request.clone()).await.unwrap().into_inner();
        assert!(page_size == 0 || page.issuances.len() <= page_size as usize);
        listed.extend(
            page.issuances
                .into_iter()
                .map(|it| (it.issuance_id.clone(), it.endpoint_name.clone(), it.place())),
        );
        if page.next_page_token.is_empty() {
            return listed;
        }
        request.page_token = page.next_page_token;
    }
}

async fn dispose(server: &Server, unit: &IssueRequest, disposition: Disposition) -> Result<(), Status> {
    let request = DisposeRequest { issuance_id: unit.issuance_id.clone(), disposition: disposition.into() };
    SignerClient::new(server.connect().await).dispose(request).await.map(drop)
}

/// Runs `reconcile`; gives what it printed and its exit code.
fn reconcile(rig: &Rig, id: &str) -> (String, Option<i32>) {
    let done = rig.command("reconcile").arg(id).output().unwrap();
    (String::from_utf8(done.stdout).unwrap() + &String::from_utf8_lossy(&done.stderr), done.status.code())
}

#[tokio::test]
async fn an_order_from_the_brand_owners_own_tool_is_followed() {
    let rig = Rig::commissioned();
    let openssl = |arguments: &[&str]| {
        let done = Command::new("openssl").args(arguments).current_dir(rig.path("")).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    let p256 = "ec_paramgen_curve:P-256";
    openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", p256, "-out", "orders.key"]);
    openssl(&["pkey", "-in", "orders.key", "-pubout", "-out", "orders.pem"]);
    let mut tool = Command::new(env!("CARGO_BIN_EXE_factory-signerd"));
    tool.arg("sign-order").arg("--key").arg(rig.path("orders.key")).arg("--ca").arg(rig.path("ca.pem"));
    tool.args(["--order", USUAL, "--product", "sensor", "--recipe-digest", &"d1".repeat(32)]);
    tool.args(["--quantity", "1", "--spare", "1", "--replacements", "1"]);
    let signed = tool.output().unwrap();
    assert!(signed.status.success(), "{}", String::from_utf8_lossy(&signed.stderr));
    let signed = String::from_utf8(signed.stdout).unwrap();

    let server = rig.serve();
    let opened = server.open_signed(signed.trim()).await.unwrap();
    assert_eq!((opened.quantity, opened.spare, opened.replacements), (1, 1, 1));
    assert_eq!(opened.not_after - opened.not_before, 90 * 24 * 3600);
    server.ask(unit("one")).await.unwrap();
    server.ask(unit("two")).await.unwrap();
    let refusal = server.ask(unit("three")).await.unwrap_err();
    assert_eq!(refusal.get_details_error_info().unwrap().reason, "QUOTA_USED_UP");
    refused::<()>(Err(refusal), Code::ResourceExhausted, "WO-1 is used up: 2 units were counted");
}

#[tokio::test]
async fn what_was_not_ordered_is_not_signed() {
    let rig = Rig::commissioned();
    let server = rig.serve();
    refused(server.ask(unit("one")).await, Code::FailedPrecondition, "work_order WO-1 is not open");

    let signed = order(&rig, |_| ());
    let altered = format!("{}A{}", &signed[..100], &signed[101..]);
    refused(server.open_signed(&altered).await, Code::InvalidArgument, "signed_order ");
    let elsewhere = order(&rig, |order| order.authority = [7; 32]);
    refused(server.open_signed(&elsewhere).await, Code::FailedPrecondition, "a CA that does not issue here");
    server.open_signed(&signed).await.unwrap();
    // The same order, signed once more, has another signature; another order by its id is refused.
    server.open_signed(&order(&rig, |_| ())).await.unwrap();
    let less = order(&rig, |order| order.quantity -= 1);
    refused(server.open_signed(&less).await, Code::AlreadyExists, "WO-1 is open with other terms");

    let other_recipe = IssueRequest { recipe_digest: vec![2; 32], ..unit("one") };
    refused(server.ask(other_recipe).await, Code::FailedPrecondition, "recipe_digest is not that");
    let no_recipe = IssueRequest { recipe_digest: Vec::new(), ..unit("one") };
    refused(server.ask(no_recipe).await, Code::InvalidArgument, "recipe_digest is 0 bytes long");
    assert_eq!(books(&server).await.units_counted, 0);
}

#[tokio::test]
async fn an_order_has_its_time() {
    let rig = Rig::commissioned();
    let server = rig.serve();
    let in_order = |id: &str| IssueRequest { work_order: id.to_owned(), ..unit("one") };
    let early = order(&rig, |order| {
        (order.order, order.not_before) = ("WO-early".parse().unwrap(), 4_102_444_800);
    });
    server.open_signed(&early).await.unwrap();
    let text = "WO-early begins at 2100-01-01T00:00:00Z, and it is 20";
    refused(server.ask(in_order("WO-early")).await, Code::FailedPrecondition, text);
    let late = order(&rig, |order| {
        (order.order, order.not_after) = ("WO-late".parse().unwrap(), 1_000_000_000);
    });
    server.open_signed(&late).await.unwrap();
    let text = "WO-late ended at 2001-09-09T01:46:40Z, and it is 20";
    refused(server.ask(in_order("WO-late")).await, Code::FailedPrecondition, text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_who_ask_at_once_as_many_are_served_as_were_ordered() {
    let rig = Rig::commissioned();
    let server = rig.serve();
    server.open_signed(&order(&rig, |order| order.quantity = 10)).await.unwrap();
    let channel = server.connect().await;
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..40 {
        let mut client = SignerClient::new(channel.clone());
        calls.spawn(async move { client.issue(unit(&format!("sensor-{number}"))).await });
    }
    let (signed, others): (Vec<_>, Vec<_>) = calls.join_all().await.into_iter().partition(Result::is_ok);
    assert_eq!(signed.len(), 10);
    for other in others {
        refused(other, Code::ResourceExhausted, "is used up");
    }
    server.kill();
    let server = rig.serve();
    refused(server.ask(unit("late")).await, Code::ResourceExhausted, "is used up");
    assert_eq!((books(&server).await.units_counted, books(&server).await.open), (10, 10));
}

#[tokio::test]
async fn the_books_of_an_order_add_up_and_name_who_is_missing() {
    let rig = Rig::commissioned();
    let server = rig.serve();
    server.open(USUAL).await;
    let [shipped, scrapped, aside, dead, open] = ["a", "b", "c", "d", "e"].map(unit);
    for unit in [&shipped, &scrapped, &aside, &dead, &open] {
        server.ask(unit.clone()).await.unwrap();
    }
    let anew = IssueRequest { supersedes: dead.issuance_id.clone(), ..unit("d") };
    server.ask(anew.clone()).await.unwrap();
    for (unit, disposition) in [
        (&shipped, Disposition::Shipped),
        (&scrapped, Disposition::Scrapped),
        (&aside, Disposition::Quarantined),
        (&anew, Disposition::Shipped),
        (&anew, Disposition::Shipped),
    ] {
        dispose(&server, unit, disposition).await.unwrap();
    }
    refused(
        dispose(&server, &scrapped, Disposition::Shipped).await,
        Code::FailedPrecondition,
        "issuance_id is void, and its unit cannot be shipped any more",
    );
    refused(
        dispose(&server, &dead, Disposition::Shipped).await,
        Code::FailedPrecondition,
        "issuance_id is void",
    );
    refused(
        dispose(&server, &unit("x"), Disposition::Shipped).await,
        Code::FailedPrecondition,
        "has no cert",
    );
    refused(dispose(&server, &open, Disposition::Unspecified).await, Code::InvalidArgument, "disposition is");
    let request = LookupRequest { issuance_id: scrapped.issuance_id.clone() };
    let looked_up = SignerClient::new(server.connect().await).lookup(request).await.unwrap().into_inner();
    assert_eq!(looked_up.state(), IssuanceState::Void);

    // While the signer serves.
    let (text, code) = reconcile(&rig, USUAL);
    let expected = format!(
        "WO-1 (sensor): 6 issued = 2 shipped + 1 scrapped + 1 quarantined + 1 superseded + 1 open\n\
         5 of 1000000 units counted (1000000 ordered, 0 spare); 1 of 10000 replacements counted\n\
         open: e, issuance {}\nquarantined: c, issuance {}\n",
        open.issuance_id, aside.issuance_id
    );
    assert_eq!((text, code), (expected, Some(1)));
    let told = books(&server).await;
    assert_eq!((told.shipped, told.scrapped, told.quarantined, told.superseded, told.open), (2, 1, 1, 1, 1));
    let expected = [
        (&shipped, IssuancePlace::Shipped),
        (&scrapped, IssuancePlace::Scrapped),
        (&aside, IssuancePlace::Quarantined),
        (&dead, IssuancePlace::Superseded),
        (&open, IssuancePlace::Open),
        (&anew, IssuancePlace::Shipped),
    ];
    let expected =
        expected.map(|(unit, place)| (unit.issuance_id.clone(), unit.endpoint_name.clone(), place));
    for size in [1, 2, 3, 6, 0] {
        assert_eq!(listed(&server, size).await, expected, "in pages of {size}");
    }

    dispose(&server, &open, Disposition::Shipped).await.unwrap();
    server.kill();
    assert_eq!(reconcile(&rig, USUAL).1, Some(0));
    let (text, code) = reconcile(&rig, "WO-2");
    assert!(text.contains("work_order WO-2 is not open") && code == Some(1), "{text}");
}

#[tokio::test]
async fn an_order_whose_key_is_taken_out_is_not_followed_until_it_is_signed_anew() {
    let rig = Rig::commissioned();
    let server = rig.serve();
    server.open(USUAL).await;
    let first = unit("one");
    let answer = server.ask(first.clone()).await.unwrap();
    server.kill();
    orders::make_keys(&rig.path(""));
    let server = rig.serve();
    // What was issued stays issued.
    assert_eq!(server.ask(first).await.unwrap(), answer);
    refused(
        server.ask(unit("two")).await,
        Code::FailedPrecondition,
        "not one of the signer's `order-keys` any",
    );
    server.open(USUAL).await;
    server.ask(unit("two")).await.unwrap();
}

#[test]
fn a_file_that_holds_no_order_key_is_told() {
    let check = |content: &str, sentence: &str| {
        let rig = Rig::commissioned();
        fs::write(rig.path("orders.pem"), content).unwrap();
        let (text, code) = rig.serve_in_vain();
        assert!(text.contains(sentence) && code == Some(78), "{code:?} {text}");
    };
    check("", "orders.pem holds no P-256 public key in PEM: write it with `openssl pkey -in KEY -pubout`");
    let certificate = fs::read_to_string(Rig::commissioned().path("ca.pem")).unwrap();
    check(&certificate, "holds no P-256 public key in PEM");
}

#[tokio::test]
async fn the_books_are_only_for_those_whose_order_it_is() {
    let rig = Rig::commissioned();
    let uid = nix::unistd::getuid();
    rig.configure(
        "[subject]",
        &format!("[[peer]]\nname = \"here\"\nuid = {uid}\norders = [\"WO-1*\"]\n[subject]"),
    );
    let server = rig.serve();
    let mut client = SignerClient::new(server.connect().await);
    let request = GetOrderRequest { work_order: "WO-2".to_owned() };
    refused(client.get_order(request).await, Code::PermissionDenied, "is none of this station's");
    let request = GetOrderRequest { work_order: "WO-1".to_owned() };
    refused(client.get_order(request).await, Code::NotFound, "WO-1 is not open");
    let list = |order: &str, page_size, token: &str| ListIssuancesRequest {
        work_order: order.to_owned(),
        page_size,
        page_token: token.to_owned(),
    };
    for (request, code, text) in [
        (list("WO-2", 0, ""), Code::PermissionDenied, "is none of this station's"),
        (list("WO-1", 0, ""), Code::NotFound, "WO-1 is not open"),
        (list("WO 1", 0, ""), Code::InvalidArgument, "work_order "),
        (list("WO-1", 1001, ""), Code::InvalidArgument, "page_size is 1001"),
        (list("WO-1", 0, "-1"), Code::InvalidArgument, "page_token is not"),
    ] {
        refused(client.list_issuances(request).await, code, text);
    }
    let elsewhere = orders::sign(&rig.path(""), &orders::generous(&rig.path(""), "WO-2"));
    refused(server.open_signed(&elsewhere).await, Code::PermissionDenied, "is none of this station's");
    let unknown = LookupRequest { issuance_id: Uuid::now_v7().to_string() };
    assert_eq!(client.lookup(unknown).await.unwrap().into_inner().state(), IssuanceState::Unknown);
}
