//! Negative controls: where the truth is spoiled on purpose, the suite must see it.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::Context as _;
use factory_hil_tests::{
    judge::{Rule, Violation},
    moment::log::Edge,
};
use factory_proto::station::{ListUnitsRequest, Outcome};

use crate::{
    case,
    line::{Line, NESTS},
    plan::{Moment, Victim},
    programs,
};

/// Starts a unit, and kills the station while it is held there; says what its run is called, if it was accepted.
async fn kill_station_at(line: &mut Line, serial: &str, moment: Moment) -> anyhow::Result<Option<String>> {
    let held = line.arm(NESTS[0], moment)?;
    let (mut station, start) = (line.station()?.clone(), case::start(NESTS[0], serial));
    let starting = tokio::spawn(async move { station.start_unit(start).await });
    let held = held.await.context("somebody is held")?;
    line.kill(&[Victim::Station], NESTS[0]);
    drop(held);
    line.bury(&[Victim::Station])?;
    let run = starting.await?.ok().map(|answer| answer.into_inner().run_id);
    if let Some(run) = &run {
        line.accepted(run, serial);
    }
    Ok(run)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_held_before_a_write_has_not_written_and_who_is_held_before_a_sync_has() -> anyhow::Result<()>
{
    let folder = tempfile::tempdir()?;
    let mut line = Line::set_up(folder.path(), programs()).await?;
    for (number, edge, runs) in [(1, Edge::BeforeWrite, 0), (2, Edge::BeforeSync, 1), (3, Edge::AfterSync, 2)]
    {
        let serial = line.lay(NESTS[0], number, false)?;
        let run = kill_station_at(&mut line, &serial, Moment::Journal(1, edge)).await?;
        assert_eq!(run, None, "the run was not accepted yet");
        line.start_station().await?;
        let listed = line.station()?.list_units(ListUnitsRequest::default()).await?.into_inner();
        assert_eq!(listed.units.len(), runs, "{edge:?}");
        // Another unit comes only when this one has its result.
        for unit in listed.units {
            line.wait_until_closed(&unit.run_id).await?;
        }
    }
    Ok(())
}

/// Copies the segments of a journal; its index is made anew from them.
fn copy_segments(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("segment-") {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// Kills a station at a moment of its second unit, and lets it begin again from the journal that it had before this
/// unit, as one that resumes nothing would; the unit is made again. Gives what is wrong then.
async fn forget_what_was_open(moment: Moment) -> anyhow::Result<Vec<Violation>> {
    let folder = tempfile::tempdir()?;
    let (journal, copy) = (folder.path().join("line/journal"), folder.path().join("copy"));
    let mut line = Line::set_up(&folder.path().join("line"), programs()).await?;
    let serial = line.lay(NESTS[0], 1, false)?;
    let run = line.start(case::start(NESTS[0], &serial)).await?;
    line.wait_until_closed(&run).await?;
    line.look(NESTS[0], &serial, true)?;
    assert_eq!(line.judge(None)?, [], "nothing was spoiled yet");
    copy_segments(&journal, &copy)?;

    let serial = line.lay(NESTS[0], 2, false)?;
    kill_station_at(&mut line, &serial, moment).await?.context("the run was accepted before")?;
    fs::remove_dir_all(&journal)?;
    copy_segments(&copy, &journal)?;
    line.start_station().await?;
    let run = line.start(case::start(NESTS[0], &serial)).await?;
    // Whether the controller keeps this result is for the judge to say: its key may have been used.
    let unit = line.closed(&run).await?;
    assert_ne!(unit.outcome(), Outcome::Unspecified);
    line.look(NESTS[0], &serial, true)?;
    line.judge(None)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_station_that_resumes_nothing_is_seen() -> anyhow::Result<()> {
    // In the middle of a step; and when the certificate exists.
    for record in [4, 8] {
        let violations = forget_what_was_open(Moment::Journal(record, Edge::AfterSync)).await?;
        let rules: BTreeSet<Rule> = violations.iter().map(|violation| violation.rule).collect();
        assert!(rules.contains(&Rule::NothingLost), "{violations:#?}");
    }
    Ok(())
}
