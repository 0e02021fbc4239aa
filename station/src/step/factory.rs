//! The device's factory code: started over the console, spoken with over the line that it listens on. Owns the
//! conversation from one step to the next. Knows what no message is for.

use std::{
    net::SocketAddrV4,
    time::{Duration, SystemTime},
};

use factory_fixtures::{
    console::Log,
    fcc::{
        FccError,
        link::{self, Reach},
        message::Answer,
        outline::{Item, Outline},
        session::{Exchange, Session},
    },
};
use tokio::net::TcpStream;

use crate::{
    record::{FccAnswer, FccSent, Injected},
    step::{Step, StepContext, StepError, boot, self_test},
};

// What a device may say about itself before it tells where it listens.
const LINES_BEFORE_ADDRESS: usize = 64;

/// A conversation with a device whose factory code runs.
pub(crate) struct Factory {
    session: Session,
    /// The device's own socket; none where it speaks on its console's line.
    socket: Option<TcpStream>,
}

/// Has the firmware hand over to the factory code, and finds that. `patience` is how long a message may then take.
pub(super) async fn start(ctx: &mut StepContext<'_>, patience: Duration) -> Result<(), StepError> {
    let reach = ctx.rig.reach;
    let console = ctx.console()?;
    console.send("provision").await?;
    let answer = console.line().await?;
    if answer != "fcc start" {
        return Err(StepError::Product(format!(
            "the firmware answered {answer:?}, not that its factory code starts"
        )));
    }
    let address = match reach {
        Reach::Console => None,
        Reach::Tcp(address) => Some(address),
        Reach::Printed(network) => {
            let address = printed_address(ctx).await?;
            if !network.holds(*address.ip()) {
                return Err(StepError::Product(format!(
                    "the device says that it listens at {address}, which is not in the station file's network {network}"
                )));
            }
            Some(address)
        }
    };
    let socket = match address {
        Some(address) => Some(link::connect(address, patience).await?),
        None => None,
    };
    ctx.factory = Some(Factory { session: Session::new(patience), socket });
    Ok(())
}

/// What a message may take in the steps that make an identity and hand it over: their own deadlines come first.
pub(super) fn patience(ctx: &StepContext<'_>) -> Duration {
    ctx.recipe.deadline(Step::Identity).max(ctx.recipe.deadline(Step::Provision))
}

/// Starts the device anew, up to its factory code: the only thing to do after a failure.
pub(super) async fn restart(ctx: &mut StepContext<'_>, patience: Duration) -> Result<(), StepError> {
    boot::boot(ctx).await?;
    // The firmware hands its line over only after a self-test; what this one says was judged before.
    self_test::measure(ctx).await?;
    start(ctx, patience).await
}

/// Sends one message, and keeps what was sent and what the device answers, which must be a success.
pub(super) async fn exchange(ctx: &mut StepContext<'_>, payload: &[u8]) -> Result<Answer, StepError> {
    let outline = Outline::read(payload).map_err(FccError::from)?;
    // Kept before it is sent: no answer may ever come.
    ctx.findings.fcc_answers.push(asked(&outline));
    let exchange = converse(ctx, payload).await?;
    if let Some(kept) = ctx.findings.fcc_answers.last_mut() {
        answered(kept, &exchange);
    }
    Ok(exchange.accepted()?)
}

async fn converse(ctx: &mut StepContext<'_>, payload: &[u8]) -> Result<Exchange, StepError> {
    let Factory { session, socket } =
        ctx.factory.as_mut().ok_or(StepError::Order("the start of the factory code"))?;
    let console = ctx.console.as_mut().ok_or(StepError::Order("boot"))?;
    let Some(socket) = socket else {
        let (port, log) = console.split();
        return Ok(link::exchange(session, port, payload, |text| log.keep(text)).await?);
    };
    let mut said = Log::default();
    let exchange = tokio::select! {
        exchange = link::exchange(session, socket, payload, |text| said.keep(text)) => exchange,
        never = console.listen() => match never {},
    };
    console.split().1.keep(said.as_str().as_bytes());
    Ok(exchange?)
}

async fn printed_address(ctx: &mut StepContext<'_>) -> Result<SocketAddrV4, StepError> {
    let console = ctx.console()?;
    for _ in 0..LINES_BEFORE_ADDRESS {
        if let Some(address) = link::printed_address(&console.line().await?) {
            return Ok(address);
        }
    }
    Err(StepError::Product(format!(
        "the device did not say within {LINES_BEFORE_ADDRESS} lines where its factory code listens"
    )))
}

fn asked(outline: &Outline) -> FccAnswer {
    let item = |item: &Item| Injected {
        kind: item.kind.name().to_owned(),
        name: item.name.clone(),
        digest: item.digest.map(Into::into),
    };
    let injected = outline.items.iter().map(item).collect();
    FccAnswer {
        session: outline.session.clone(),
        return_status: None,
        info: String::new(),
        warnings: Vec::new(),
        sent: Some(FccSent { at: SystemTime::now(), injected, took: None }),
    }
}

fn answered(kept: &mut FccAnswer, Exchange { answer, took, .. }: &Exchange) {
    kept.return_status = Some(answer.return_status.number());
    kept.info.clone_from(&answer.info);
    kept.warnings.clone_from(&answer.warnings);
    if let Some(sent) = &mut kept.sent {
        sent.took = Some(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }
}
