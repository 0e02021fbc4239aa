//! The reference controller's store, in a SQLite file and in PostgreSQL alike: whatever is sent, however often, to
//! whichever of its replicas, it keeps once, and what it acknowledged it has.

use std::{
    collections::BTreeMap, net::SocketAddr, ops::RangeInclusive, path::Path, process::Command, time::Duration,
};

use anyhow::{Context as _, ensure};
use factory_hil_tests::{
    cluster::Cluster,
    mes::{
        process::ControllerProcess,
        store::{Batch, Kept, Place, ResultRow, Store},
    },
};
use factory_proto::{
    head::HeadStatement,
    station::{
        Identity, Measurement, Outcome, ReportResultsRequest, ReportResultsResponse, SignedHead, Unit,
        line_controller_client::LineControllerClient, report_results_request::Report,
    },
};
use factory_station::provenance::signed::read_head;
use tempfile::TempDir;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

#[path = "controller/tls.rs"]
mod tls;

// Ten times what it takes.
const PATIENCE: Duration = Duration::from_secs(60);
const WINDOW: u64 = 32;

fn programs() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_reference-controller")).parent().expect("a program lies in a folder")
}

/// A database of the test's own.
struct Ground {
    store: String,
    folder: TempDir,
    _cluster: Option<Cluster>,
}

impl Ground {
    fn sqlite() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let store = format!("sqlite:{}", folder.path().join("results.db").display());
        Ok(Self { store, folder, _cluster: None })
    }

    fn postgres() -> anyhow::Result<Self> {
        // The controller is killed here, not the power.
        let cluster = Cluster::start(false)?;
        Ok(Self { store: cluster.address(), folder: tempfile::tempdir()?, _cluster: Some(cluster) })
    }

    fn controller(&self) -> anyhow::Result<ControllerProcess> {
        ControllerProcess::start(programs(), "127.0.0.1:0".parse()?, &self.store)
    }

    /// What is kept of each station, in the order in which it was kept.
    fn kept(&self) -> anyhow::Result<BTreeMap<String, Vec<(u64, Unit)>>> {
        let mut kept = BTreeMap::<_, Vec<_>>::new();
        Store::open(self.store.parse()?)?.results(|result| {
            kept.entry(result.station).or_default().push((result.sequence, result.unit));
            Ok(())
        })?;
        Ok(kept)
    }

    /// Exactly these of each station, in order, as they were sent.
    fn has(&self, stations: &[&str], sequences: RangeInclusive<u64>) -> anyhow::Result<()> {
        let kept = self.kept()?;
        assert_eq!(kept.keys().collect::<Vec<_>>(), stations);
        for (station, results) in kept {
            let expected: Vec<_> =
                sequences.clone().map(|sequence| (sequence, unit(&station, sequence))).collect();
            assert!(
                results == expected,
                "{station} has {:?}",
                results.iter().map(|(s, _)| s).collect::<Vec<_>>()
            );
        }
        Ok(())
    }

    /// What the program prints.
    fn print(&self, arguments: &[&str]) -> anyhow::Result<(bool, String)> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_reference-controller"));
        let output = command.args(arguments).args(["--store", &self.store]).output()?;
        let fine = output.status.success();
        Ok((fine, String::from_utf8(if fine { output.stdout } else { output.stderr })?))
    }
}

/// A call of a station, with its window.
struct Call {
    reports: mpsc::Sender<ReportResultsRequest>,
    answers: Streaming<ReportResultsResponse>,
}

impl Call {
    /// Calls a controller with a first report.
    async fn begin(controller: SocketAddr, first: ReportResultsRequest) -> anyhow::Result<Self> {
        let mut client = LineControllerClient::connect(format!("http://{controller}")).await?;
        let (reports, sending) = mpsc::channel(WINDOW as usize);
        reports.send(first).await?;
        let answers = client.report_results(ReceiverStream::new(sending)).await?.into_inner();
        Ok(Self { reports, answers })
    }

    async fn answer(&mut self) -> anyhow::Result<ReportResultsResponse> {
        let answer =
            timeout(PATIENCE, self.answers.message()).await.context("the controller says nothing")?;
        answer?.context("the controller ended the call")
    }

    /// Waits until this report is acknowledged; gives what was refused until then.
    async fn acknowledged(&mut self, sequence: u64) -> anyhow::Result<Vec<(u64, String)>> {
        let mut refused = Vec::new();
        loop {
            let answer = self.answer().await?;
            refused.extend(answer.refused.into_iter().map(|refused| (refused.sequence, refused.reason)));
            if answer.acknowledged_sequence >= sequence {
                return Ok(refused);
            }
        }
    }
}

