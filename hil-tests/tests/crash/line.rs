//! One line that is killed again and again: its processes, its controller, and what anybody was shown of its runs.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use factory_hil_tests::{
    judge,
    judge::{Evidence, Shown, Unit as Found, Violation, judge},
    mes::{
        controller::Controller,
        line::{self, Assembly},
    },
    moment::{
        Held,
        log::{Edge, Kind, LogWatch},
        simulator::Listener,
    },
    rig::{Rig, free_address},
};
use factory_proto::station::{
    GetUnitRequest, Outcome, StartUnitRequest, Unit, WatchEventsRequest, station_client::StationClient,
    watch_events_response::Event,
};
use nix::sys::signal::Signal;
use tokio::{sync::oneshot, task::JoinHandle, time::timeout};
use tonic::transport::{Channel, Endpoint};

use crate::{
    plan::{Moment, Victim},
    truths,
};

pub const ORDER: &str = "WO-CRASH";
pub const NESTS: [&str; 2] = ["A", "B"];
const QUANTITY: u32 = 200_000;
/// A hundred times what a run takes.
pub const PATIENCE: Duration = Duration::from_secs(60);

type ShownRuns = Arc<Mutex<Vec<(String, Shown)>>>;

/// A line, its controller, and a memory of all that was seen of it.
pub struct Line {
    pub rig: Rig,
    results: PathBuf,
    pub controller: Controller,
    address: SocketAddr,
    serving: Option<JoinHandle<anyhow::Result<()>>>,
    station: Option<StationClient<Channel>>,
    station_log: Option<LogWatch>,
    signer_log: Option<LogWatch>,
    simulators: BTreeMap<&'static str, Listener>,
    shown: ShownRuns,
    /// All runs that were accepted, with their units.
    pub runs: Vec<(String, String)>,
    /// All units that were made, as they were taken out.
    pub units: BTreeMap<String, Found>,
}

impl Line {
    /// Sets one up in an empty folder, running, with an order that takes any number of units.
    pub async fn set_up(folder: &Path, programs: &Path) -> anyhow::Result<Self> {
        let mut line = Self::without_controller(folder, programs).await?;
        line.serve_controller();
        Ok(line)
    }

    /// The same, while the controller is away.
    pub async fn without_controller(folder: &Path, programs: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(folder)?;
        let results = folder.join("results.jsonl");
        let (controller, address) = (Controller::new(&results)?, free_address()?);
        let rig = Rig::build(folder, programs, &NESTS, &format!("http://{address}"))?;
        let listen = |nest| anyhow::Ok((nest, Listener::at(&rig.moments(nest))?));
        let simulators = NESTS.into_iter().map(listen).collect::<anyhow::Result<_>>()?;
        let mut line = Self {
            rig,
            results,
            controller,
            address,
            serving: None,
            station: None,
            station_log: None,
            signer_log: None,
            simulators,
            shown: ShownRuns::default(),
            runs: Vec::new(),
            units: BTreeMap::new(),
        };
        line.start_signer()?;
        line.start_station().await?;
        let mut station = line.station()?.clone();
        line::open(&line.rig, &mut station, ORDER, QUANTITY).await?;
        Ok(line)
    }

    /// Lets the controller come.
    pub fn serve_controller(&mut self) {
        self.serving = Some(tokio::spawn(self.controller.clone().serve(self.address)));
    }

    pub fn start_signer(&mut self) -> anyhow::Result<()> {
        self.rig.start_signer()?;
        let process = self.rig.signer_process()?.pid;
        let ledger = truths::keeps_ledger(&self.rig)?;
        self.signer_log = ledger.then(|| LogWatch::of(process)).transpose().context("the signer")?;
        Ok(())
    }

    /// Starts the station, and watches what it shows until it ends.
    pub async fn start_station(&mut self) -> anyhow::Result<()> {
        self.rig.start_station()?;
        let process = self.rig.station_process()?.pid;
        let socket = format!("unix:{}", self.rig.folder.join("station.sock").display());
        let mut station = StationClient::new(Endpoint::from_shared(socket)?.connect().await?);
        let mut events = timeout(PATIENCE, station.watch_events(WatchEventsRequest::default()))
            .await
            .context("the station shows nothing of its events")??
            .into_inner();
        let shown = self.shown.clone();
        tokio::spawn(async move {
            while let Ok(Some(event)) = events.message().await {
                if let Some(Event::RunClosed(closed)) = event.event {
                    let seen = Shown { outcome: closed.outcome(), certificate: None };
                    shown.lock().unwrap_or_else(PoisonError::into_inner).push((event.run_id, seen));
                }
            }
        });
        // It has a journal once it serves.
        self.station_log = Some(LogWatch::of(process).context("the station")?);
        self.station = Some(station);
        Ok(())
    }

