//! The side that calls the station: opens the order, lays a board into each free nest, starts it, goes on
//! with the next.

use std::{
    collections::{BTreeMap, VecDeque},
    fs,
    time::Duration,
};

use anyhow::Context as _;
use factory_proto::station::{
    AttestRegistrationRequest, DisposeUnitRequest, Disposition, GetUnitRequest, OpenWorkOrderRequest,
    Outcome, StartUnitRequest, Unit, WatchEventsRequest, WatchEventsResponse, station_client::StationClient,
    watch_events_response::Event,
};
use sha2::{Digest, Sha256};
use tonic::{Status, transport::Channel};
use uuid::Uuid;

use crate::{
    control,
    reader::{self, Dump, Placement, ntag},
    rig::{RECIPE, Rig},
    target::{self, Board, Faults, Pace},
};

/// A board with its tag, as it comes from the assembly line.
#[derive(Debug, Clone)]
pub struct Assembly {
    /// The board's serial number.
    pub serial: String,
    /// Makes its chip's id and its tag's UID.
    pub number: u32,
    /// What is wrong with the board.
    pub faults: Faults,
    /// Whether somebody locked its tag.
    pub tag_locked: bool,
    /// Its chip is a light one, and takes this long for things.
    pub pace: Option<Pace>,
}

impl Assembly {
    /// A sound board.
    pub fn sound(number: u32) -> Self {
        Self {
            serial: format!("SN{number:04}"),
            number,
            faults: Faults::default(),
            tag_locked: false,
            pace: None,
        }
    }

    /// A board whose device misbehaves: a scenario, TOML, as `sim-device --help` tells it.
    pub fn misbehaving(rig: &Rig, number: u32, scenario: &str) -> anyhow::Result<Self> {
        let mut board = Self::sound(number);
        let file = rig.folder.join(format!("scenario-{}.toml", board.serial));
        fs::write(&file, scenario)?;
        board.faults.device_args = vec!["--scenario".to_owned(), file.display().to_string()];
        Ok(board)
    }

    fn tag(&self) -> Placement {
        Placement {
            kind: ntag::Kind::Ntag213,
            uid: format!("04A1{:08X}80", self.number),
            locked: self.tag_locked,
            faults: ntag::TagFaults::default(),
        }
    }
}

/// Makes all boards of a work order; `show` is told of everything that the station does.
pub async fn make(
    rig: &Rig,
    order: &str,
    boards: Vec<Assembly>,
    mut show: impl FnMut(&WatchEventsResponse),
) -> anyhow::Result<()> {
    let mut station = rig.connect().await?;
    open(rig, &mut station, order, u32::try_from(boards.len())?).await?;

    let mut waiting: VecDeque<Assembly> = boards.into();
    let mut in_nest: BTreeMap<String, String> = BTreeMap::new();
    // Begins with the state of each nest, so the free ones are filled first.
    let mut events = station.watch_events(WatchEventsRequest::default()).await?.into_inner();
    loop {
        let event = events.message().await?.context("the station ended the stream of events")?;
        show(&event);
        let Some(Event::NestState(state)) = &event.event else { continue };
        if state.busy || !state.parked.is_empty() {
            continue;
        }
        if let Some(serial) = in_nest.remove(&event.nest) {
            take_out(rig, &event.nest, &serial)?;
        }
        if let Some(board) = waiting.pop_front() {
            lay(rig, &event.nest, &board)?;
            start(&mut station, order, &event.nest, &board.serial).await?;
            in_nest.insert(event.nest, board.serial);
        } else if in_nest.is_empty() {
            return Ok(());
        }
    }
}

/// The account that the rig's devices are claimed in.
pub const ACCOUNT: &str = "0123456789abcdef0123456789abcdef";

/// Says that the rig's CA is registered, as who has uploaded it would.
pub async fn attest(rig: &Rig, station: &mut StationClient<Channel>) -> anyhow::Result<()> {
    let ca = fs::read(rig.ca_certificate())?;
    let (_, ca) = x509_parser::pem::parse_x509_pem(&ca)?;
    let request = AttestRegistrationRequest {
        command_id: Uuid::now_v7().to_string(),
        ca_fingerprint: Sha256::digest(&ca.contents).to_vec(),
        account_id: ACCOUNT.to_owned(),
        registered: true,
        statement: "uploaded by the rig".to_owned(),
    };
    station.attest_registration(request).await?;
    Ok(())
}

