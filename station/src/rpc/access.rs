//! Who may call what: one table of all methods, and one layer that holds each call against it before anything of it is
//! decoded. A method that is not in the table is refused.

use std::{
    collections::HashMap,
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use factory_door::{allowance::Place, guest::Origin};
use factory_journal::Journal;
use factory_proto::station::ErrorReason;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, body::Body, codegen::http};
use tonic_types::{ErrorDetails, StatusExt};
use tower::{Layer, Service};

use super::{
    audit::{Audited, Auditor},
    frame::{self, FrameError},
    refusal::Refusal,
};
use crate::{
    callers::Caller,
    record::Record,
    role::{
        Role::{Engineer, Mes, Operator, Viewer},
        Roles,
    },
    unit_list,
};

/// A command without a list of units: ids, a reason, a signed order.
const SMALL: usize = 64 * 1024;
/// A command that may come with a list of an order's units.
pub const LARGE: usize = unit_list::LONGEST + SMALL;
/// Large messages that are in memory at a time.
const LARGE_AT_A_TIME: usize = 8;
const LARGE_LATER: Duration = Duration::from_secs(1);

/// One method's row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Right {
    /// Of the HTTP/2 request, as in `/factory.station.v1.Station/StartUnit`.
    pub path: &'static str,
    /// Whoever has one of these may call it.
    pub roles: Roles,
    /// What the call does.
    pub kind: Kind,
}

/// What a call does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Changes something: it is audited, and once begun it goes on when the caller hangs up.
    Changes {
        /// Bytes that its message may have.
        largest: usize,
    },
    /// Changes something by a stream of requests, which its own service bounds; audited by the first of them.
    Uploads,
    /// Looks.
    Looks,
    /// Is a stream of requests, which its own service bounds.
    Streams,
}

const ANYBODY: Roles = Roles::of(&[Mes, Engineer, Operator, Viewer]);
const LINE: Roles = Roles::of(&[Mes, Engineer, Operator]);
const PLANNING: Roles = Roles::of(&[Mes, Engineer]);
const ENGINEERING: Roles = Roles::of(&[Engineer]);
const AUDIT: Roles = Roles::of(&[Mes, Engineer, Viewer]);

macro_rules! station {
    ($method:literal) => {
        concat!("/factory.station.v1.Station/", $method)
    };
}

const fn changes(path: &'static str, roles: Roles) -> Right {
    Right { path, roles, kind: Kind::Changes { largest: SMALL } }
}

const fn takes_files(path: &'static str, roles: Roles) -> Right {
    Right { path, roles, kind: Kind::Changes { largest: LARGE } }
}

const fn looks(path: &'static str, roles: Roles) -> Right {
    Right { path, roles, kind: Kind::Looks }
}

/// Who may call what.
pub const RIGHTS: &[Right] = &[
    takes_files(station!("OpenWorkOrder"), PLANNING),
    changes(station!("StartUnit"), LINE),
    changes(station!("StartGoldenUnit"), LINE),
    changes(station!("AbortUnit"), LINE),
    changes(station!("ReleaseUnit"), ENGINEERING),
    changes(station!("DisposeUnit"), PLANNING),
    changes(station!("AttestRegistration"), LINE),
    changes(station!("LoadOfflineBudget"), LINE),
    changes(station!("PauseWorkOrder"), PLANNING),
    changes(station!("ResumeWorkOrder"), PLANNING),
    changes(station!("CloseWorkOrder"), PLANNING),
    changes(station!("ParkNest"), LINE),
    changes(station!("EnableNest"), LINE),
    changes(station!("ClearNest"), LINE),
    changes(station!("IdentifyNest"), LINE),
    Right { path: station!("UploadRecipe"), roles: PLANNING, kind: Kind::Uploads },
    changes(station!("ActivateRecipe"), PLANNING),
    changes(station!("RemoveRecipe"), PLANNING),
    looks(station!("ReconcileWorkOrder"), ANYBODY),
    looks(station!("ListRecipes"), ANYBODY),
    looks(station!("GetUnit"), ANYBODY),
    looks(station!("ListUnits"), ANYBODY),
    looks(station!("WatchEvents"), ANYBODY),
    looks(station!("DescribeStation"), ANYBODY),
    looks(station!("RunPreflight"), ANYBODY),
    looks(station!("GetYields"), ANYBODY),
    looks(station!("ListAuditRecords"), AUDIT),
    looks("/grpc.health.v1.Health/Check", ANYBODY),
    looks("/grpc.health.v1.Health/Watch", ANYBODY),
    Right {
        path: "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        roles: ANYBODY,
        kind: Kind::Streams,
    },
];