/// Sends results as a station does, and counts what is acknowledged; fails when the controller goes.
async fn send(
    controller: SocketAddr,
    station: &str,
    sequences: RangeInclusive<u64>,
    acknowledged: &watch::Sender<u64>,
) -> anyhow::Result<()> {
    let (first, last) = (*sequences.start(), *sequences.end());
    let mut call = Call::begin(controller, result(station, first)).await?;
    let mut sent = first;
    let mut known = first - 1;
    while known < last {
        while sent < last && sent - known < WINDOW {
            sent += 1;
            call.reports.send(result(station, sent)).await?;
        }
        known = call.answer().await?.acknowledged_sequence;
        acknowledged.send_replace(known);
    }
    Ok(())
}

fn report(station: &str, sequence: u64, report: Option<Report>) -> ReportResultsRequest {
    ReportResultsRequest { station: station.to_owned(), sequence, report }
}

fn result(station: &str, sequence: u64) -> ReportResultsRequest {
    report(station, sequence, Some(Report::Unit(unit(station, sequence))))
}

/// The result under a key; each time the same one.
fn unit(station: &str, sequence: u64) -> Unit {
    let measurement = |name: &str, value| Measurement {
        name: name.to_owned(),
        value,
        unit: "mV".to_owned(),
        lower_limit: 3135,
        upper_limit: 3465,
        within_limits: true,
    };
    Unit {
        run_id: format!("{station}-run-{sequence}"),
        work_order: "WO-1".to_owned(),
        serial: format!("{station}-SN{sequence:04}"),
        nest: "A".to_owned(),
        started: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 250_000_000 }),
        ended: Some(prost_types::Timestamp { seconds: 1_700_000_010, nanos: 0 }),
        outcome: Outcome::Pass.into(),
        measurements: vec![measurement("rail-3v3", 3301), measurement("vbat", 3290)],
        identity: Some(Identity { endpoint_name: format!("sensor-{sequence}"), ..Identity::default() }),
        recipe_digest: vec![7; 32],
        golden: sequence % 2 == 1,
        // What a device says is anything.
        reason: "said \0 and \u{1F600}".to_owned(),
        ..Unit::default()
    }
}

fn head(station: &str, sequence: u64) -> SignedHead {
    let statement =
        HeadStatement::new(station.to_owned(), [1; 16], (1, sequence), [2; 32], [3; 32], sequence, 9);
    SignedHead { statement: statement.encode(), signature: vec![4; 70], certificates: vec![vec![5; 500]] }
}

/// The same test over both stores.
macro_rules! on_both {
    ($($name:ident)*) => {
        mod sqlite {
            $(#[tokio::test]
            async fn $name() -> anyhow::Result<()> {
                super::$name(super::Ground::sqlite()?).await
            })*
        }
        mod postgres {
            $(#[tokio::test]
            async fn $name() -> anyhow::Result<()> {
                super::$name(super::Ground::postgres()?).await
            })*
        }
    };
}

on_both! {
    what_comes_again_changes_nothing
    what_is_kept_is_counted_also_when_nobody_waits_any_more
    replicas_that_get_the_same_reports_at_once_keep_each_once
    a_controller_killed_amid_a_batch_has_what_it_acknowledged_and_nothing_twice
    what_can_never_be_kept_is_refused_by_name_and_the_rest_is_kept
    heads_are_kept_and_come_out_as_files
    what_an_integrator_asks_for_is_in_columns
    tables_of_a_later_version_are_left_alone
}

async fn what_comes_again_changes_nothing(ground: Ground) -> anyhow::Result<()> {
    let acknowledged = watch::Sender::new(0);
    let controller = ground.controller()?;
    for sequences in [1..=50, 20..=100, 1..=100] {
        for station in ["line-1", "line-2"] {
            send(controller.address, station, sequences.clone(), &acknowledged).await?;
        }
    }
    ground.has(&["line-1", "line-2"], 1..=100)?;
    // Nor does it help to start anew.
    controller.kill();
    let controller = ground.controller()?;
    send(controller.address, "line-1", 1..=100, &acknowledged).await?;
    ground.has(&["line-1", "line-2"], 1..=100)
}

async fn what_is_kept_is_counted_also_when_nobody_waits_any_more(ground: Ground) -> anyhow::Result<()> {
    let store = Store::open(ground.store.parse()?)?;
    let results = vec![ResultRow::new("line-1", 1, unit("line-1", 1))?];
    let (counted, count) = std::sync::mpsc::channel();
    let tell = move |kept: &Kept| drop(counted.send(kept.clone()));
    tokio::select! {
        biased;
        _ = store.keep(Batch { results, ..Batch::default() }, tell) => {}
        () = std::future::ready(()) => {}
    }
    assert_eq!(count.recv_timeout(PATIENCE)?, Kept { results: 1, ..Kept::default() });
    Ok(())
}

