//! All cases on several lines at once, and the table of what came of them.

use std::{
    collections::{BTreeMap, VecDeque},
    env, fs,
    ops::RangeInclusive,
    path::Path,
    str::FromStr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, ensure};
use tokio::runtime::Handle;

use crate::{
    case::{Done, Ending, NeverCame, carry_out},
    line::Line,
    plan::{Case, FIRST_RANDOM, Victim},
    programs, score,
};

/// Behind the matrix.
const RANDOM_CASES: u32 = 60;
/// As few as may be.
const KILLS: u32 = 300;
/// So many runs of ten must go on to PASS when it was the station that was killed.
const RESUMED_OF_TEN: u32 = 9;
/// At most one case in so many may go by without its moment.
const MISSED_OF: u32 = 25;
/// A line mostly waits for its device.
const LINES: u32 = 3;
/// Numbers of units that no case has.
const OUTSIDE: u32 = 900_000;

struct Settings {
    seed: u64,
    only: Option<RangeInclusive<u32>>,
    random_cases: u32,
    lines: u32,
}

/// What the lines share.
struct Work {
    settings: Settings,
    plan: Mutex<VecDeque<Case>>,
    kills: AtomicU32,
    told: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    done: BTreeMap<&'static [Victim], BTreeMap<Ending, u32>>,
    kills: BTreeMap<&'static [Victim], u32>,
    reasons: BTreeMap<String, u32>,
    wrong: Vec<String>,
    longest: Duration,
    cases: u32,
    /// Cases whose moment never came.
    missed: u32,
}

fn setting<T: FromStr>(name: &str) -> anyhow::Result<Option<T>> {
    let Ok(text) = env::var(name) else { return Ok(None) };
    text.parse().map(Some).ok().with_context(|| format!("{name}={text} is no number"))
}

/// `4` or `4-9`.
fn range(text: &str) -> anyhow::Result<RangeInclusive<u32>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| text.parse().ok().with_context(|| format!("CRASH_CASE={text} is no number"));
    Ok(number(first)?..=number(last)?)
}

impl Settings {
    fn read() -> anyhow::Result<Self> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
        Ok(Self {
            seed: setting("CRASH_SEED")?.unwrap_or(now),
            only: env::var("CRASH_CASE").ok().map(|text| range(&text)).transpose()?,
            random_cases: setting("CRASH_RANDOM_CASES")?.unwrap_or(RANDOM_CASES),
            lines: setting("CRASH_LINES")?.unwrap_or(LINES),
        })
    }

    /// So many that those which are asked for are among them.
    fn random_cases(&self) -> u32 {
        let last = self.only.as_ref().map_or(0, |only| (only.end() + 1).saturating_sub(FIRST_RANDOM));
        self.random_cases.max(last)
    }
}

/// Carries the plan out, and says everything that went wrong.
pub fn run() -> anyhow::Result<()> {
    let begun = Instant::now();
    let settings = Settings::read()?;
    println!("CRASH_SEED={}", settings.seed);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let folder = tempfile::tempdir()?;
    let mut first = runtime.block_on(Line::set_up(&folder.path().join("0"), programs()))?;
    let score = runtime.block_on(score::score(&mut first, OUTSIDE))?;
    score.show();
    drop(first);

    let mut plan = score.plan(settings.seed, settings.random_cases());
    if let Some(only) = &settings.only {
        plan.retain(|case| only.contains(&case.number));
    }
    let work =
        Work { plan: Mutex::new(plan.into()), kills: AtomicU32::new(0), told: Mutex::default(), settings };
    let results: Vec<anyhow::Result<()>> = thread::scope(|scope| {
        let start = |number| {
            let (work, folder, handle) =
                (&work, folder.path().join(format!("line-{number}")), runtime.handle());
            // What a rig starts dies with the thread that started it.
            scope.spawn(move || work.on_a_line(&folder, handle))
        };
        let lines: Vec<_> = (1..=work.settings.lines).map(start).collect();
        lines.into_iter().map(|line| line.join().expect("a line does not panic")).collect()
    });
    let (whole, kills) = (work.settings.only.is_none(), work.kills.into_inner());
    let told = work.told.into_inner().unwrap_or_else(PoisonError::into_inner);
    told.show(kills, begun.elapsed());
    if !told.wrong.is_empty() || results.iter().any(Result::is_err) {
        println!("everything lies in {}", folder.keep().display());
    }
    for result in results {
        result?;
    }
    ensure!(told.wrong.is_empty(), "{}", told.wrong.join("\n"));
    if whole {
        ensure!(kills >= KILLS, "only {kills} processes were killed");
        let (cases, missed) = (told.cases, told.missed);
        ensure!(missed * MISSED_OF <= cases, "in {missed} cases the moment never came, {cases} were tested");
        told.check_resumed()?;
    }
    Ok(())
}

