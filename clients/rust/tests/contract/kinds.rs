//! What the runner does for each kind of case.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use futures_util::TryStreamExt;
use sdgrpc::{Call, Client, Error, Event, Job};
use sha2::{Digest, Sha256};

use crate::check;
use crate::kept;
use crate::others;
use crate::request::Request;
use crate::server::Server;
use crate::table::{Case, Kind};
use crate::{Hashes, repository};

pub const STATUS_INTERVAL: Duration = Duration::from_millis(100);
const MOST_CALLS: usize = 64;
const MOST_REFUSALS: usize = 60;

pub struct Runner {
    pub client: Client,
    pub server: Server,
    pub hashes: Hashes,
}

/// An event with what its message said beside it.
pub struct Received {
    pub sequence: i64,
    pub request_id: String,
    pub event: Event,
}

/// Everything that came of a call, and the failure that it ended with.
pub struct Answer {
    pub events: Vec<Received>,
    pub error: Option<Error>,
}

impl Runner {
    pub async fn run(&mut self, case: &Case) -> Result<()> {
        let folder: PathBuf = repository().join("tests/contract");
        match case.kind {
            Kind::Upscale => {
                if let Some(hash) = others::upscale(&self.client, case, &folder).await? {
                    self.hashes.insert(case.name.clone(), vec![hash]);
                }
                return Ok(());
            }
            Kind::Embeddings => return others::embeddings(&self.client, case).await,
            Kind::Cluster => return others::cluster(&self.client, case).await,
            _ => {}
        }
        let request = Request::read(case, &folder)?;
        ensure!(
            case.timeout_seconds.is_some() == matches!(case.kind, Kind::Deadline),
            "timeout_seconds is for the kind `deadline`, which needs it"
        );
        match case.kind {
            Kind::Call => self.call(case, &request).await,
            Kind::Unreachable => unreachable_server(case, &request).await,
            Kind::Cancel => self.cancel(case, &request).await,
            Kind::Deadline => self.deadline(case, &request).await,
            Kind::Fill => self.fill(case, &request).await,
            Kind::Drain => self.drain(case, &request).await,
            Kind::Keep => kept::keep(&self.client, case, &request).await,
            Kind::Exists => kept::exists(&self.client, case, &request).await,
            Kind::Attach => kept::attach(&self.client, case, &request).await,
            Kind::Plan => others::plan(&self.client, case, &request).await,
            Kind::Upscale | Kind::Embeddings | Kind::Cluster => unreachable!("they have no request of a job"),
        }
    }

    async fn call(&mut self, case: &Case, request: &Request) -> Result<()> {
        let answer = read(request.call(&self.client)).await;
        check::answer(&case.expect, &answer)?;
        if answer.error.is_none() {
            let mut images = check::images(&answer);
            images.sort_by_key(|image| image.index);
            let hashes = images.iter().map(|image| sha256(&image.image.data)).collect();
            self.hashes.insert(case.name.clone(), hashes);
        }
        Ok(())
    }

    /// Here cancelling is dropping: there is no end to look at.
    async fn cancel(&self, case: &Case, request: &Request) -> Result<()> {
        ensure!(case.expect.outcome == "CANCELLED", "a cancelled call ends with CANCELLED");
        let finished = self.idle().await?;
        drop(self.started(request).await?);
        ensure!(self.idle().await? == finished, "the cancelled job was finished");
        Ok(())
    }

    async fn deadline(&self, case: &Case, request: &Request) -> Result<()> {
        let finished = self.idle().await?;
        let timeout = Duration::from_secs_f64(case.timeout_seconds.context("timeout_seconds")?);
        let answer = read(request.call(&self.client).timeout(timeout)).await;
        check::answer(&case.expect, &answer)?;
        ensure!(self.idle().await? == finished, "the job outlived its deadline");
        Ok(())
    }

    async fn fill(&self, case: &Case, request: &Request) -> Result<()> {
        let mut calls = Vec::new();
        let refusal = loop {
            ensure!(calls.len() < MOST_CALLS, "{MOST_CALLS} calls were accepted");
            match accepted(request.call(&self.client)).await? {
                Ok(job) => calls.push(job),
                Err(error) => break error,
            }
        };
        check::failure(&case.expect, &refusal)?;
        drop(calls);
        for _ in 0..MOST_REFUSALS {
            match accepted(request.call(&self.client)).await? {
                Ok(job) => {
                    job.cancel();
                    return Ok(());
                }
                Err(error) => {
                    check::failure(&case.expect, &error)?;
                    tokio::time::sleep(error.retry_after().context("a refusal says when to retry")?).await;
                }
            }
        }
        bail!("refused {MOST_REFUSALS} times after the queue was emptied")
    }

    async fn drain(&self, case: &Case, request: &Request) -> Result<()> {
        let Some(process) = self.server.own() else {
            eprintln!("{}: skipped, the server is not ours", case.name);
            return Ok(());
        };
        let job = self.started(request).await?;
        process.terminate()?;
        check::answer_after_start(&case.expect, &read_on(job).await)
    }

    /// A call of which the first `progress` was read.
    async fn started(&self, request: &Request) -> Result<Job> {
        let mut job = request.call(&self.client).await?;
        while let Some(event) = job.try_next().await? {
            if matches!(event, Event::Progress(_)) {
                return Ok(job);
            }
        }
        bail!("the job ended without a step")
    }

    /// Wait until nothing runs or waits; return how many jobs were finished by then.
    async fn idle(&self) -> Result<i64> {
        let mut reports = self.client.watch_status(STATUS_INTERVAL).await?;
        while let Some(status) = reports.try_next().await? {
            if status.ready && status.running == 0 && status.queued == 0 {
                return Ok(status.jobs_finished);
            }
        }
        bail!("WatchStatus ended")
    }
}

async fn unreachable_server(case: &Case, request: &Request) -> Result<()> {
    let client = Client::builder("127.0.0.1:1").connect_lazy()?;
    check::answer(&case.expect, &read(request.call(&client)).await)?;
    let error = Client::connect("127.0.0.1:1").await.err().context("something listens on port 1")?;
    check::failure(&case.expect, &error)
}

pub async fn read(call: Call<Job>) -> Answer {
    match call.await {
        Ok(job) => read_on(job).await,
        Err(error) => Answer { events: Vec::new(), error: Some(error) },
    }
}

pub async fn read_on(mut job: Job) -> Answer {
    let mut events = Vec::new();
    let error = loop {
        match job.try_next().await {
            Ok(Some(event)) => events.push(Received {
                sequence: job.sequence().expect("an event was read"),
                request_id: job.request_id().to_owned(),
                event,
            }),
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    Answer { events, error }
}

/// The job once its first event was read, or why it was refused.
async fn accepted(call: Call<Job>) -> Result<std::result::Result<Job, Error>> {
    let mut job = match call.await {
        Ok(job) => job,
        Err(error) => return Ok(Err(error)),
    };
    match job.try_next().await {
        Ok(Some(Event::Accepted(_))) => Ok(Ok(job)),
        Ok(other) => Err(anyhow!("the first event is {other:?}")),
        Err(error) => Ok(Err(error)),
    }
}

pub fn sha256(data: &[u8]) -> String {
    Sha256::digest(data).iter().map(|byte| format!("{byte:02x}")).collect()
}
