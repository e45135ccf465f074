//! The catalog's calls.

use std::time::Duration;

use futures_util::TryStreamExt;
use sdgrpc::v1::{
    GenerateRequest, GetLoraRequest, ListEmbeddingsRequest, ListLorasRequest, Lora, PlanJobRequest,
    PrepareLorasRequest, UpscaleRequest, get_lora_request, plan_job_request, upscale_event,
};
use sdgrpc::{ErrorKind, Result};
use sha2::{Digest, Sha256};

use crate::server::{Running, Script, Seen, Then};

/// Above two of the client's chunks.
const CONTENT_BYTES: usize = (2 << 20) + 17;

fn content() -> Vec<u8> {
    (0..CONTENT_BYTES).map(|position| (position % 251) as u8).collect()
}

async fn uploaded(server: &Running) -> (String, String, i64, Vec<u8>) {
    match server.seen().await {
        Seen::Upload(header, content) => (header.name, header.sha256, header.size_bytes, content),
        _ => panic!("it saw something else than an upload"),
    }
}

fn hash(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn models_and_one_lora() -> Result<()> {
    let server = Running::start(Script::default()).await;
    let client = server.client().await;
    assert_eq!(client.list_models().await?[0].name, "embedded");
    let range = client.lora_strength_range().await?;
    assert_eq!((range.minimum, range.maximum), (-1.0, 2.0));
    let source = Some(get_lora_request::Source::Name("ink".into()));
    let found = client.get_lora(GetLoraRequest { source, ..Default::default() }).await?;
    assert_eq!((found.lora.unwrap().name.as_str(), found.tensor_count), ("ink", 2));
    Ok(())
}

#[tokio::test]
async fn pages_are_turned_until_the_last_one() -> Result<()> {
    let server = Running::start(Script::default()).await;
    let request = ListLorasRequest { base: "sd15".into(), page_size: 2, ..Default::default() };
    let files: Vec<_> = server.client().await.list_loras(request).try_collect().await?;
    assert_eq!(files.iter().map(|file| file.name.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
    for token in ["", "2", "3"] {
        let Seen::Page(page) = server.seen().await else { panic!("not a page") };
        assert_eq!((page.page_token.as_str(), page.base.as_str(), page.page_size), (token, "sd15", 2));
    }
    Ok(())
}

#[tokio::test]
async fn a_page_that_fails_ends_the_stream() {
    let server = Running::start(Script::default()).await;
    let request = ListLorasRequest { page_token: "nope".into(), ..Default::default() };
    let mut files = server.client().await.list_loras(request);
    assert_eq!(files.try_next().await.unwrap_err().kind(), ErrorKind::InvalidRequest);
    assert!(files.try_next().await.unwrap().is_none());
}

#[tokio::test]
async fn bytes_and_files_are_uploaded_whole_with_their_hash() -> Result<()> {
    let server = Running::start(Script::default()).await;
    let client = server.client().await;
    let answer = client.upload_lora("ink", content()).await?;
    assert_eq!((answer.lora.unwrap().name.as_str(), answer.existed), ("ink", false));
    let expected = ("ink".into(), hash(&content()), CONTENT_BYTES as i64, content());
    assert_eq!(uploaded(&server).await, expected);

    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("upload.safetensors");
    std::fs::write(&path, content()).unwrap();
    client.upload_lora_file("ink", &path).await?;
    assert_eq!(uploaded(&server).await, expected);
    Ok(())
}

#[tokio::test]
async fn textual_inversions_are_listed() -> Result<()> {
    let server = Running::start(Script::default()).await;
    let request = ListEmbeddingsRequest { model: "face".into(), ..Default::default() };
    let found = server.client().await.list_embeddings(request).await?;
    assert_eq!(
        found.iter().map(|one| (one.name.as_str(), one.vector_count)).collect::<Vec<_>>(),
        [("face", 2)]
    );
    Ok(())
}

#[tokio::test]
async fn a_picture_is_upscaled_tile_by_tile() -> Result<()> {
    let server = Running::start(Script::default()).await;
    let client = server.client().await;
    let listed = client.list_upscalers().await?;
    assert_eq!(listed.iter().map(|one| (one.name.as_str(), one.scale)).collect::<Vec<_>>(), [("large", 4)]);
    let request = UpscaleRequest { upscaler: "large".into(), ..Default::default() };
    let events: Vec<_> = client.upscale(request).await?.try_collect().await?;
    let Some(upscale_event::Event::Accepted(accepted)) = &events[0].event else { panic!("not accepted") };
    assert_eq!((accepted.upscaler.as_str(), accepted.tile_count), ("large", 1));
    let Some(upscale_event::Event::Image(image)) = &events[2].event else { panic!("no image") };
    assert_eq!((events.len(), image.data.as_slice()), (3, &[7_u8][..]));
    Ok(())
}

#[tokio::test]
async fn an_upload_of_known_content_ends_at_once() -> Result<()> {
    let server = Running::start(Script { has_content: true, ..Default::default() }).await;
    assert!(server.client().await.upload_lora("ink", content()).await?.existed);
    Ok(())
}

#[tokio::test]
async fn a_file_that_is_not_there_is_named() {
    let server = Running::start(Script::default()).await;
    let error = server.client().await.upload_lora_file("ink", "/nowhere/ink").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.message().starts_with("/nowhere/ink: "), "{error}");
}

#[tokio::test]
async fn a_set_is_prepared() -> Result<()> {
    let server = Running::start(Script::default()).await;
    let client = server.client().await;
    let request = PrepareLorasRequest { loras: vec![Lora::named("ink", 0.5)], ..Default::default() };
    let prepared = client.prepare_loras(request).await?;
    assert_eq!((prepared.lora_set_id.as_str(), prepared.fuse_duration), ("set", Duration::from_millis(1500)));
    let error = client.prepare_loras(PrepareLorasRequest::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::IncompleteAnswer);
    Ok(())
}

#[tokio::test]
async fn a_job_is_planned_where_its_set_is() -> Result<()> {
    let server = Running::start(Script::default()).await;
    let drawn = GenerateRequest { loras: vec![Lora::named("ink", 0.5)], ..Default::default() };
    let request = PlanJobRequest { request: Some(plan_job_request::Request::Generate(drawn)) };
    assert_eq!(server.client().await.plan_job(request).await?.unet_steps, 7);
    let Seen::Prepare(metadata) = server.seen().await else { panic!("not a plan") };
    assert!(metadata.contains_key("x-sdgrpc-lora-set"));
    Ok(())
}

#[tokio::test]
async fn the_status_is_watched_until_the_stream_is_dropped() -> Result<()> {
    let server = Running::start(Script { then: Then::Wait, ..Default::default() }).await;
    let mut reports = server.client().await.watch_status(Duration::from_millis(100)).await?;
    let mut running = Vec::new();
    for _ in 0..2 {
        running.push(reports.try_next().await?.unwrap().running);
    }
    assert_eq!(running, [1, 0]);
    drop(reports);
    assert!(matches!(server.seen().await, Seen::Dropped));
    Ok(())
}

#[tokio::test]
async fn replicas_are_drained_and_scaled() -> Result<()> {
    let server = Running::start(Script::default()).await;
    let client = server.client().await;
    assert_eq!(client.drain_replicas("node").await?, ["node-0"]);
    assert_eq!(client.scale_replicas(2, 5).await?, 25);
    Ok(())
}
