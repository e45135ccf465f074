//! Calls that are cut at any event, and go on at the next server.

use std::time::Duration;

use futures_util::TryStreamExt;
use sdgrpc::v1::{self, GenerateRequest, JobEvent, Progress, Sampling, job_event};
use sdgrpc::{Client, ErrorKind, Event};
use tonic::Status;

use crate::server::{Running, Script, Seen, Then, finished, image, message};

fn whole() -> Vec<JobEvent> {
    let sampling = Some(Sampling { seed: Some(1234), ..Default::default() });
    let progress =
        |step: i32| message(step.into(), job_event::Event::Progress(Progress { step, ..Default::default() }));
    vec![
        message(0, job_event::Event::Accepted(v1::Accepted { sampling, ..Default::default() })),
        progress(1),
        progress(2),
        image(3, 0),
        image(4, 1),
        finished(5),
    ]
}

async fn cutting(cuts: &[usize], then: Then) -> Running {
    Running::start(Script { events: whole(), cuts: cuts.to_vec(), then, ..Default::default() }).await
}

async fn request(server: &Running) -> GenerateRequest {
    match server.seen().await {
        Seen::Request(request) => *request,
        _ => panic!("it saw something else than a request"),
    }
}

/// The sequences of a job's events, and how it ended.
async fn sequences(client: &Client) -> (Vec<i64>, Option<ErrorKind>) {
    let mut seen = Vec::new();
    let mut job = match client.generate(GenerateRequest::default()).await {
        Ok(job) => job,
        Err(error) => return (seen, Some(error.kind())),
    };
    loop {
        match job.try_next().await {
            Ok(Some(_)) => seen.push(job.sequence().unwrap()),
            Ok(None) => return (seen, None),
            Err(error) => return (seen, Some(error.kind())),
        }
    }
}

#[tokio::test]
async fn a_call_that_is_cut_goes_on() {
    for cut in 1..whole().len() {
        for then in [
            Then::End,
            Then::Fail(Status::unavailable("the connection broke")),
            Then::Fail(Status::internal("h2 protocol error")),
        ] {
            let server = cutting(&[cut], then).await;
            assert_eq!(sequences(&server.client().await).await, (vec![0, 1, 2, 3, 4, 5], None), "{cut}");
            assert_eq!(request(&server).await, GenerateRequest::default());
            let again = request(&server).await;
            assert_eq!((again.request_id.as_str(), again.sampling.unwrap().seed), ("job-1", Some(1234)));
        }
    }
}

#[tokio::test]
async fn a_call_that_is_cut_often_goes_on_and_servers_may_be_gone_for_a_while() {
    let server = cutting(&[5, 0, 0, 1, 3], Then::End).await;
    assert_eq!(sequences(&server.client().await).await, (vec![0, 1, 2, 3, 4, 5], None));
}

#[tokio::test]
async fn what_is_not_accepted_is_not_resumed() {
    let server = cutting(&[0], Then::End).await;
    assert_eq!(sequences(&server.client().await).await, (vec![], Some(ErrorKind::Unavailable)));
}

#[tokio::test]
async fn a_refusal_is_believed_and_resuming_can_be_turned_off() {
    let server = cutting(&[2], Then::Fail(Status::resource_exhausted("full"))).await;
    let end = sequences(&server.client().await).await;
    assert_eq!(end, (vec![0, 1], Some(ErrorKind::ResourceExhausted)));
    let server = cutting(&[2], Then::End).await;
    let builder = Client::builder(server.address.to_string()).resume(Duration::ZERO);
    let end = sequences(&builder.connect().await.unwrap()).await;
    assert_eq!(end, (vec![0, 1], Some(ErrorKind::IncompleteAnswer)));
}

#[tokio::test]
async fn a_job_that_ends_every_server_is_given_up() {
    let server = cutting(&[2; 20], Then::End).await;
    let end = sequences(&server.client().await).await;
    assert_eq!(end, (vec![0, 1], Some(ErrorKind::IncompleteAnswer)));
}

#[tokio::test]
async fn detaching_waits_until_the_job_is_accepted() {
    let server = cutting(&[1], Then::Wait).await;
    let job = server.client().await.generate(GenerateRequest::default()).await.unwrap();
    assert_eq!(job.detach().await.unwrap(), "job-1");
    let mut job = server.client().await.generate(GenerateRequest::default()).await.unwrap();
    assert!(matches!(job.try_next().await.unwrap(), Some(Event::Accepted(_))));
}
