//! A virtual line: real signer, real station, simulated nests, wired together in one folder.
//!
//! Everything is a process of its own and ends with this one.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

mod files;
mod processes;
mod tls;

pub use files::RECIPE;
pub use processes::{Running, Simulator};
pub use tls::MES;

use crate::child::Child;

/// Where Debian puts SoftHSM.
const SOFTHSM: &str = "/usr/lib/softhsm/libsofthsm2.so";

/// A virtual line in a folder.
pub struct Rig {
    /// Everything lies under here.
    pub folder: PathBuf,
    /// The nests' names.
    pub nests: Vec<String>,
    /// Where the station listens for the MES.
    pub station: String,
    programs: PathBuf,
    signer: Option<Process>,
    daemon: Option<Process>,
    // Last, so that they outlive those that use them.
    simulators: Vec<Process>,
}

impl Rig {
    /// Sets up a line with these nests in an empty folder. `controller` is where the station finds its MES;
    /// `programs` holds the executables.
    pub fn build(folder: &Path, programs: &Path, nests: &[&str], controller: &str) -> anyhow::Result<Self> {
        fs::create_dir_all(folder)?;
        let mut rig = Self {
            folder: folder.to_owned(),
            nests: nests.iter().map(ToString::to_string).collect(),
            station: format!("http://{}", free_address()?),
            programs: programs.to_owned(),
            signer: None,
            daemon: None,
            simulators: Vec::new(),
        };
        for nest in nests {
            let folder = rig.nest(nest);
            fs::create_dir_all(folder.join("tag"))?;
            let mut target = rig.program("sim-target")?;
            target.arg("--dir").arg(&folder).arg("--device-program").arg(rig.programs.join("sim-device"));
            rig.simulators.push(Process::start(target, "ready")?);
            let mut reader = rig.program("sim-reader")?;
            reader.arg("--dir").arg(folder.join("tag")).arg("--moments").arg(rig.moments(nest));
            rig.simulators.push(Process::start(reader, "ready")?);
        }
        rig.write_files(controller)?;
        rig.make_ca()?;
        rig.sign_images()?;
        Ok(rig)
    }

    /// The folder of a nest.
    pub fn nest(&self, name: &str) -> PathBuf {
        self.folder.join(format!("nest-{name}"))
    }

    /// Where the device on a board keeps what it is given, once it was in this nest.
    pub fn storage(&self, nest: &str, serial: &str) -> PathBuf {
        self.nest(nest).join(format!("board-{serial}.fcc"))
    }

    /// Replaces a text in a file of the line.
    pub fn edit(&self, file: &str, from: &str, to: &str) -> anyhow::Result<()> {
        let path = self.folder.join(file);
        let text = fs::read_to_string(&path)?;
        ensure!(text.contains(from), "{file} does not hold {from:?}");
        Ok(fs::write(path, text.replace(from, to))?)
    }

    /// Where a nest's simulators tell their moments, if somebody listens; a device does when its board says so.
    pub fn moments(&self, nest: &str) -> PathBuf {
        self.nest(nest).join("moments.sock")
    }

    /// Where the dumps of the tags lie.
    pub fn tags(&self) -> PathBuf {
        self.folder.join("tags")
    }

    /// The device-identity CA's certificate, PEM.
    pub fn ca_certificate(&self) -> PathBuf {
        self.folder.join("device-ca.pem")
    }

    /// Starts the signer.
    pub fn start_signer(&mut self) -> anyhow::Result<()> {
        let mut serve = self.signer_program()?;
        serve.arg("serve").arg("--config").arg(self.folder.join("signer.toml"));
        let log = self.log("signer.log")?;
        self.signer = Some(Process::logged(serve, log)?);
        wait_for(&self.folder.join("signer.sock"), &mut self.signer)
    }

    /// Starts the station.
    pub fn start_station(&mut self) -> anyhow::Result<()> {
        let mut serve = self.program("factory-stationd")?;
        serve.arg("serve").arg("--config").arg(self.folder.join("station.toml"));
        // Its instruments' processes are known by it.
        serve.current_dir(&self.folder);
        let log = self.log("station.log")?;
        self.daemon = Some(Process::logged(serve, log)?);
        wait_for(&self.folder.join("station.sock"), &mut self.daemon)
    }

    /// Stops the station with SIGTERM and waits until it has ended; says whether it ended well.
    pub fn stop_station(&mut self) -> anyhow::Result<bool> {
        self.daemon.take().context("the station does not run")?.terminate()
    }

    /// Kills the station as a power cut would, and waits until it is gone.
    pub fn kill_station(&mut self) -> anyhow::Result<()> {
        drop(self.daemon.take().context("the station does not run")?);
        Ok(())
    }

    /// Stops the signer with SIGTERM.
    pub fn stop_signer(&mut self) -> anyhow::Result<bool> {
        self.signer.take().context("the signer does not run")?.terminate()
    }

    /// Kills the signer, and waits until it is gone.
    pub fn kill_signer(&mut self) -> anyhow::Result<()> {
        drop(self.signer.take().context("the signer does not run")?);
        Ok(())
    }