async fn replicas_that_get_the_same_reports_at_once_keep_each_once(ground: Ground) -> anyhow::Result<()> {
    const STATIONS: [&str; 4] = ["line-1", "line-2", "line-3", "line-4"];
    // Who comes first makes the tables.
    let place: Place = ground.store.parse()?;
    std::thread::scope(|scope| {
        let opening = [0; 4].map(|_| scope.spawn(|| Store::open(place.clone()).map(drop)));
        opening.into_iter().try_for_each(|opened| opened.join().expect("no panic"))
    })?;
    let replicas = [ground.controller()?, ground.controller()?];
    let mut calls = JoinSet::new();
    for controller in replicas.iter().map(|replica| replica.address) {
        for station in STATIONS {
            calls.spawn(async move { send(controller, station, 1..=300, &watch::Sender::new(0)).await });
        }
    }
    while let Some(sent) = calls.join_next().await {
        sent??;
    }
    ground.has(&STATIONS, 1..=300)
}

async fn a_controller_killed_amid_a_batch_has_what_it_acknowledged_and_nothing_twice(
    ground: Ground,
) -> anyhow::Result<()> {
    const LAST: u64 = 2_000;
    let mut next = 1;
    // At other moments each time: after so many acknowledgements.
    for lives in [40, 333, 600] {
        let controller = ground.controller()?;
        let acknowledged = watch::Sender::new(next - 1);
        let mut known = acknowledged.subscribe();
        let sending = send(controller.address, "line-1", next..=LAST, &acknowledged);
        tokio::select! {
            sent = sending => sent?,
            enough = known.wait_for(|known| *known >= lives) => drop(enough?),
        }
        let acknowledged = *acknowledged.borrow();
        ensure!((lives..LAST).contains(&acknowledged), "it was to be killed in the middle: {acknowledged}");
        controller.kill();

        let kept: Vec<u64> = ground.kept()?["line-1"].iter().map(|(sequence, _)| *sequence).collect();
        let known = kept.len() as u64;
        assert_eq!(kept, (1..=known).collect::<Vec<_>>(), "each once, in order, without a gap");
        assert!((acknowledged..=acknowledged + WINDOW).contains(&known), "{acknowledged} of {known}");
        next = acknowledged + 1;
    }
    let controller = ground.controller()?;
    send(controller.address, "line-1", next..=LAST, &watch::Sender::new(0)).await?;
    ground.has(&["line-1"], 1..=LAST)
}

async fn what_can_never_be_kept_is_refused_by_name_and_the_rest_is_kept(
    ground: Ground,
) -> anyhow::Result<()> {
    let controller = ground.controller()?;
    let of = |unit| Some(Report::Unit(unit));
    let odd = [
        (report("line-1", 2, None), "no known report"),
        (report("no name", 3, of(unit("line-1", 3))), "the name of the station holds ' '"),
        (
            report("line-1", 4, of(Unit { serial: "9".repeat(5_000), ..unit("line-1", 4) })),
            "its serial is 5000 bytes long",
        ),
        (report("line-1", 1, of(unit("line-1", 9))), "another report has this number"),
        (report("line-1", u64::MAX, of(unit("line-1", 5))), "report 18446744073709551615 is larger"),
        (report("line-1", 6, Some(Report::Head(SignedHead::default()))), "the head's statement"),
    ];
    let mut call = Call::begin(controller.address, result("line-1", 1)).await?;
    call.acknowledged(1).await?;
    for (report, reason) in odd {
        let sequence = report.sequence;
        call.reports.send(report).await?;
        let refused = call.acknowledged(sequence).await?;
        let [(number, said)] = &refused[..] else { panic!("{reason}: {refused:?}") };
        assert!(*number == sequence && said.starts_with(reason), "{number} {said}");
    }
    call.reports.send(result("line-1", 2)).await?;
    assert_eq!(call.acknowledged(2).await?, []);
    ground.has(&["line-1"], 1..=2)
}

async fn heads_are_kept_and_come_out_as_files(ground: Ground) -> anyhow::Result<()> {
    let controller = ground.controller()?;
    for _ in 0..2 {
        let of = |sequence| report("line-1", sequence, Some(Report::Head(head("line-1", sequence))));
        let mut call = Call::begin(controller.address, of(9)).await?;
        call.reports.send(of(11)).await?;
        assert_eq!(call.acknowledged(11).await?, []);
        // A log that was put back says something else of the same record.
        let mut other = head("line-1", 11);
        other.statement = head("line-1", 10).statement;
        call.reports.send(report("line-1", 11, Some(Report::Head(other)))).await?;
        assert_eq!(call.acknowledged(11).await?.len(), 1);
    }
    let folder = ground.folder.path().join("heads");
    let (fine, said) = ground.print(&["heads", "--folder", &folder.display().to_string()])?;
    assert!(fine && said.starts_with("2 heads in "), "{said}");
    let newest = read_head(&folder.join(format!("line-1-{:020}.json", 11)))?;
    assert_eq!(newest.statement.to_vec(), head("line-1", 11).statement);
    Ok(())
}

