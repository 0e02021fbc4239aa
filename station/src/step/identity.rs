use factory_fixtures::fcc::{
    FccError,
    message::{Csr, CsrRequest, KeyRequest},
    status::{ReturnStatus, TransportStatus},
};
use factory_proto::ids::EndpointName;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::{
    certificate,
    key::DeviceKey,
    recipe::{
        KeyOrigin,
        bundle::{Credentials, CredentialsError, check_enrolment_id, enrolment_id},
    },
    record::{Identity, IssuanceAsked, Issued, KeyRequested, Record},
    step::{StepContext, StepError, factory, provision},
};

/// Gives the unit its own identity: a key, and a certificate for it. The keys that the device makes itself it is
/// asked for first.
///
/// Once, checkable: an issuance is journalled before the signer is asked, and the certificate as soon as it is
/// there. A device that kept the key of an earlier attempt gets that key's certificate again, by the same issuance;
/// one that made another key gets another, and the one before is void from then on.
pub async fn identity(ctx: &mut StepContext<'_>) -> Result<(), StepError> {
    let patience = factory::patience(ctx);
    factory::start(ctx, patience).await?;
    let mut credentials = ctx.recipe.credentials(&ctx.unit()?)?;
    let request = match ctx.recipe.key_requests(&provision::session(ctx.run, 1), &ctx.unit()?)? {
        Some(asked) => ask_device(ctx, &asked).await?,
        None => None,
    };
    match &ctx.recipe.identity.key {
        KeyOrigin::Supplied { .. } => {}
        KeyOrigin::ByTool => {
            let key = DeviceKey::generate().map_err(CredentialsError::from)?;
            let account = ctx.recipe.provision.connection.account();
            let name = ctx.recipe.identity.distinguished_name(&credentials.endpoint_name, account);
            let asked = ask_anew(ctx, credentials.endpoint_name.clone(), key.request(name)).await?;
            credentials.key = Some(key);
            credentials.chain = certify(ctx, &asked).await?;
        }
        KeyOrigin::ByDevice => {
            let asked = match request {
                Some(Requested::New(der)) => ask_anew(ctx, credentials.endpoint_name.clone(), der).await?,
                Some(Requested::Before(asked)) => *asked,
                None => return Err(StepError::Order("the request of the device's key")),
            };
            credentials.chain = certify(ctx, &asked).await?;
        }
    }
    identify(ctx, credentials).await
}

/// The certificate request of the device's own key.
enum Requested {
    /// Just made.
    New(Vec<u8>),
    /// Of the key that it kept from an earlier attempt.
    Before(Box<IssuanceAsked>),
}

/// Has the device make its keys. Their requests are kept, but for that of its own, which comes back.
async fn ask_device(ctx: &mut StepContext<'_>, asked: &CsrRequest) -> Result<Option<Requested>, StepError> {
    let own = ctx.recipe.provision.connection.names().device_key;
    let makes_own = asked.keys.iter().any(|key| key.name == own);
    match factory::exchange(ctx, &asked.encode()).await {
        Ok(answer) => {
            let mut request = None;
            ctx.findings.requests.clear();
            for (key, csr) in asked.keys.iter().zip(answer.csrs) {
                if key.name == own {
                    request = Some(Requested::New(csr.der));
                } else {
                    ctx.findings.requests.push(kept(key, csr)?);
                }
            }
            Ok(request)
        }
        Err(StepError::Fcc(FccError::Refused { status: ReturnStatus::ItemExists, .. })) => {
            let others = asked.keys.len() - usize::from(makes_own);
            if ctx.findings.requests.len() != others {
                return Err(StepError::Unknown(
                    "the device holds keys of an earlier attempt whose certificate requests are lost"
                        .to_owned(),
                ));
            }
            let before = if makes_own { Some(Requested::Before(Box::new(ask_again(ctx)?))) } else { None };
            // After a refusal nothing is sent in the same session.
            let patience = factory::patience(ctx);
            factory::restart(ctx, patience).await?;
            Ok(before)
        }
        Err(StepError::Fcc(FccError::Transport(TransportStatus::NotProcessed))) => Err(StepError::Product(
            "the device's factory code is closed: it was provisioned before, or elsewhere".to_owned(),
        )),
        Err(error) => Err(error),
    }
}