    /// Resident memory of the station's daemon, in KiB.
    pub fn station_memory(&self) -> anyhow::Result<u64> {
        let daemon = self.daemon.as_ref().context("the station does not run")?;
        let status = fs::read_to_string(format!("/proc/{}/status", daemon.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }

    /// Has all files of the recipes signed, again where they were changed.
    pub fn sign_images(&self) -> anyhow::Result<()> {
        let mut sign = self.signer_program()?;
        sign.arg("sign-image").arg("--force").arg("--config").arg(self.folder.join("signer.toml"));
        for file in fs::read_dir(self.folder.join("recipes"))? {
            let path = file?.path();
            if path.extension().is_none_or(|extension| extension != "sig") {
                sign.arg(path);
            }
        }
        said(sign).map(drop)
    }

    /// The work order for the rig's recipe as the brand owner has signed it.
    pub fn sign_order(&self, order: &str, quantity: u32) -> anyhow::Result<String> {
        self.sign_order_for(&self.recipe_digest()?, order, quantity)
    }

    /// A work order signed with the tool for it, once: `quantity` units, as many spare ones, and four times as many
    /// replacements.
    pub fn sign_order_for(&self, recipe: &str, order: &str, quantity: u32) -> anyhow::Result<String> {
        let file = self.folder.join(format!("{order}.jws"));
        if file.exists() {
            return Ok(fs::read_to_string(file)?);
        }
        let mut sign = self.program("factory-signerd")?;
        sign.arg("sign-order").arg("--key").arg(self.folder.join("orders.key"));
        sign.arg("--ca").arg(self.ca_certificate());
        sign.args(["--order", order, "--product", RECIPE, "--recipe-digest", recipe]);
        sign.args(["--quantity", &quantity.to_string(), "--spare", &quantity.to_string()]);
        sign.args(["--replacements", &(4 * quantity).to_string()]);
        let signed = said(sign)?.trim().to_owned();
        fs::write(file, &signed)?;
        Ok(signed)
    }

    /// The signer's books of an order, and whether no unit of it is open.
    pub fn reconcile(&self, order: &str) -> anyhow::Result<(String, bool)> {
        let mut reconcile = self.signer_program()?;
        reconcile.args(["reconcile", order, "--config"]).arg(self.folder.join("signer.toml"));
        let output = reconcile.stdin(Stdio::null()).output()?;
        ensure!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok((String::from_utf8(output.stdout)?, output.status.success()))
    }

    fn recipe_digest(&self) -> anyhow::Result<String> {
        let mut check = self.program("factory-stationd")?;
        check.arg("check").arg("--config").arg(self.folder.join("station.toml"));
        let said = said(check)?;
        let digest = said.lines().find_map(|line| line.strip_prefix(&format!("recipe {RECIPE}: SHA-256 ")));
        Ok(digest.with_context(|| format!("no digest of {RECIPE} in {said:?}"))?.to_owned())
    }

    fn make_ca(&self) -> anyhow::Result<()> {
        let mut init = self.signer_program()?;
        init.arg("init").arg("--config").arg(self.folder.join("signer.toml"));
        init.args([
            "--ca-common-name",
            "Demo Device Identity CA",
            "--organization",
            "Demo Devices",
            "--country",
            "GB",
        ]);
        Ok(fs::write(self.folder.join("ceremony.txt"), said(init)?)?)
    }

    fn signer_program(&self) -> anyhow::Result<Command> {
        let mut command = self.program("factory-signerd")?;
        command.env("SOFTHSM2_CONF", self.folder.join("softhsm2.conf"));
        Ok(command)
    }

    fn program(&self, name: &str) -> anyhow::Result<Command> {
        let path = self.programs.join(name);
        ensure!(path.is_file(), "{} is not there; run cargo build --workspace", path.display());
        Ok(Command::new(path))
    }

    fn log(&self, name: &str) -> anyhow::Result<fs::File> {
        Ok(fs::OpenOptions::new().create(true).append(true).open(self.folder.join(name))?)
    }

    fn write_secret(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let path = self.folder.join(name);
        fs::write(&path, text)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        Ok(())
    }
}

/// A loopback address that nobody listened on a moment ago.
pub fn free_address() -> anyhow::Result<std::net::SocketAddr> {
    // Clients are given ports of 127.0.0.1, where one could take the port of a server that is being started again.
    Ok(TcpListener::bind("127.0.0.2:0")?.local_addr()?)
}

/// What a program printed that must end well.
fn said(mut command: Command) -> anyhow::Result<String> {
    let output = command.stdin(Stdio::null()).output()?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// A child with a name for messages.
struct Process {
    child: Child,
    name: String,
}

impl Process {
    /// Starts a program and waits for a line on its standard output.
    fn start(mut command: Command, line: &str) -> anyhow::Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = Child::spawn(command, Vec::new()).with_context(|| name.clone())?;
        let mut out = BufReader::new(child.stdout.take().context("standard output is a pipe")?);
        let process = Self { child, name };
        let mut said = String::new();
        out.by_ref().take(4096).read_line(&mut said)?;
        ensure!(said.trim() == line, "{} said {said:?} instead of {line:?}", process.name);
        Ok(process)
    }

    /// Starts a program whose words go to a file.
    fn logged(mut command: Command, log: fs::File) -> anyhow::Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = Child::spawn(command, Vec::new()).with_context(|| name.clone())?;
        Ok(Self { child, name })
    }

    fn terminate(mut self) -> anyhow::Result<bool> {
        kill(Pid::from_raw(i32::try_from(self.child.id())?), Signal::SIGTERM)?;
        Ok(self.child.wait()?.success())
    }
}

/// Waits until a process serves its Unix socket.
fn wait_for(socket: &Path, process: &mut Option<Process>) -> anyhow::Result<()> {
    let process = process.as_mut().context("the process was just started")?;
    loop {
        if std::os::unix::net::UnixStream::connect(socket).is_ok() {
            return Ok(());
        }
        if let Some(status) = process.child.try_wait()? {
            bail!("{} ended at its start with {status}; its log says why", process.name);
        }
        // The socket has no other way to tell that it is there.
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}
