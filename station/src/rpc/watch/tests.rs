use std::time::{Duration, SystemTime};

use factory_fixtures::instrument::Progress;
use factory_journal::Options;
use factory_proto::{outcome::Outcome, station::watch_events_response::Event as Told};
use proptest::prelude::*;
use tokio::time::timeout;
use tonic::Code;
use tonic_types::StatusExt as _;
use uuid::Uuid;

use super::*;
use crate::{
    events::What,
    record::{
        ChipSeen, Findings, HeadSigned, OrderOpened, ReportRefused, RunClosed, StepPassed, StepStarted,
        UnitReleased,
    },
    step::Step,
};

/// A station's journal and who is told of it.
struct Place {
    journal: Arc<Journal<Record>>,
    events: Events,
    units: Units,
}

impl Place {
    fn open(dir: &std::path::Path) -> Self {
        let journal = Arc::new(Journal::open(dir, Options::default()).unwrap());
        let (events, units) = (Events::new(journal.clone()), Units::new(journal.clone()));
        Self { journal, events, units }
    }

    fn watch(&self, after: impl Into<Option<u64>>, filter: Filter) -> Result<Watcher, Status> {
        let wanted = Wanted { after: after.into().map(Sequence::from), filter };
        Watcher::new(&self.journal, &self.events, &self.units, wanted)
    }

    async fn append(&self, record: Record) -> u64 {
        self.journal.append(record).await.unwrap().get()
    }

    fn all(&self) -> Vec<u64> {
        self.journal.read(Sequence::START).map(|entry| entry.unwrap().sequence.get()).collect()
    }
}

fn run(number: u8) -> RunOpened {
    RunOpened {
        run: RunId::of_command(Uuid::from_u128(number.into())),
        order: Some(format!("WO-{}", number % 2).parse().unwrap()),
        serial: format!("SN{number}").parse().unwrap(),
        nest: format!("N{}", number % 3).parse().unwrap(),
        ..RunOpened::made_up()
    }
}

fn closed(number: u8) -> Record {
    Record::RunClosed(Box::new(RunClosed {
        opened: run(number),
        ended: SystemTime::UNIX_EPOCH,
        outcome: Outcome::Pass,
        stopped: None,
        findings: Findings::default(),
        quarantine: None,
    }))
}

fn order(number: u8) -> Record {
    Record::OrderOpened(OrderOpened {
        order: run(number).order.unwrap(),
        recipe: "sensor".parse().unwrap(),
        recipe_digest: [0; 32],
        quantity: 9,
        units: None,
        quota: None,
    })
}

/// Any record, whether or not a station would write it there.
fn record(kind: u8, number: u8) -> Record {
    let (run_id, serial) = (run(number).run, run(number).serial);
    match kind % 9 {
        0 => Record::RunOpened(run(number)),
        1 => Record::StepStarted(StepStarted { run: run_id, step: Step::Flash }),
        2 => Record::StepPassed(Box::new(StepPassed {
            run: run_id,
            step: Step::Flash,
            findings: Findings::default(),
        })),
        3 => closed(number),
        4 => order(number),
        5 => Record::ChipSeen(ChipSeen { run: run_id, chip: vec![number] }),
        6 => Record::ReportRefused(ReportRefused { sequence: 1, run: Some(run_id), reason: String::new() }),
        7 => Record::HeadSigned(HeadSigned { statement: vec![], signature: vec![], certificates: vec![] }),
        _ => Record::UnitReleased(UnitReleased {
            command: Uuid::nil(),
            serial,
            reason: String::new(),
            reworked: false,
        }),
    }
}

/// What happens between a station and its watcher.
#[derive(Debug, Clone)]
enum Happens {
    Appended(u8, u8),
    /// The journal writes one of its own records.
    Acknowledged,
    Progress(u8),
    /// The watcher takes so many events, or as many as there are.
    Taken(u8),
    /// The line is lost, with whatever was under way.
    Lost,
    Restarted,
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        6 => (any::<u8>(), 0..6_u8).prop_map(|(kind, number)| Happens::Appended(kind, number)),
        1 => Just(Happens::Acknowledged),
        3 => (0..6_u8).prop_map(Happens::Progress),
        4 => (1..8_u8).prop_map(Happens::Taken),
        2 => Just(Happens::Lost),
        1 => Just(Happens::Restarted),
    ]
}