    pub fn station(&mut self) -> anyhow::Result<&mut StationClient<Channel>> {
        self.station.as_mut().context("the station does not run")
    }

    /// Holds somebody at this moment of what happens next in a nest.
    pub fn arm(&self, nest: &str, moment: Moment) -> anyhow::Result<oneshot::Receiver<Held>> {
        let simulator = self.simulators.get(nest).context("the nest has simulators")?;
        let log = |log: &Option<LogWatch>, kind, nth, edge: Edge| {
            log.as_ref().map(|log| log.arm(kind, nth, edge)).context("the process writes no log")
        };
        Ok(match moment {
            Moment::Journal(nth, edge) => log(&self.station_log, Kind::Program, nth, edge)?,
            Moment::Acknowledged(edge) => log(&self.station_log, Kind::Cursor, 1, edge)?,
            Moment::Ledger(nth, edge) => log(&self.signer_log, Kind::Program, nth, edge)?,
            Moment::Message(nth, what) => simulator.arm(what, nth),
            Moment::TagPage(nth) => simulator.arm(factory_hil_tests::reader::line::WRITTEN, nth),
        })
    }

    pub fn keeps_ledger(&self) -> bool {
        self.signer_log.is_some()
    }

    /// Lays a board with its tag into a nest.
    pub fn lay(&self, nest: &str, number: u32, keeps_storage: bool) -> anyhow::Result<String> {
        let mut board = Assembly::sound(number);
        let moments = self.rig.moments(nest).display().to_string();
        board.faults.device_args = vec!["--moments".to_owned(), moments];
        if keeps_storage {
            board.faults.device_args.push("--keep-storage".to_owned());
        }
        line::lay(&self.rig, nest, &board)?;
        Ok(board.serial)
    }

    /// Sends every victim in a nest that is alive a SIGKILL; says how many that were.
    pub fn kill(&mut self, victims: &[Victim], nest: &str) -> anyhow::Result<u32> {
        let mut processes = Vec::new();
        for victim in victims {
            match victim {
                Victim::Station => processes.push(self.rig.station_process()?),
                Victim::Signer => processes.push(self.rig.signer_process()?),
                Victim::Instruments => processes.extend(self.rig.instruments()?),
                Victim::Device => processes.extend(self.rig.device_program(nest)?),
            }
        }
        let killed = processes.iter().filter(|process| process.signal(Signal::SIGKILL).is_ok());
        Ok(u32::try_from(killed.count())?)
    }

    /// Buries what was killed; nobody may be held any more.
    pub fn bury(&mut self, victims: &[Victim]) -> anyhow::Result<()> {
        if victims.contains(&Victim::Station) {
            self.station = None;
            self.station_log = None;
            self.rig.kill_station()?;
        }
        if victims.contains(&Victim::Signer) {
            self.signer_log = None;
            self.rig.kill_signer()?;
        }
        Ok(())
    }

    /// Starts a unit, and remembers its run when it is accepted.
    pub async fn start(&mut self, start: StartUnitRequest) -> Result<String, tonic::Status> {
        let serial = start.serial.clone();
        let station = self.station.as_mut().ok_or_else(|| tonic::Status::unavailable("it does not run"))?;
        let run = station.start_unit(start).await?.into_inner().run_id;
        self.accepted(&run, &serial);
        Ok(run)
    }

    /// The same, as an operator does it: a nest that is parked is waited for.
    pub async fn start_when_free(&mut self, start: StartUnitRequest) -> anyhow::Result<String> {
        loop {
            self.wait_until_free(&start.nest).await?;
            match self.start(start.clone()).await {
                Ok(run) => return Ok(run),
                // It was parked between the look and the command.
                Err(refused) if refused.message().contains("is parked") => {}
                Err(refused) => bail!("the unit is not started: {}", refused.message()),
            }
        }
    }