/// Holds each call against the table; behind the door's admission.
#[derive(Clone)]
pub struct AccessLayer(Arc<Access>);

struct Access {
    rights: HashMap<&'static str, Right>,
    auditor: Auditor,
    large: Arc<Semaphore>,
}

impl AccessLayer {
    /// Keeps what changes something in this journal.
    pub fn new(journal: Arc<Journal<Record>>) -> Self {
        Self(Arc::new(Access {
            rights: RIGHTS.iter().map(|right| (right.path, *right)).collect(),
            auditor: Auditor::new(journal),
            large: Arc::new(Semaphore::new(LARGE_AT_A_TIME)),
        }))
    }
}

impl<S> Layer<S> for AccessLayer {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { access: self.0.clone(), inner }
    }
}

/// A service behind an [`AccessLayer`].
#[derive(Clone)]
pub struct Guarded<S> {
    access: Arc<Access>,
    inner: S,
}

/// Comes with each call that changes something: says whether anybody still waits for its answer. What has not begun yet
/// need not begin then.
#[derive(Clone)]
pub struct HungUp(CancellationToken);

impl HungUp {
    /// Does `work`, unless the caller hangs up meanwhile, or its deadline passes; the work is dropped then.
    ///
    /// # Errors
    /// CANCELLED, which only the audit sees.
    pub async fn or<T>(&self, work: impl Future<Output = T>) -> Result<T, Status> {
        let done = self.0.run_until_cancelled(work).await;
        done.ok_or_else(|| Status::cancelled("the caller hung up before it had its answer"))
    }
}

type Request = http::Request<Body>;
type Response = http::Response<Body>;

impl<S> Service<Request> for Guarded<S>
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, call: Request) -> Self::Future {
        // The one that is ready; the clone need not be.
        let clone = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, clone);
        let access = self.access.clone();
        Box::pin(async move {
            let answer = access.answer(inner, call).await;
            Ok(answer.unwrap_or_else(Status::into_http))
        })
    }
}

impl Access {
    async fn answer<S>(self: Arc<Self>, mut inner: S, mut call: Request) -> Result<Response, Status>
    where
        S: Service<Request, Response = Response, Error = Infallible> + Send + 'static,
        S::Future: Send + 'static,
    {
        let nobody = || Status::internal("nobody has said who calls");
        let caller: Caller = call.extensions().get().cloned().ok_or_else(nobody)?;
        let from: Origin = call.extensions().get().copied().ok_or_else(nobody)?;
        let right = self.rights.get(call.uri().path()).copied();
        let right = right.ok_or_else(|| unknown(call.uri().path(), &caller))?;
        let allowed = caller.roles().meet(right.roles);
        match right.kind {
            Kind::Changes { .. } | Kind::Uploads => {
                let audited = Audited::begun(&caller, from, right.path);
                if !allowed {
                    let refused = role_missing(&right, &caller);
                    self.auditor.refused(&caller, audited, &refused).await;
                    return Err(refused);
                }
                // Whoever hangs up does not break off what has begun, nor its audit; its place is taken for as long.
                let place: Option<Place> = call.extensions().get().cloned();
                let hung_up = CancellationToken::new();
                let _until_answered = hung_up.clone().drop_guard();
                call.extensions_mut().insert(HungUp(hung_up));
                let doing = tokio::spawn(async move {
                    let _place = place;
                    self.change(inner, call, right.kind, &caller, audited).await
                });
                doing.await.unwrap_or_else(|_| Err(failed()))
            }
            _ if !allowed => Err(role_missing(&right, &caller)),
            Kind::Looks => {
                let (call, _) = self.whole(call, SMALL).await?;
                answered(inner.call(call).await)
            }
            Kind::Streams => answered(inner.call(call).await),
        }
    }