fn kept(asked: &KeyRequest, csr: Csr) -> Result<KeyRequested, StepError> {
    certificate::check_subject(&csr.der, &asked.subject).map_err(|error| {
        StepError::Product(format!("the device's certificate request for {}: {error}", asked.name))
    })?;
    Ok(KeyRequested { name: csr.key_name, request: csr.der })
}

/// Journals a new issuance for a key that nobody has certified yet.
async fn ask_anew(
    ctx: &mut StepContext<'_>,
    endpoint_name: EndpointName,
    request: Vec<u8>,
) -> Result<IssuanceAsked, StepError> {
    certificate::check_request(&request, &endpoint_name)
        .map_err(|error| StepError::Product(format!("the device's certificate request: {error}")))?;
    let asked = IssuanceAsked {
        run: ctx.run.run,
        issuance: Uuid::now_v7(),
        endpoint_name,
        serial: ctx.run.serial.clone(),
        order: ctx.order()?.clone(),
        request,
        supersedes: replaced(ctx).await?,
        recipe_digest: ctx.run.recipe_digest,
    };
    ctx.journal(Record::IssuanceAsked(asked.clone())).await?;
    Ok(asked)
}

/// The issuance whose key died with an earlier attempt on this unit.
///
/// The one that may be live is replaced. One that the signer never heard of is replaced too, so that a request that is
/// still under way comes too late.
async fn replaced(ctx: &StepContext<'_>) -> Result<Option<Uuid>, StepError> {
    let earlier = ctx.signer.known_of(&ctx.units.issuances(&ctx.run.serial)?).await?;
    Ok(earlier.live.or(earlier.unheard))
}

/// The issuance of the key that the device kept: the last one of this unit, whose certificate the device matches
/// against its key when it gets it.
fn ask_again(ctx: &StepContext<'_>) -> Result<IssuanceAsked, StepError> {
    let mut earlier = ctx.units.issuances(&ctx.run.serial)?;
    earlier.pop().ok_or_else(|| {
        StepError::Unknown(
            "the device holds a key that this station never saw a certificate request for".to_owned(),
        )
    })
}

/// The certificate of an issuance, and what of its chain the device gets.
async fn certify(ctx: &StepContext<'_>, asked: &IssuanceAsked) -> Result<Vec<Vec<u8>>, StepError> {
    let IssuanceAsked { endpoint_name, request, .. } = asked;
    let key = certificate::check_request(request, endpoint_name)
        .map_err(|error| StepError::Station(format!("the journalled certificate request: {error}")))?;
    let issued = ctx.signer.issue(asked).await?;
    let account = ctx.recipe.provision.connection.account();
    certificate::check_issued(&issued.certificate, &issued.issuers, &key, endpoint_name, account)
        .map_err(|error| StepError::Station(format!("the signer's certificate: {error}")))?;
    ctx.recipe.identity.chain(issued.certificate, issued.issuers).map_err(StepError::Unit)
}

/// Makes it durable who the unit is.
async fn identify(ctx: &mut StepContext<'_>, credentials: Credentials) -> Result<(), StepError> {
    let certificate = credentials.chain.first().ok_or(StepError::Order("its certificate"))?.clone();
    let enrolment_id = enrolment_id(&certificate);
    check_enrolment_id(&ctx.unit()?, &enrolment_id)?;
    let identity = Identity {
        endpoint_name: credentials.endpoint_name.clone(),
        fingerprint: Sha256::digest(&certificate).into(),
        certificate,
        enrolment_id,
    };
    ctx.findings.identity = Some(identity.clone());
    ctx.credentials = Some(credentials);
    ctx.journal(Record::Issued(Issued { run: ctx.run.run, identity })).await?;
    Ok(())
}