async fn what_an_integrator_asks_for_is_in_columns(ground: Ground) -> anyhow::Result<()> {
    const QUERY: &str = "SELECT r.station || '|' || r.sequence || '|' || r.serial || '|' || r.outcome || '|' || \
        r.reason || '|' || r.endpoint_name || '|' || m.name || '|' || m.value || '|' || coalesce(r.tag_uid, '-') || '|' || \
        CASE WHEN r.golden THEN 'golden' ELSE 'product' END \
        FROM results r JOIN measurements m ON m.station = r.station AND m.sequence = r.sequence \
        WHERE r.recipe_sha256 LIKE '0707%' AND r.started < r.ended ORDER BY m.position";
    let acknowledged = watch::Sender::new(0);
    let controller = ground.controller()?;
    send(controller.address, "line-1", 1..=1, &acknowledged).await?;
    let rows: Vec<String> = match ground.store.parse()? {
        Place::Sqlite(file) => {
            let connection = rusqlite::Connection::open(file)?;
            let mut statement = connection.prepare(QUERY)?;
            let rows = statement.query_map([], |row| row.get(0))?;
            rows.collect::<Result<_, _>>()?
        }
        Place::Postgres(config) => std::thread::spawn(move || {
            let mut client = config.connect(::postgres::NoTls)?;
            client.query(QUERY, &[])?.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()
        })
        .join()
        .expect("no panic")?,
    };
    let common = "line-1|1|line-1-SN0001|PASS|said \u{fffd} and \u{1F600}|sensor-1";
    assert_eq!(rows, [format!("{common}|rail-3v3|3301|-|golden"), format!("{common}|vbat|3290|-|golden")]);

    let (fine, table) = ground.print(&["export", "--format", "csv"])?;
    let lines: Vec<&str> = table.lines().collect();
    assert!(fine && lines[0].starts_with("station,sequence,run,work_order,serial"), "{table}");
    assert!(lines[1].starts_with("line-1,1,line-1-run-1,WO-1,line-1-SN0001,A,PASS,"), "{table}");
    assert!(lines[0].ends_with(",golden") && lines[1].ends_with(",true"), "{table}");
    let (fine, text) = ground.print(&["export"])?;
    let object: serde_json::Value = serde_json::from_str(&text)?;
    assert!(fine && object["measurements"][1]["value"] == 3290, "{text}");
    Ok(())
}

async fn tables_of_a_later_version_are_left_alone(ground: Ground) -> anyhow::Result<()> {
    ground.controller()?.kill();
    match ground.store.parse()? {
        Place::Sqlite(file) => {
            rusqlite::Connection::open(file)?.pragma_update(None, "user_version", 99)?;
        }
        Place::Postgres(config) => std::thread::spawn(move || {
            config.connect(::postgres::NoTls)?.batch_execute("INSERT INTO schema_version VALUES (99)")
        })
        .join()
        .expect("no panic")?,
    }
    let (fine, said) = ground.print(&["export"])?;
    assert!(!fine && said.contains("of version 99, and this program knows 2: use a later program"), "{said}");
    Ok(())
}

#[tokio::test]
async fn a_database_that_is_away_ends_the_call_and_is_used_again_when_it_is_back() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut cluster = Cluster::start(false)?;
    let ground = Ground { store: cluster.address(), folder, _cluster: None };
    let controller = ground.controller()?;
    let acknowledged = watch::Sender::new(0);
    send(controller.address, "line-1", 1..=10, &acknowledged).await?;

    cluster.stop()?;
    let mut call = Call::begin(controller.address, result("line-1", 11)).await?;
    let error = call.answer().await.expect_err("nobody can keep it");
    let status = error.downcast::<Status>()?;
    assert_eq!(status.code(), Code::Unavailable, "{status}");

    cluster.run()?;
    send(controller.address, "line-1", 11..=20, &acknowledged).await?;
    ground.has(&["line-1"], 1..=20)
}

#[test]
fn an_address_is_refused_for_a_reason() {
    for (address, reason) in [
        ("results.db", "a store is sqlite:FILE or postgres://"),
        ("sqlite:", "needs a file"),
        ("postgres://mes:secret@localhost/results", "--password-file"),
        ("postgres://mes@db.example/results", "across a network"),
    ] {
        let error = address.parse::<Place>().expect_err(address);
        assert!(format!("{error:#}").contains(reason), "{address}: {error:#}");
    }
}
