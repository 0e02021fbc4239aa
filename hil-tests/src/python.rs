//! Python with grpcio, as `hil-tests/prepare` installs it, and what it generates of our `.proto`. Does not know what its
//! programs do.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::ensure;

/// What is generated: all that a line's MES speaks.
const PROTOS: [&str; 2] = ["factory/station/v1/station.proto", "factory/station/v1/line_controller.proto"];

/// A Python that has stubs of the `.proto`.
pub struct Python {
    interpreter: PathBuf,
    stubs: PathBuf,
}

impl Python {
    /// The one in `target/grpcio`, with stubs generated into `folder`, which it makes; `None` where it is not
    /// installed.
    ///
    /// # Errors
    /// The stubs cannot be generated.
    pub fn with_stubs(folder: &Path) -> anyhow::Result<Option<Self>> {
        let interpreter = root().join("target/grpcio/bin/python");
        // It is there without packages where they could not be had.
        let asked = Command::new(&interpreter).args(["-c", "import grpc_tools"]).output();
        if !asked.is_ok_and(|answer| answer.status.success()) {
            return Ok(None);
        }
        fs::create_dir_all(folder)?;
        let mut protoc = Command::new(&interpreter);
        protoc.args(["-m", "grpc_tools.protoc", "-I"]).arg(root().join("proto"));
        for out in ["--python_out", "--grpc_python_out"] {
            protoc.arg(out).arg(folder);
        }
        let generated = protoc.args(PROTOS).output()?;
        ensure!(generated.status.success(), "{protoc:?}: {}", String::from_utf8_lossy(&generated.stderr));
        Ok(Some(Self { interpreter, stubs: folder.to_owned() }))
    }

    /// A program of ours, by its path below `hil-tests`.
    pub fn program(&self, path: &str) -> Command {
        let mut command = Command::new(&self.interpreter);
        command.arg(root().join("hil-tests").join(path)).env("PYTHONPATH", &self.stubs);
        command
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace")
}
