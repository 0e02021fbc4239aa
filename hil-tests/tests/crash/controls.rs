//! Negative controls: where the truth is spoiled on purpose, the suite must see it.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::Context as _;
use factory_hil_tests::{
    judge::{Rule, Violation},
    mes::temper::{Acknowledges, Temper},
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
    line.kill(&[Victim::Station], NESTS[0])?;
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

/// Gives a station that was killed an older journal.
fn roll_back(line: &mut Line, copy: &Path) -> anyhow::Result<()> {
    let journal = line.rig.folder.join("journal");
    fs::remove_dir_all(&journal)?;
    copy_segments(copy, &journal)
}

fn rules(line: &Line) -> anyhow::Result<(BTreeSet<Rule>, Vec<Violation>)> {
    let violations = line.judge(None)?;
    Ok((violations.iter().map(|violation| violation.rule).collect(), violations))
}

/// A station that resumes nothing: killed at a moment of its second unit, it goes on with the journal that it had
/// before this unit, and the unit is made again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_station_that_resumes_nothing_is_seen() -> anyhow::Result<()> {
    // In the middle of a step; and when the certificate exists.
    for record in [4, 8] {
        let folder = tempfile::tempdir()?;
        let copy = folder.path().join("copy");
        let mut line = Line::set_up(&folder.path().join("line"), programs()).await?;
        make(&mut line, 1).await?;
        assert_eq!(line.judge(None)?, [], "nothing was spoiled yet");
        copy_segments(&line.rig.folder.join("journal"), &copy)?;

        let serial = line.lay(NESTS[0], 2, false)?;
        let moment = Moment::Journal(record, Edge::AfterSync);
        kill_station_at(&mut line, &serial, moment).await?.context("the run was accepted before")?;
        roll_back(&mut line, &copy)?;
        line.start_station().await?;
        let run = line.start(case::start(NESTS[0], &serial)).await?;
        // Whether the controller keeps this result is for the judge to say: its key may have been used.
        line.closed(&run).await?;
        line.look(NESTS[0], &serial, true)?;
        let (rules, violations) = rules(&line)?;
        assert!(rules.contains(&Rule::NothingLost), "{violations:#?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pass_that_was_shown_and_is_gone_after_a_crash_is_seen() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let copy = folder.path().join("copy");
    let mut line = Line::without_controller(&folder.path().join("line"), programs()).await?;
    copy_segments(&line.rig.folder.join("journal"), &copy)?;
    let serial = line.lay(NESTS[0], 1, false)?;
    let run = line.start(case::start(NESTS[0], &serial)).await?;
    assert_eq!(line.closed(&run).await?.outcome(), Outcome::Pass);
    line.look(NESTS[0], &serial, true)?;
    line.take_out(NESTS[0], &serial)?;

    line.kill(&[Victim::Station], NESTS[0])?;
    line.bury(&[Victim::Station])?;
    roll_back(&mut line, &copy)?;
    line.serve_controller();
    line.start_station().await?;
    // When the next unit's result is there, this one would have been.
    make(&mut line, 2).await?;
    let (rules, violations) = rules(&line)?;
    assert!(rules.is_superset(&BTreeSet::from([Rule::ShownIsDurable, Rule::NothingLost])), "{violations:#?}");
    Ok(())
}

/// Makes a unit that passes.
async fn make(line: &mut Line, number: u32) -> anyhow::Result<()> {
    let serial = line.lay(NESTS[0], number, false)?;
    let run = line.start(case::start(NESTS[0], &serial)).await?;
    let unit = line.wait_until_closed(&run).await?;
    assert_eq!(unit.outcome(), Outcome::Pass, "{}", unit.reason);
    line.look(NESTS[0], &serial, true)?;
    line.take_out(NESTS[0], &serial)
}

/// The station is killed before it hears that the controller has a result, and so sends it again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_that_ignores_the_key_has_a_result_twice_and_is_seen() -> anyhow::Result<()> {
    for (ignores_keys, expected) in [(false, None), (true, Some(Rule::NothingDoubled))] {
        let folder = tempfile::tempdir()?;
        let mut line = Line::set_up(folder.path(), programs()).await?;
        let silent = Acknowledges::Never;
        line.controller.behave(Temper { ignores_keys, acknowledges: silent, ..Temper::default() });
        make(&mut line, 1).await?;
        line.kill(&[Victim::Station], NESTS[0])?;
        line.bury(&[Victim::Station])?;
        line.controller.behave(Temper { ignores_keys, ..Temper::default() });
        line.start_station().await?;
        make(&mut line, 2).await?;
        let (rules, violations) = rules(&line)?;
        assert!(line.controller.count().received > 2, "it was sent again");
        assert_eq!(rules.contains(&Rule::NothingDoubled), expected.is_some(), "{violations:#?}");
        assert_eq!(rules.is_empty(), expected.is_none(), "{violations:#?}");
    }
    Ok(())
}
