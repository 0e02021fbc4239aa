//! A PostgreSQL server of one's own: in a folder under the system's temporary one, on a Unix socket in it, for as
//! long as it is held. Root may not run one, so that root's runs as `nobody`.

use std::{
    fs::{self, File},
    io::{self, BufRead as _, BufReader},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context as _, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, User, chown, geteuid, mkdtemp},
};

use crate::child::Child;

/// Where Debian puts the programs of each version.
const VERSIONS: &str = "/usr/lib/postgresql";
/// Its one user.
const USER: &str = "factory";

/// A server; ended, and its folder removed, when dropped.
pub struct Cluster {
    server: Option<Child>,
    durable: bool,
    programs: PathBuf,
    folder: Folder,
}

struct Folder(PathBuf);

impl Cluster {
    /// Makes and starts one. Without `durable`, what it keeps does not outlive the power, which makes it faster.
    ///
    /// # Errors
    /// PostgreSQL is not installed, or does not start.
    pub fn start(durable: bool) -> anyhow::Result<Self> {
        let folder = Folder(mkdtemp(&std::env::temp_dir().join("factory-postgres-XXXXXX"))?);
        let mut cluster = Self { server: None, durable, programs: programs()?, folder };
        if let Some(user) = user()? {
            chown(&cluster.folder.0, Some(user.uid), Some(user.gid))?;
        }
        let mut initdb = cluster.program("initdb")?;
        initdb.args(["--no-sync", "--auth=trust", "--encoding=UTF8", "--username", USER, "--pgdata", "data"]);
        let output = initdb.output().context("initdb")?;
        ensure!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
        cluster.run()?;
        Ok(cluster)
    }

    /// Starts it again.
    ///
    /// # Errors
    /// It does not start.
    pub fn run(&mut self) -> anyhow::Result<()> {
        let mut postgres = self.program("postgres")?;
        postgres.args(["-D", "data", "-c", "listen_addresses=", "-c", "dynamic_shared_memory_type=mmap"]);
        postgres.arg("-c").arg(format!("unix_socket_directories={}", self.folder.0.display()));
        if !self.durable {
            postgres.args(["-c", "fsync=off"]);
        }
        postgres.stderr(Stdio::piped());
        let mut server = Child::spawn(postgres, Vec::new()).context("postgres")?;
        let mut said = BufReader::new(server.stderr.take().context("its errors are a pipe")?);
        let mut log = String::new();
        while !log.contains("ready to accept connections") {
            ensure!(said.read_line(&mut log)? > 0, "postgres ended: {log}");
        }
        let mut file = File::create(self.folder.0.join("log"))?;
        // Until the server ends. What it says is for whoever looks into the folder.
        thread::spawn(move || io::copy(&mut said, &mut file));
        self.server = Some(server);
        Ok(())
    }

    /// Ends it at once, with all of its processes.
    ///
    /// # Errors
    /// It does not run.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        let mut server = self.server.take().context("the server does not run")?;
        kill(Pid::from_raw(i32::try_from(server.id())?), Signal::SIGQUIT)?;
        server.wait()?;
        Ok(())
    }

    /// The process id of the first of its processes, whose children the others are.
    ///
    /// # Errors
    /// It does not run.
    pub fn id(&self) -> anyhow::Result<u32> {
        Ok(self.server.as_ref().context("the server does not run")?.id())
    }

    /// The address of its database.
    pub fn address(&self) -> String {
        format!("postgres:///postgres?user={USER}&host={}", self.folder.0.display())
    }

    fn program(&self, name: &str) -> anyhow::Result<Command> {
        let mut command = Command::new(self.programs.join(name));
        command.current_dir(&self.folder.0).env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
        if let Some(user) = user()? {
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        Ok(command)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // One that does not run any more has nothing to end.
        let _ = self.stop();
    }
}

/// Who runs it, if not we.
fn user() -> anyhow::Result<Option<User>> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    Ok(Some(User::from_name("nobody")?.context("there is no user nobody")?))
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Under the system's temporary folder: whoever clears that gets it, if this does not.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The folder of the newest version's programs.
fn programs() -> anyhow::Result<PathBuf> {
    let installed = fs::read_dir(VERSIONS).into_iter().flatten().filter_map(Result::ok);
    let version = |folder: &Path| folder.file_name()?.to_str()?.parse::<u32>().ok();
    let newest = installed
        .map(|entry| entry.path())
        .filter(|folder| folder.join("bin/initdb").exists())
        .max_by_key(|folder| version(folder));
    let newest = newest.map(|folder| folder.join("bin"));
    let on_path = std::env::var_os("PATH")
        .and_then(|path| std::env::split_paths(&path).find(|folder| folder.join("initdb").exists()));
    newest.or(on_path).context("no initdb is installed: run hil-tests/prepare")
}
