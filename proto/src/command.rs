//! The calls that change something. Each carries the id of a command, chosen by the caller; all else in it is what the
//! command asks for.

use std::mem;

use prost::Message;

use crate::station;

/// A call that changes something.
pub trait Command: Message + Sized {
    /// The call's name, as in the service.
    const CALL: &'static str;

    /// The command's id, as it was sent.
    fn id(&mut self) -> &mut String;

    /// What the command asks for: the message without its id, encoded. The same contents are the same bytes.
    fn contents(&mut self) -> Vec<u8> {
        let id = mem::take(self.id());
        let contents = self.encode_to_vec();
        *self.id() = id;
        contents
    }
}

/// A call for each line; maps in it must be sorted, which build.rs sees to.
macro_rules! commands {
    ($($call:ident: $request:ident;)*) => {$(
        impl Command for station::$request {
            const CALL: &'static str = stringify!($call);
            fn id(&mut self) -> &mut String {
                &mut self.command_id
            }
        }
    )*};
}

commands! {
    OpenWorkOrder: OpenWorkOrderRequest;
    StartUnit: StartUnitRequest;
    StartGoldenUnit: StartGoldenUnitRequest;
    AbortUnit: AbortUnitRequest;
    ReleaseUnit: ReleaseUnitRequest;
    DisposeUnit: DisposeUnitRequest;
    AttestRegistration: AttestRegistrationRequest;
    LoadOfflineBudget: LoadOfflineBudgetRequest;
    PauseWorkOrder: PauseWorkOrderRequest;
    ResumeWorkOrder: ResumeWorkOrderRequest;
    CloseWorkOrder: CloseWorkOrderRequest;
    ParkNest: ParkNestRequest;
    EnableNest: EnableNestRequest;
    ClearNest: ClearNestRequest;
    IdentifyNest: IdentifyNestRequest;
    UploadRecipe: UploadRecipeStart;
    ActivateRecipe: ActivateRecipeRequest;
    RemoveRecipe: RemoveRecipeRequest;
}
