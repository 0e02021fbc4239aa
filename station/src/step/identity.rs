use factory_fixtures::fcc::{
    FccError,
    message::{Csr, CsrRequest},
    status::{ReturnStatus, TransportStatus},
};
use factory_proto::ids::{EndpointName, EnrolmentId};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::{
    certificate,
    record::{Identity, IssuanceAsked, Issued, Record},
    step::{DEVICE_KEY, StepContext, StepError, factory, provision},
};

/// Gives the unit its own identity: the device makes a key, the signer certifies it.
///
/// Once, checkable: the issuance is journalled before the signer is asked, and the certificate as soon as it is
/// there. A device that kept the key of an earlier attempt gets that key's certificate again, by the same issuance;
/// one that made another key gets another, and the one before is void from then on.
pub async fn identity(ctx: &mut StepContext<'_>) -> Result<(), StepError> {
    let patience = factory::patience(ctx);
    factory::start(ctx, patience).await?;
    let endpoint_name = ctx.recipe.identity.endpoint_name(&ctx.run.serial)?;
    let request = CsrRequest {
        session: provision::session(ctx.run, 1),
        key_name: DEVICE_KEY.to_owned(),
        subject: ctx.recipe.identity.subject(&endpoint_name),
    };
    let asked = match factory::exchange(ctx, &request.encode()).await {
        Ok(answer) => {
            let [csr] = <[Csr; 1]>::try_from(answer.csrs).expect("the session gives what was asked for");
            ask_anew(ctx, endpoint_name, csr.der).await?
        }
        Err(StepError::Fcc(FccError::Refused { status: ReturnStatus::ItemExists, .. })) => {
            let asked = ask_again(ctx)?;
            // After a refusal nothing is sent in the same session.
            factory::restart(ctx, patience).await?;
            asked
        }
        Err(StepError::Fcc(FccError::Transport(TransportStatus::NotProcessed))) => {
            return Err(StepError::Product(
                "the device's factory code is closed: it was provisioned before, or elsewhere".to_owned(),
            ));
        }
        Err(error) => return Err(error),
    };
    certify(ctx, asked).await
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
        order: ctx.run.order.clone(),
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

async fn certify(ctx: &mut StepContext<'_>, asked: IssuanceAsked) -> Result<(), StepError> {
    let IssuanceAsked { endpoint_name, request, .. } = &asked;
    let key = certificate::check_request(request, endpoint_name)
        .map_err(|error| StepError::Station(format!("the journalled certificate request: {error}")))?;
    let issued = ctx.signer.issue(&asked).await?;
    certificate::check_issued(&issued.certificate, &issued.issuers, &key, endpoint_name)
        .map_err(|error| StepError::Station(format!("the signer's certificate: {error}")))?;

    let fingerprint: [u8; 32] = Sha256::digest(&issued.certificate).into();
    let enrolment_id = EnrolmentId::of_fingerprint(&fingerprint);
    let identity = Identity {
        endpoint_name: asked.endpoint_name,
        certificate: issued.certificate,
        fingerprint,
        enrolment_id,
    };
    ctx.findings.identity = Some(identity.clone());
    ctx.journal(Record::Issued(Issued { run: ctx.run.run, identity })).await?;
    Ok(())
}