/// Opens a work order for the rig's recipe; the brand owner has signed it, and its CA is registered.
pub async fn open(
    rig: &Rig,
    station: &mut StationClient<Channel>,
    order: &str,
    quantity: u32,
) -> anyhow::Result<()> {
    attest(rig, station).await?;
    station.open_work_order(opening(rig, order, quantity)?).await?;
    Ok(())
}

/// A new command to open a work order for the rig's recipe, as the brand owner has signed it.
pub fn opening(rig: &Rig, order: &str, quantity: u32) -> anyhow::Result<OpenWorkOrderRequest> {
    Ok(OpenWorkOrderRequest {
        command_id: Uuid::now_v7().to_string(),
        work_order: order.to_owned(),
        recipe: RECIPE.to_owned(),
        quantity,
        signed_order: rig.sign_order(order, quantity)?,
        ..OpenWorkOrderRequest::default()
    })
}

/// What the operator's hands do: the board into the nest, its tag onto the reader.
pub fn lay(rig: &Rig, nest: &str, board: &Assembly) -> anyhow::Result<()> {
    let folder = rig.nest(nest);
    target::Client::new(&folder).load(Board {
        serial: board.serial.clone(),
        board_id: board.number,
        faults: board.faults.clone(),
        pace: board.pace,
    })?;
    let tag = reader::Request::Place(board.tag());
    control::call::<_, Option<Dump>>(&folder.join("tag/control.sock"), &tag)?;
    Ok(())
}

/// Takes the unit out, and keeps a dump of its tag.
pub fn take_out(rig: &Rig, nest: &str, serial: &str) -> anyhow::Result<()> {
    let folder = rig.nest(nest);
    let control = folder.join("tag/control.sock");
    let dump: Option<Dump> = control::call(&control, &reader::Request::Dump)?;
    fs::create_dir_all(rig.tags())?;
    fs::write(rig.tags().join(format!("{serial}.json")), serde_json::to_vec_pretty(&dump)?)?;
    control::call::<_, Option<Dump>>(&control, &reader::Request::Remove)?;
    target::Client::new(&folder).unload()?;
    Ok(())
}

/// How long a nest's simulators were at work since this was asked last.
pub fn work(rig: &Rig, nest: &str) -> anyhow::Result<Duration> {
    let folder = rig.nest(nest);
    let reader: Duration = control::call(&folder.join("tag/control.sock"), &reader::Request::Work)?;
    Ok(target::Client::new(&folder).work()? + reader)
}

/// Makes one unit in one nest, and gives its result.
pub async fn make_one(
    rig: &Rig,
    station: &mut StationClient<Channel>,
    order: &str,
    nest: &str,
    board: &Assembly,
) -> anyhow::Result<Unit> {
    let mut events = station.watch_events(WatchEventsRequest::default()).await?.into_inner();
    lay(rig, nest, board)?;
    let run_id = start(station, order, nest, &board.serial).await?;
    loop {
        let event = events.message().await?.context("the station ended the stream of events")?;
        if event.nest == nest
            && matches!(&event.event, Some(Event::NestState(state)) if !state.busy)
            && event.run_id.is_empty()
        {
            // The first of these may be older than the run.
            let answer = station.get_unit(GetUnitRequest { run_id: run_id.clone() }).await?.into_inner();
            let unit = answer.unit.context("the station answered without a unit")?;
            if unit.outcome() != Outcome::Unspecified {
                take_out(rig, nest, &board.serial)?;
                return Ok(unit);
            }
        }
    }
}

/// Starts the unit that lies in a nest, and gives its run's id.
pub async fn start(
    station: &mut StationClient<Channel>,
    order: &str,
    nest: &str,
    serial: &str,
) -> anyhow::Result<String> {
    let start = StartUnitRequest {
        command_id: Uuid::now_v7().to_string(),
        work_order: order.to_owned(),
        serial: serial.to_owned(),
        nest: nest.to_owned(),
        ..StartUnitRequest::default()
    };
    Ok(station.start_unit(start).await?.into_inner().run_id)
}

/// Says what became of a unit.
pub async fn dispose(
    station: &mut StationClient<Channel>,
    serial: &str,
    disposition: Disposition,
) -> Result<(), Status> {
    let request = DisposeUnitRequest {
        command_id: Uuid::now_v7().to_string(),
        serial: serial.to_owned(),
        disposition: disposition.into(),
    };
    station.dispose_unit(request).await.map(drop)
}

/// Waits for a run's result.
pub async fn result(station: &mut StationClient<Channel>, run: &str) -> anyhow::Result<Unit> {
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
