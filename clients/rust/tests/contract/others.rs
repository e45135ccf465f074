//! The kinds that make no job: pictures that are enlarged, words that were learned, plans, replicas.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use futures_util::TryStreamExt;
use sdgrpc::v1::plan_job_request::Request as Planned;
use sdgrpc::v1::upscale_event::Event as Told;
use sdgrpc::v1::{
    DrainReplicasRequest, Image, ListEmbeddingsRequest, PlanJobRequest, ScaleReplicasRequest, UpscaleEvent,
    UpscaleRequest,
};
use sdgrpc::{Client, Error};

use crate::check;
use crate::kinds::{STATUS_INTERVAL, sha256};
use crate::request::{Request, decode};
use crate::table::{Case, Expect, ExpectedEmbedding, Method};

/// Enlarge a picture; the hash of what came, where it is expected to.
pub async fn upscale(client: &Client, case: &Case, folder: &Path) -> Result<Option<String>> {
    let mut request: UpscaleRequest = decode(case)?;
    if let Some(path) = case.files.get("image") {
        request.image = Some(Image::from(fs::read(folder.join(path)).with_context(|| path.clone())?));
    }
    let answer = read(client, request).await;
    if case.expect.outcome != "OK" {
        let error = answer.err().with_context(|| format!("no {}", case.expect.outcome))?;
        return check::failure(&case.expect, &error).map(|()| None);
    }
    Ok(Some(sha256(&enlarged(&case.expect, answer?)?.data)))
}

async fn read(client: &Client, request: UpscaleRequest) -> std::result::Result<Vec<UpscaleEvent>, Error> {
    client.upscale(request).await?.try_collect().await
}

/// Hold the events against the grammar and the table, and return the picture.
fn enlarged(expect: &Expect, events: Vec<UpscaleEvent>) -> Result<Image> {
    let id = events.first().context("no events")?.request_id.clone();
    ensure!(!id.is_empty(), "no request_id");
    ensure!(expect.request_id.as_ref().is_none_or(|expected| *expected == id), "request_id is {id:?}");
    let count = expect.tile_count.context("tile_count")?;
    let size = (expect.width.context("width")?, expect.height.context("height")?);
    ensure!(events.len() == usize::try_from(count)? + 2, "{} events", events.len());
    let mut picture = None;
    for (sequence, event) in (0..).zip(events) {
        ensure!((event.sequence, &event.request_id) == (i64::from(sequence), &id), "{event:?} at {sequence}");
        match event.event.context("an event of no kind")? {
            Told::Accepted(accepted) if sequence == 0 => {
                ensure!(expect.upscaler.as_ref() == Some(&accepted.upscaler), "by {}", accepted.upscaler);
                ensure!((accepted.width, accepted.height) == size, "{accepted:?}");
                ensure!(accepted.tile_count == count, "{} tiles", accepted.tile_count);
            }
            Told::Progress(progress) => {
                ensure!(
                    (progress.tile, progress.tile_count) == (sequence, count),
                    "{progress:?} at {sequence}"
                );
            }
            Told::Image(image) if sequence == count + 1 => picture = Some(image),
            Told::Accepted(_) | Told::Image(_) => bail!("an event at {sequence}"),
        }
    }
    let image = picture.context("no picture")?;
    ensure!((image.width, image.height) == size, "a picture of {}x{}", image.width, image.height);
    ensure!(expect.media_type.as_ref() == Some(&image.media_type), "a {}", image.media_type);
    ensure!(!image.data.is_empty(), "an empty picture");
    Ok(image)
}

/// List the words that prompts can use.
pub async fn embeddings(client: &Client, case: &Case) -> Result<()> {
    let request: ListEmbeddingsRequest = decode(case)?;
    let answer = client.list_embeddings(request).await;
    if case.expect.outcome != "OK" {
        let error = answer.err().with_context(|| format!("no {}", case.expect.outcome))?;
        return check::failure(&case.expect, &error);
    }
    let mut listed = Vec::new();
    for word in answer? {
        ensure!(word.sha256.len() == 64, "the hash of {} is {:?}", word.name, word.sha256);
        ensure!(word.refusal.is_empty() == word.fits, "{} is refused as {:?}", word.name, word.refusal);
        listed.push(ExpectedEmbedding {
            name: word.name,
            base: word.base,
            vector_count: word.vector_count,
            fits: word.fits,
        });
    }
    ensure!(case.expect.embeddings.as_ref() == Some(&listed), "the words are {listed:?}");
    Ok(())
}

/// Ask what a request would do.
pub async fn plan(client: &Client, case: &Case, request: &Request) -> Result<()> {
    let asked = match request.clone() {
        Request::Generate(request) => Planned::Generate(request),
        Request::Transform(request) => Planned::Transform(request),
        Request::Inpaint(request) => Planned::Inpaint(request),
    };
    let answer = client.plan_job(PlanJobRequest { request: Some(asked) }).await;
    if case.expect.outcome != "OK" {
        let error = answer.err().with_context(|| format!("no {}", case.expect.outcome))?;
        return check::failure(&case.expect, &error);
    }
    check::plan(&case.expect, &answer?)
}

/// Change how many replicas draw.
pub async fn cluster(client: &Client, case: &Case) -> Result<()> {
    let expect = match &case.with_replicas {
        Some(other) if has_replicas(client).await? => other,
        _ => &case.expect,
    };
    let answer = match case.method {
        Method::DrainReplicas => {
            let DrainReplicasRequest { name } = decode(case)?;
            client.drain_replicas(name).await.map(|names| names.len())
        }
        Method::ScaleReplicas => {
            let ScaleReplicasRequest { least, most } = decode(case)?;
            client.scale_replicas(least, most).await.map(|count| count.try_into().unwrap_or_default())
        }
        other => bail!("{other:?} changes no replicas"),
    };
    if expect.outcome != "OK" {
        let error = answer.err().with_context(|| format!("no {}", expect.outcome))?;
        return check::failure(expect, &error);
    }
    let count = answer?;
    let expected: usize = expect.replicas.context("replicas")?.try_into()?;
    ensure!(count == expected, "{count} replicas instead of {expected}");
    Ok(())
}

/// Whether several draw behind the server.
async fn has_replicas(client: &Client) -> Result<bool> {
    let mut reports = client.watch_status(STATUS_INTERVAL).await?;
    let first = reports.try_next().await?.context("WatchStatus ended")?;
    Ok(!first.replicas.is_empty())
}