impl Work {
    /// Takes case after case.
    fn on_a_line(&self, folder: &Path, runtime: &Handle) -> anyhow::Result<()> {
        let mut line = runtime.block_on(Line::set_up(folder, programs()))?;
        while let Some(case) = self.take() {
            match runtime.block_on(carry_out(&mut line, &case)) {
                Ok(done) => self.tell(&case, done),
                Err(error) if error.is::<NeverCame>() => {
                    println!("{case}: {error}");
                    self.told.lock().unwrap_or_else(PoisonError::into_inner).missed += 1;
                    let other = folder.with_extension(case.number.to_string());
                    line = runtime.block_on(Line::set_up(&other, programs()))?;
                }
                Err(error) => {
                    let log = fs::read_to_string(folder.join("station.log")).unwrap_or_default();
                    let last: Vec<&str> = log.lines().rev().take(6).collect();
                    self.wrong(&case, format!("{error:#}\n    {}", last.join("\n    ")));
                    // Nobody knows how it was left.
                    let other = folder.with_extension(case.number.to_string());
                    line = runtime.block_on(Line::set_up(&other, programs()))?;
                }
            }
        }
        for violation in line.judge(None)? {
            let sentence = violation.to_string();
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            // Most were seen when it happened.
            if !told.wrong.iter().any(|known| known.contains(&sentence)) {
                told.wrong.push(format!("at the end of {}: {sentence}", folder.display()));
            }
        }
        Ok(())
    }

    fn take(&self) -> Option<Case> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    fn wrong(&self, case: &Case, what: String) {
        let told = format!(
            "{case}: {what}\n    again: CRASH_SEED={} CRASH_CASE={}",
            self.settings.seed, case.number
        );
        println!("WRONG {told}");
        self.told.lock().unwrap_or_else(PoisonError::into_inner).wrong.push(told);
    }

    fn tell(&self, case: &Case, done: Done) {
        self.kills.fetch_add(done.kills, Ordering::Relaxed);
        for violation in &done.violations {
            self.wrong(case, violation.to_string());
        }
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.cases += 1;
        *told.kills.entry(case.victims).or_default() += done.kills;
        told.longest = told.longest.max(done.elapsed);
        for (ending, reason) in done.endings {
            *told.done.entry(case.victims).or_default().entry(ending).or_default() += 1;
            if ending != Ending::Passed {
                let reason = reason.replace(&done.folder, "…");
                *told.reasons.entry(format!("{ending:?} {reason}")).or_default() += 1;
            }
        }
    }
}

impl Told {
    /// A station that is killed while all others live goes on, nearly always; nobody looks at a device that is dead.
    fn check_resumed(&self) -> anyhow::Result<()> {
        for (victims, endings) in &self.done {
            if !victims.contains(&Victim::Station) || victims.contains(&Victim::Device) {
                continue;
            }
            let (all, passed) =
                (endings.values().sum::<u32>(), endings.get(&Ending::Passed).copied().unwrap_or(0));
            ensure!(
                passed * 10 >= all * RESUMED_OF_TEN,
                "{victims:?} killed: only {passed} of {all} runs went on to PASS"
            );
        }
        Ok(())
    }

    fn show(&self, kills: u32, elapsed: Duration) {
        println!("{:26} kills  passed  failed, then passed  set aside", "killed");
        for (victims, endings) in &self.done {
            let count = |ending| endings.get(&ending).copied().unwrap_or_default();
            println!(
                "{:26} {:5}  {:6}  {:19}  {:9}",
                format!("{victims:?}"),
                self.kills.get(victims).copied().unwrap_or_default(),
                count(Ending::Passed),
                count(Ending::Failed),
                count(Ending::Quarantined)
            );
        }
        for (reason, count) in &self.reasons {
            println!("{count:4} {reason}");
        }
        println!(
            "{kills} processes killed in {} cases, {:.0} s; the longest took {:.1} s; {} without their moment; {} wrong",
            self.cases,
            elapsed.as_secs_f64(),
            self.longest.as_secs_f64(),
            self.missed,
            self.wrong.len()
        );
    }
}
