//! The server that the table is run against: somebody's, or a process of our own.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

const START: Duration = Duration::from_secs(180);
const STOP: Duration = Duration::from_secs(120);

pub enum Server {
    Given(String),
    Own(Box<Process>),
}

pub struct Process {
    target: String,
    child: Child,
    /// Held open: the server must be able to print.
    _stdout: Lines<BufReader<ChildStdout>>,
}

impl Server {
    /// None where there is neither a server nor a Python to start one with.
    pub async fn find(arguments: &[String], root: &Path) -> Result<Option<Self>> {
        if let Ok(target) = env::var("SDGRPC_CONTRACT_SERVER") {
            return Ok(Some(Self::Given(target)));
        }
        let python = match env::var("SDGRPC_PYTHON") {
            Ok(python) => PathBuf::from(python),
            Err(_) => root.join(".venv/bin/python"),
        };
        if !python.exists() {
            return Ok(None);
        }
        Ok(Some(Self::Own(Box::new(Process::start(&python, arguments, root).await?))))
    }

    pub fn target(&self) -> &str {
        match self {
            Self::Given(target) => target,
            Self::Own(process) => &process.target,
        }
    }

    /// Our own process, if it still has to be stopped.
    pub fn own(&self) -> Option<&Process> {
        match self {
            Self::Given(_) => None,
            Self::Own(process) => Some(process),
        }
    }

    /// Wait until our own process has ended.
    pub async fn stop(self) -> Result<()> {
        let Self::Own(mut process) = self else { return Ok(()) };
        process.terminate()?;
        let status = timeout(STOP, process.child.wait()).await.context("the server does not stop")??;
        ensure!(status.success(), "the server ended with {status}");
        Ok(())
    }
}

impl Process {
    async fn start(python: &Path, arguments: &[String], root: &Path) -> Result<Self> {
        let log = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("server-{}.log", std::process::id()));
        let mut command = Command::new(python);
        command.args(["-m", "sdgrpc", "serve", "--listen", "127.0.0.1:0"]).args(arguments);
        for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SDGRPC_")) {
            command.env_remove(name);
        }
        command.current_dir(root).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(&log)?);
        let mut child = command.kill_on_drop(true).spawn().context(python.display().to_string())?;
        let mut stdout = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let line = timeout(START, stdout.next_line()).await.context("the server does not start")??;
        let target = line.as_deref().and_then(|line| line.strip_prefix("listening on "));
        let Some(target) = target else {
            anyhow::bail!("the server printed {line:?}; its log:\n{}", fs::read_to_string(&log)?);
        };
        Ok(Self { target: target.trim().to_owned(), child, _stdout: stdout })
    }

    /// Send SIGTERM, if it still runs.
    pub fn terminate(&self) -> Result<()> {
        if let Some(pid) = self.child.id() {
            // `kill` of the shell, since the standard library sends SIGKILL alone. It may be too late: no check.
            std::process::Command::new("sh")
                .args(["-c", &format!("kill -TERM {pid}")])
                .stderr(Stdio::null())
                .status()?;
        }
        Ok(())
    }
}
