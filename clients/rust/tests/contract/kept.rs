//! Jobs that outlive their connection.

use anyhow::{Context, Result, ensure};
use futures_util::TryStreamExt;
use sdgrpc::v1::AttachJobRequest;
use sdgrpc::{Client, Event};

use crate::check;
use crate::kinds::{Answer, Received, read, sha256};
use crate::request::Request;
use crate::table::Case;

/// Cut a reader after each event, one job for each, and read on by attaching.
pub async fn keep(client: &Client, case: &Case, request: &Request) -> Result<()> {
    let mut pictures = None;
    for cut in 1.. {
        let (request_id, request) = request.numbered(cut);
        let mut events = read_some(client, &request, cut).await?;
        let last = events.last().context("an event was read")?.sequence;
        events.extend(attached(client, &request_id, Some(last)).await?);
        let count = events.len();
        ensure!(events.iter().all(|each| each.request_id == request_id), "another job's events");
        let again = attached(client, &request_id, None).await?;
        ensure!(shown(&again) == shown(&events), "cut after {cut} events the job's events differ");
        let answer = Answer { events, error: None };
        check::answer(&case.expect, &answer)?;
        let images = check::images(&answer);
        let hashes: Vec<_> = images.iter().map(|image| sha256(&image.image.data)).collect();
        ensure!(pictures.is_none_or(|known| known == hashes), "cut after {cut} events the pictures differ");
        pictures = Some(hashes);
        if cut == count {
            break;
        }
    }
    Ok(())
}

/// Draw a job that is kept, and then ask for something else under its id.
pub async fn exists(client: &Client, case: &Case, request: &Request) -> Result<()> {
    ensure!(read(request.call(client)).await.error.is_none(), "the first is drawn");
    check::answer(&case.expect, &read(request.with_another_prompt().call(client)).await)
}

/// Ask for a job that was never sent.
pub async fn attach(client: &Client, case: &Case, request: &Request) -> Result<()> {
    let request = AttachJobRequest { request_id: request.id().to_owned(), after_sequence: None };
    check::answer(&case.expect, &read(client.attach(request)).await)
}

/// So many events of a call, which is left then.
async fn read_some(client: &Client, request: &Request, count: usize) -> Result<Vec<Received>> {
    let mut job = request.call(client).await?;
    let mut events = Vec::new();
    while events.len() < count {
        let event = job.try_next().await?.context("the job ended early")?;
        let sequence = job.sequence().context("an event was read")?;
        events.push(Received { sequence, request_id: job.request_id().to_owned(), event });
    }
    Ok(events)
}

async fn attached(client: &Client, request_id: &str, after: Option<i64>) -> Result<Vec<Received>> {
    let request = AttachJobRequest { request_id: request_id.to_owned(), after_sequence: after };
    let answer = read(client.attach(request)).await;
    match answer.error {
        Some(error) => Err(error.into()),
        None => Ok(answer.events),
    }
}

/// What can be compared of events: all but their previews.
fn shown(events: &[Received]) -> Vec<String> {
    let shown = |each: &Received| match &each.event {
        Event::Progress(progress) => format!("{} {} {:?}", each.sequence, progress.step, progress.elapsed),
        other => format!("{} {other:?}", each.sequence),
    };
    events.iter().map(shown).collect()
}