    async fn change<S>(
        &self,
        mut inner: S,
        call: Request,
        kind: Kind,
        caller: &Caller,
        mut audited: Audited,
    ) -> Result<Response, Status>
    where
        S: Service<Request, Response = Response, Error = Infallible>,
        S::Future: Send + 'static,
    {
        let read = match kind {
            Kind::Changes { largest } => self.whole(call, largest).await,
            _ => first(call).await,
        };
        let answer = match read {
            Ok((call, message)) => {
                audited.is_about(&message);
                carried_out(inner.call(call)).await
            }
            Err(refused) => Err(refused),
        };
        self.auditor.answered(caller, audited, answer).await
    }

    /// The call with all of its message, which is not longer than `largest`; and the message.
    async fn whole(&self, call: Request, largest: usize) -> Result<(Request, frame::Message), Status> {
        let (head, body) = call.into_parts();
        let large = || self.large.clone().try_acquire_owned().ok();
        let whole = frame::read(body, SMALL, largest, large).await;
        let whole = whole.map_err(|error| unread(error, largest))?;
        Ok((http::Request::from_parts(head, whole.body()), whole))
    }
}

/// The call, and the beginning of what it streams.
async fn first(call: Request) -> Result<(Request, frame::Message), Status> {
    let (head, body) = call.into_parts();
    let (first, body) = frame::peek(body, SMALL).await.map_err(|error| unread(error, SMALL))?;
    Ok((http::Request::from_parts(head, body), first))
}

fn unread(error: FrameError, largest: usize) -> Status {
    match error {
        FrameError::TooLarge(length) => too_large(length, largest),
        FrameError::TooMany => Status::with_error_details(
            Code::ResourceExhausted,
            "too many large messages at a time; send the same one again in 1s",
            ErrorDetails::with_retry_info(Some(LARGE_LATER)),
        ),
        FrameError::TooSlow => Status::deadline_exceeded("the message did not come to its end"),
        FrameError::Broken(status) => status,
    }
}

/// What panics is audited as well.
async fn carried_out(
    call: impl Future<Output = Result<Response, Infallible>> + Send + 'static,
) -> Result<Response, Status> {
    match tokio::spawn(call).await {
        Ok(answer) => answered(answer),
        Err(_) => Err(failed()),
    }
}

fn answered(answer: Result<Response, Infallible>) -> Result<Response, Status> {
    let Ok(answer) = answer;
    Ok(answer)
}

fn failed() -> Status {
    Status::internal("the station failed; its log says why")
}

fn role_missing(right: &Right, caller: &Caller) -> Status {
    let (method, needed, roles) = (method(right.path), right.roles, caller.roles());
    let refusal = Refusal::of(ErrorReason::RoleMissing).about("method", method).about("needed_roles", needed);
    refusal.about("caller", caller.name()).about("caller_roles", roles).says(&format!(
        "{method} needs one of the roles {needed}; this caller is taken for {caller}, whose roles are {roles}: give it one in \
         [roles] of the station file"
    ))
}

fn unknown(path: &str, caller: &Caller) -> Status {
    let path: String = path.chars().take(200).collect();
    // Whoever is nobody here is not told what there is.
    let is_nobody = caller.roles() == Roles::NONE;
    let reason = if is_nobody { ErrorReason::RoleMissing } else { ErrorReason::MethodUnknown };
    let refusal = Refusal::of(reason).about("method", &path).about("caller", caller.name());
    refusal.says(&format!("{path} is no method of this station: see its API by reflection"))
}

fn too_large(length: usize, largest: usize) -> Status {
    let refusal = Refusal::of(ErrorReason::MessageTooLarge).about("length", length).about("largest", largest);
    refusal
        .says(&format!("the message is {length} bytes long, at most {largest} are taken: send a smaller one"))
}

/// The method's own name.
pub fn method(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests;