/// What one watcher was told over all its connections.
#[derive(Default)]
struct Story {
    durable: Vec<u64>,
    last: u64,
}

impl Story {
    fn learn(&mut self, told: &WatchEventsResponse) {
        match told.sequence {
            Some(sequence) => {
                assert_eq!(told.last_sequence, sequence);
                self.durable.push(sequence);
            }
            None => assert!(matches!(told.event, Some(Told::Progress(_)))),
        }
        assert!(told.last_sequence >= self.last, "{} after {}", told.last_sequence, self.last);
        self.last = told.last_sequence;
    }

    /// Takes so many of what is there, and waits for no more.
    async fn take(&mut self, watcher: &mut Watcher, newest: u64, mut most: u8) {
        while most > 0 && (self.last < newest || watcher.live.waits_for().is_some()) {
            let told = timeout(Duration::from_secs(60), watcher.next_told()).await.expect("there is more");
            self.learn(&told.unwrap().unwrap());
            most -= 1;
        }
    }
}

async fn tells_the_journal(script: &[Happens]) {
    let dir = tempfile::tempdir().unwrap();
    let mut place = Place::open(dir.path());
    let mut story = Story::default();
    let mut watcher = place.watch(0, Filter::default()).unwrap();
    for happens in script {
        match happens {
            Happens::Appended(kind, number) => drop(place.append(record(*kind, *number)).await),
            Happens::Acknowledged => {
                place.journal.advance("controller", place.journal.last()).await.unwrap();
            }
            Happens::Progress(number) => {
                let progress = Progress { phase: "program".to_owned(), done: 1, total: 2 };
                place.events.tell(&run(*number), What::Progress(Step::Flash, progress));
            }
            Happens::Taken(most) => {
                let newest = place.all().last().copied().unwrap_or_default();
                story.take(&mut watcher, newest, *most).await;
            }
            Happens::Lost => watcher = place.watch(story.last, Filter::default()).unwrap(),
            Happens::Restarted => {
                drop((watcher, place));
                place = Place::open(dir.path());
                watcher = place.watch(story.last, Filter::default()).unwrap();
            }
        }
    }
    // At the end all is told, and then that it ends.
    place.events.close();
    while let Some(told) = watcher.next_told().await.unwrap() {
        story.learn(&told);
    }
    assert_eq!(story.durable, place.all());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn over_any_reconnections_a_watcher_is_told_the_journal_once_and_in_order(
        script in prop::collection::vec(happens(), 1..40)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(tells_the_journal(&script));
    }
}

#[tokio::test]
async fn what_is_not_durable_is_told_behind_the_record_behind_which_it_happened() {
    let dir = tempfile::tempdir().unwrap();
    let place = Place::open(dir.path());
    let mut watcher = place.watch(0, Filter::default()).unwrap();
    let progress =
        |done| What::Progress(Step::Flash, Progress { phase: "program".to_owned(), done, total: 9 });
    place.append(Record::RunOpened(run(1))).await;
    place.append(Record::StepStarted(StepStarted { run: run(1).run, step: Step::Flash })).await;
    place.events.tell(&run(1), progress(1));
    // It never waits for the journal's own records.
    place.journal.advance("controller", 1.into()).await.unwrap();
    place.append(Record::RunOpened(run(2))).await;
    place.events.tell(&run(1), progress(2));
    place.events.tell_nest(&run(2).nest, true);
    place.append(Record::StepStarted(StepStarted { run: run(2).run, step: Step::Flash })).await;

    let mut told = Vec::new();
    for _ in 0..6 {
        let event = watcher.next_told().await.unwrap().unwrap();
        let what = match event.event.unwrap() {
            Told::Progress(progress) => format!("progress {}", progress.done_bytes),
            Told::NestState(state) => format!("busy {}", state.busy),
            _ => format!("record {}", event.sequence.unwrap()),
        };
        told.push(format!("{what} in {} of {} at {}", event.nest, event.work_order, event.last_sequence));
    }
    let wanted = [
        "record 1 in N1 of WO-1 at 1",
        "record 2 in N1 of WO-1 at 2",
        "record 4 in N2 of WO-0 at 4",
        "progress 2 in N1 of WO-1 at 4",
        "busy true in N2 of  at 4",
        "record 5 in N2 of WO-0 at 5",
    ];
    assert_eq!(told, wanted);
}