    /// Waits until a nest takes a unit: its instruments answer, and there is none in it.
    pub async fn wait_until_free(&mut self, nest: &str) -> anyhow::Result<()> {
        let mut events = self.station()?.watch_events(WatchEventsRequest::default()).await?.into_inner();
        let free = async {
            loop {
                let event = events.message().await?.context("the station ended the stream of events")?;
                match event.event {
                    Some(Event::NestState(state))
                        if event.nest == nest && !state.busy && state.parked.is_empty() =>
                    {
                        return anyhow::Ok(());
                    }
                    _ => {}
                }
            }
        };
        timeout(PATIENCE, free).await.with_context(|| format!("nest {nest} takes no unit"))?
    }

    pub fn accepted(&mut self, run: &str, serial: &str) {
        if !self.runs.iter().any(|(known, _)| known == run) {
            self.runs.push((run.to_owned(), serial.to_owned()));
        }
    }

    /// Waits until a run has its result, here and at the controller.
    pub async fn wait_until_closed(&mut self, run: &str) -> anyhow::Result<Unit> {
        let unit = self.closed(run).await?;
        timeout(PATIENCE, self.kept(run)).await.context("the controller does not get the result")??;
        Ok(unit)
    }

    /// Waits until the station shows a run's result.
    pub async fn closed(&mut self, run: &str) -> anyhow::Result<Unit> {
        let unit =
            timeout(PATIENCE, closed(self.station()?, run)).await.context("the run does not end")??;
        let certificate =
            unit.identity.as_ref().and_then(|identity| identity.fingerprint.clone().try_into().ok());
        let seen = Shown { outcome: unit.outcome(), certificate };
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).push((run.to_owned(), seen));
        Ok(unit)
    }

    async fn kept(&self, run: &str) -> anyhow::Result<()> {
        loop {
            let results = self.controller.results();
            if results.iter().any(|unit| unit.run_id == run) {
                return Ok(());
            }
            self.controller.wait_for(results.len() + 1).await?;
        }
    }

    /// Looks at the unit in a nest as it is; `sound` when nothing is wrong with it.
    pub fn look(&mut self, nest: &str, serial: &str, sound: bool) -> anyhow::Result<()> {
        let found = truths::unit(&self.rig, nest, serial, sound)?;
        self.units.insert(serial.to_owned(), found);
        Ok(())
    }

    /// Takes the unit out.
    pub fn take_out(&self, nest: &str, serial: &str) -> anyhow::Result<()> {
        line::take_out(&self.rig, nest, serial)
    }

    /// All that must never be and is, of these units, or of all.
    pub fn judge(&self, serials: Option<&[String]>) -> anyhow::Result<Vec<Violation>> {
        let chosen = |serial: &String| serials.is_none_or(|serials| serials.contains(serial));
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let run = |(id, serial): &(String, String)| {
            let shown = shown.iter().filter(|(run, _)| run == id).map(|(_, shown)| *shown).collect();
            judge::Run { id: id.clone(), serial: serial.clone(), shown }
        };
        let runs = self.runs.iter().filter(|(_, serial)| chosen(serial)).map(run).collect();
        let units = self.units.iter().filter(|(serial, _)| chosen(serial));
        let units = units.map(|(serial, unit)| (serial.clone(), unit.clone())).collect();
        let whole = serials.is_none();
        let evidence: Evidence = truths::evidence(&self.rig, &self.results, runs, units, whole)?;
        Ok(judge(&evidence))
    }

    /// Whether nobody died who was not killed.
    pub fn check_alive(&self) -> anyhow::Result<()> {
        ensure!(!self.rig.station_process()?.has_ended_within(Duration::ZERO)?, "the station died by itself");
        ensure!(!self.rig.signer_process()?.has_ended_within(Duration::ZERO)?, "the signer died by itself");
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Some(serving) = &self.serving {
            serving.abort();
        }
    }
}

/// Waits until a run has its result.
pub async fn closed(station: &mut StationClient<Channel>, run: &str) -> anyhow::Result<Unit> {
    let mut events = station.watch_events(WatchEventsRequest::default()).await?.into_inner();
    loop {
        let answer = station.get_unit(GetUnitRequest { run_id: run.to_owned() }).await?.into_inner();
        let unit = answer.unit.context("an answer has a unit")?;
        if unit.outcome() != Outcome::Unspecified {
            return Ok(unit);
        }
        events.message().await?.context("the station ended the stream of events")?;
    }
}
