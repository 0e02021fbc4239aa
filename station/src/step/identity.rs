use factory_fixtures::fcc::message::CsrRequest;
use factory_proto::ids::EnrolmentId;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::{
    certificate,
    record::{Identity, IssuanceAsked, Issued, Record},
    step::{DEVICE_KEY, StepContext, StepError},
};

/// Gives the unit its own identity: the device makes a key, the signer certifies it.
///
/// Once: the issuance is journalled before the signer is asked, and the certificate as soon as it is there.
pub async fn identity(ctx: &mut StepContext<'_>) -> Result<(), StepError> {
    start_factory_code(ctx).await?;
    let endpoint_name = ctx.recipe.identity.endpoint_name(&ctx.run.serial)?;
    let request = CsrRequest {
        session: super::provision::session(ctx.run, 1),
        key_name: DEVICE_KEY.to_owned(),
        subject: ctx.recipe.identity.subject(&endpoint_name),
    };
    let answer = super::provision::exchange(ctx, &request.session, &request.encode()).await?;
    let csr = answer.into_csr(DEVICE_KEY)?;
    let key = certificate::check_request(&csr.der, &endpoint_name)
        .map_err(|error| StepError::Product(format!("the device's certificate request: {error}")))?;

    let issuance = Uuid::now_v7();
    let asked = IssuanceAsked { run: ctx.run.run, issuance, endpoint_name: endpoint_name.clone() };
    ctx.journal.append(Record::IssuanceAsked(asked)).await?;
    let issued = ctx.signer.issue(issuance, &ctx.run.order, &endpoint_name, &csr.der).await?;
    certificate::check_issued(&issued.certificate, &issued.issuers, &key, &endpoint_name)
        .map_err(|error| StepError::Station(format!("the signer's certificate: {error}")))?;

    let fingerprint: [u8; 32] = Sha256::digest(&issued.certificate).into();
    let enrolment_id = EnrolmentId::of_fingerprint(&fingerprint);
    let identity = Identity { endpoint_name, certificate: issued.certificate, fingerprint, enrolment_id };
    ctx.findings.identity = Some(identity.clone());
    ctx.journal.append(Record::Issued(Issued { run: ctx.run.run, identity })).await?;
    Ok(())
}

/// Has the firmware hand its serial line to the factory code.
async fn start_factory_code(ctx: &mut StepContext<'_>) -> Result<(), StepError> {
    let console = ctx.console()?;
    console.send("provision").await?;
    let answer = console.line().await?;
    match answer.as_str() {
        "fcc start" => Ok(()),
        other => Err(StepError::Product(format!(
            "the firmware answered {other:?}, not that its factory code starts"
        ))),
    }
}