#[tokio::test]
async fn a_watcher_is_told_only_what_it_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let place = Place::open(dir.path());
    for number in 0..3 {
        place.append(order(number)).await;
        place.append(Record::RunOpened(run(number))).await;
    }
    for number in 0..3 {
        place.append(Record::StepStarted(StepStarted { run: run(number).run, step: Step::Flash })).await;
        place.append(closed(number)).await;
        place.append(record(8, number)).await;
    }
    place.append(record(7, 0)).await;
    place.events.close();
    let check = async |after: u64, filter: Filter, wanted: &[u64]| {
        let mut watcher = place.watch(after, filter.clone()).unwrap();
        let mut told = Vec::new();
        while let Some(event) = watcher.next_told().await.unwrap() {
            told.push(event.sequence.unwrap());
        }
        assert_eq!(told, wanted, "{filter:?} after {after}");
    };
    let nest = |name: &str| Filter { nests: [name.parse().unwrap()].into(), ..Filter::default() };
    let of_order = |name: &str| Filter { order: Some(name.parse().unwrap()), ..Filter::default() };
    let kind = |kind| Filter { kinds: [kind].into(), ..Filter::default() };
    check(0, Filter::default(), &(1..=16).collect::<Vec<_>>()).await;
    check(0, nest("N1"), &[4, 10, 11]).await;
    // What a record does not say itself is looked up when the stream begins behind it.
    check(6, nest("N1"), &[10, 11]).await;
    check(6, of_order("WO-1"), &[10, 11, 12]).await;
    check(0, of_order("WO-1"), &[3, 4, 10, 11, 12]).await;
    check(0, kind(EventKind::Run), &[2, 4, 6, 8, 11, 14]).await;
    check(0, kind(EventKind::Log), &[16]).await;
    check(0, Filter { kinds: [EventKind::Unit].into(), ..of_order("WO-0") }, &[9, 15]).await;
    check(16, Filter::default(), &[]).await;
}

#[tokio::test]
async fn what_was_archived_is_told_and_what_was_taken_away_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { segment_size: 4096, ..Options::default() };
    let journal = Arc::new(Journal::open(dir.path(), options).unwrap());
    let (events, units) = (Events::new(journal.clone()), Units::new(journal.clone()));
    let place = Place { journal, events, units };
    for number in 0..200 {
        place.append(record(number, number % 6)).await;
    }
    assert!(place.journal.compact(&[]).unwrap().segments > 2);
    place.events.close();
    let mut watcher = place.watch(0, Filter::default()).unwrap();
    let mut told = Vec::new();
    while let Some(event) = watcher.next_told().await.unwrap() {
        told.extend(event.sequence);
    }
    assert_eq!(told, place.all());

    let archive = dir.path().join("archive");
    let first = std::fs::read_dir(&archive).unwrap().map(|file| file.unwrap().path()).min().unwrap();
    std::fs::remove_file(first).unwrap();
    let mut watcher = place.watch(0, Filter::default()).unwrap();
    let status = refused(watcher.next_told().await.unwrap_err());
    assert_eq!(status.code(), Code::DataLoss, "{status}");
    let mut watcher = place.watch(180, Filter::default()).unwrap();
    assert_eq!(watcher.next_told().await.unwrap().unwrap().sequence, Some(181));
}

#[tokio::test]
async fn who_asks_for_what_is_not_there_yet_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let place = Place::open(dir.path());
    place.append(order(1)).await;
    let refused = place.watch(2, Filter::default()).err().unwrap();
    assert_eq!(refused.code(), Code::OutOfRange);
    let details = refused.get_error_details();
    let info = details.error_info().unwrap();
    assert_eq!((info.reason.as_str(), info.metadata["last_sequence"].as_str()), ("SEQUENCE_BEYOND_LOG", "1"));
    let watchers: Vec<Watcher> =
        std::iter::from_fn(|| place.watch(None, Filter::default()).ok()).take(1000).collect();
    assert_eq!(watchers.len(), events::MOST_WATCHERS);
    let refused = place.watch(None, Filter::default()).err().unwrap();
    assert_eq!(refused.code(), Code::ResourceExhausted);
}
