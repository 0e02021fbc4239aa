//! The signer on a module that passes its calls on to SoftHSM and misbehaves when it is told to: `examples/faulty_module.rs`.

use std::{fs, path::PathBuf, process::Command};

use crate::rig::{Rig, SOFTHSM, Server};

/// A rig whose signer loads the faulty module.
pub struct Faulty {
    pub rig: Rig,
}

impl Faulty {
    /// Commissioned, and well until told otherwise.
    pub fn commissioned() -> Self {
        let rig = Rig::commissioned();
        rig.configure(SOFTHSM, module().to_str().unwrap());
        Self { rig }
    }

    pub fn command(&self) -> Command {
        self.command_of("serve")
    }

    /// As [`Faulty::command`], of another verb.
    pub fn command_of(&self, verb: &str) -> Command {
        let mut command = self.rig.command(verb);
        command.env("FAULTY_MODULE", SOFTHSM);
        command.env("FAULTY_CONTROL", self.control()).env("FAULTY_CALLS", self.rig.path("calls"));
        command
    }

    pub fn serve(&self) -> Server {
        self.rig.serve_as(self.command())
    }

    /// From the next call on, the module does as told; see its own words.
    pub fn order(&self, order: &str) {
        // At once: half an order is none.
        fs::write(self.rig.path("order"), order).unwrap();
        fs::rename(self.rig.path("order"), self.control()).unwrap();
    }

    /// From the next call on, all is well; one that hangs goes on.
    pub fn behave(&self) {
        fs::remove_file(self.control()).unwrap();
    }

    /// Whether an order to be followed once was followed.
    pub fn followed(&self) -> bool {
        !self.control().exists()
    }

    /// How often a function was called.
    pub fn calls(&self, function: &str) -> usize {
        let calls = fs::read_to_string(self.rig.path("calls")).unwrap_or_default();
        calls.lines().filter(|call| *call == function).count()
    }

    fn control(&self) -> PathBuf {
        self.rig.path("control")
    }
}

fn module() -> PathBuf {
    let signer = PathBuf::from(env!("CARGO_BIN_EXE_factory-signerd"));
    let module = signer.with_file_name("examples").join("libfaulty_module.so");
    assert!(
        module.exists(),
        "{} is not there: build it with cargo build -p factory-hsm --examples",
        module.display()
    );
    module
}
