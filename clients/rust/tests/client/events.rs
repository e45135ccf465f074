//! Messages -> events.

use std::time::Duration;

use futures_util::TryStreamExt;
use sdgrpc::v1::job_event::Event as Wire;
use sdgrpc::v1::{self, GenerateRequest, JobEvent};
use sdgrpc::{Event, Job, PreviewContent};

use crate::server::{Running, Script, finished, message};

fn seconds(seconds: i64, nanos: i32) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos })
}

async fn job(events: Vec<JobEvent>) -> (Running, Job) {
    let server = Running::start(Script { events, ..Default::default() }).await;
    let job = server.client().await.generate(GenerateRequest::default()).await.unwrap();
    (server, job)
}

#[tokio::test]
async fn accepted_has_the_name_and_every_default() {
    let sampling = v1::Sampling { steps: 20, seed: Some(7), ..Default::default() };
    let second = v1::SecondPass { width: 96, height: 192, strength: Some(0.5), ..Default::default() };
    let wire = v1::Accepted {
        queue_position: 2,
        sampling: Some(sampling),
        width: 64,
        height: 128,
        model: "embedded".into(),
        step_count: 16,
        warnings: vec!["small".into()],
        second_pass: Some(second.clone()),
    };
    let (_server, mut job) = job(vec![message(0, Wire::Accepted(wire)), finished(1)]).await;
    assert_eq!((job.request_id(), job.sequence()), ("", None));
    let Some(Event::Accepted(accepted)) = job.try_next().await.unwrap() else { panic!("not accepted") };
    assert_eq!((accepted.request_id.as_str(), accepted.queue_position), ("job-1", 2));
    assert_eq!((accepted.width, accepted.height, accepted.step_count), (64, 128, 16));
    assert_eq!((accepted.model.as_str(), accepted.sampling), ("embedded", sampling));
    assert_eq!(accepted.warnings, ["small"]);
    assert_eq!(accepted.second_pass, Some(second));
    assert_eq!((job.request_id(), job.sequence()), ("job-1", Some(0)));
}

#[tokio::test]
async fn progress_has_times_and_previews_of_both_contents() {
    let picture = v1::Image { data: vec![1], ..Default::default() };
    let latent = v1::Latent { channels: 4, height: 1, width: 1, data: vec![0; 8] };
    let preview = |image_index, content| v1::Preview { image_index, content };
    let wire = v1::Progress {
        step: 1,
        step_count: 2,
        timestep: 501.5,
        elapsed: seconds(1, 500_000_000),
        remaining: None,
        previews: vec![
            preview(0, Some(v1::preview::Content::Picture(picture.clone()))),
            preview(1, Some(v1::preview::Content::Latent(latent.clone()))),
            preview(2, None),
        ],
        pass_number: 2,
    };
    let (_server, mut job) = job(vec![message(0, Wire::Progress(wire)), finished(1)]).await;
    let Some(Event::Progress(progress)) = job.try_next().await.unwrap() else { panic!("no progress") };
    assert_eq!((progress.step, progress.step_count, progress.timestep), (1, 2, 501.5));
    assert_eq!(progress.pass_number, 2);
    assert_eq!((progress.elapsed, progress.remaining), (Duration::from_millis(1500), Duration::ZERO));
    let contents: Vec<_> = progress.previews.into_iter().map(|preview| preview.content).collect();
    assert_eq!(contents, [PreviewContent::Picture(picture), PreviewContent::Latent(latent)]);
}

#[tokio::test]
async fn prepared_and_finished_have_their_times() {
    let report = v1::LoraReport { name: "postcard".into(), ..Default::default() };
    let prepared = v1::Prepared {
        loras: vec![report.clone()],
        lora_set_id: "set".into(),
        lora_set_cached: true,
        fuse_duration: seconds(0, 250_000_000),
    };
    let finished = v1::Finished {
        queued: seconds(1, 0),
        prepared: seconds(2, 0),
        denoised: seconds(3, 0),
        decoded: seconds(-4, 0),
        largest_batch: 5,
        unet_calls: 6,
    };
    let (_server, mut job) =
        job(vec![message(0, Wire::Prepared(prepared)), message(1, Wire::Finished(finished))]).await;
    let Some(Event::Prepared(prepared)) = job.try_next().await.unwrap() else { panic!("not prepared") };
    assert_eq!((prepared.loras, prepared.lora_set_id.as_str()), (vec![report], "set"));
    assert_eq!((prepared.lora_set_cached, prepared.fuse_duration), (true, Duration::from_millis(250)));
    let Some(Event::Finished(finished)) = job.try_next().await.unwrap() else { panic!("not finished") };
    assert_eq!([finished.queued, finished.prepared, finished.denoised], [1, 2, 3].map(Duration::from_secs));
    assert_eq!((finished.decoded, finished.largest_batch), (Duration::ZERO, 5)); // no negative times
    assert_eq!(finished.unet_calls, 6);
    assert!(job.try_next().await.unwrap().is_none());
}

#[tokio::test]
async fn an_image_has_its_strength_of_a_grid() {
    let drawn =
        |index, lora_strength| Wire::Image(v1::GeneratedImage { index, lora_strength, ..Default::default() });
    let (_server, mut job) =
        job(vec![message(0, drawn(0, Some(0.25))), message(1, drawn(1, None)), finished(2)]).await;
    for expected in [(0, Some(0.25)), (1, None)] {
        let Some(Event::Image(image)) = job.try_next().await.unwrap() else { panic!("no image") };
        assert_eq!((image.index, image.lora_strength), expected);
    }
}

#[tokio::test]
async fn an_event_of_a_newer_contract_is_passed_over() {
    let unknown = JobEvent { request_id: "job-1".into(), sequence: 0, event: None };
    let (_server, mut job) = job(vec![unknown, finished(1)]).await;
    assert!(matches!(job.try_next().await.unwrap(), Some(Event::Finished(_))));
    assert_eq!(job.sequence(), Some(1));
}
