//! Deadlines, cancelling, metadata, and streams that break.

use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use sdgrpc::v1::{GenerateRequest, InpaintRequest, TransformRequest};
use sdgrpc::{Client, ErrorKind, Event};
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use crate::server::{Running, Script, Seen, Then, accepted, finished, image};

fn waiting() -> Script {
    Script { events: vec![accepted()], then: Then::Wait, ..Default::default() }
}

fn whole() -> Script {
    Script { events: vec![accepted(), image(1, 1), image(2, 0), finished(3)], ..Default::default() }
}

async fn metadata(server: &Running) -> MetadataMap {
    match server.seen().await {
        Seen::Call(metadata) => metadata,
        _ => panic!("it saw something else than a call"),
    }
}

#[tokio::test]
async fn dropping_a_job_cancels_the_call() {
    let server = Running::start(waiting()).await;
    let mut job = server.client().await.generate(GenerateRequest::default()).await.unwrap();
    assert!(matches!(job.try_next().await.unwrap(), Some(Event::Accepted(_))));
    metadata(&server).await;
    drop(job);
    assert!(matches!(server.seen().await, Seen::Dropped));
}

#[tokio::test]
async fn a_deadline_ends_the_stream_here_and_is_told_to_the_server() {
    let server = Running::start(waiting()).await;
    let call = server.client().await.generate(GenerateRequest::default()).timeout(Duration::from_secs(2));
    let mut job = call.await.unwrap();
    assert!(matches!(job.try_next().await.unwrap(), Some(Event::Accepted(_))));
    let error = job.try_next().await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::DeadlineExceeded, Code::DeadlineExceeded));
    assert!(job.next().await.is_none());
    assert_eq!(metadata(&server).await.get("grpc-timeout").unwrap(), "2000000u");
    assert!(matches!(server.seen().await, Seen::Dropped));
}

#[tokio::test]
async fn a_stream_that_a_proxy_resets_at_the_deadline_has_met_it() {
    for (left, kind) in [(10, ErrorKind::DeadlineExceeded), (300, ErrorKind::Internal)] {
        let timeout = Duration::from_millis(500);
        let then = Then::FailAfter(timeout - Duration::from_millis(left), Status::internal("reset"));
        let server = Running::start(Script { events: vec![accepted()], then, ..Default::default() }).await;
        let builder = Client::builder(server.address.to_string()).resume(Duration::ZERO);
        let client = builder.connect().await.unwrap();
        let mut job = client.generate(GenerateRequest::default()).timeout(timeout).await.unwrap();
        assert!(matches!(job.try_next().await.unwrap(), Some(Event::Accepted(_))));
        assert_eq!(job.try_next().await.unwrap_err().kind(), kind);
    }
}

#[tokio::test]
async fn a_deadline_ends_a_call_that_is_never_answered() {
    // It takes connections, and says nothing: not even HTTP/2's settings.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = silent.local_addr().unwrap().to_string();
    let client = Client::builder(target).timeout(Duration::from_millis(100)).connect_lazy().unwrap();
    let error = client.list_models().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
}

#[tokio::test]
async fn a_connection_that_breaks_is_unavailable() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap().to_string();
    let breaking = tokio::spawn(async move {
        loop {
            drop(listener.accept().await);
        }
    });
    let client = Client::builder(target).connect_lazy().unwrap();
    let error = client.list_models().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    breaking.abort();
}

#[tokio::test]
async fn a_call_takes_the_clients_timeout_unless_it_has_its_own() {
    let server = Running::start(whole()).await;
    let builder = Client::builder(server.address.to_string()).timeout(Duration::from_secs(60));
    let client = builder.connect().await.unwrap();
    client.generate(GenerateRequest::default()).await.unwrap().images().await.unwrap();
    assert_eq!(metadata(&server).await.get("grpc-timeout").unwrap(), "60000000u");
    let call = client.generate(GenerateRequest::default()).timeout(Duration::MAX);
    call.await.unwrap().images().await.unwrap();
    assert_eq!(metadata(&server).await.get("grpc-timeout").unwrap(), "52560000M");
}

#[tokio::test]
async fn without_a_timeout_there_is_none_and_metadata_is_sent() {
    let server = Running::start(whole()).await;
    let mut token = MetadataMap::new();
    token.insert("authorization", "Bearer x".parse().unwrap());
    let builder = Client::builder(server.address.to_string()).metadata(token);
    let client = builder.connect().await.unwrap();
    client.transform(TransformRequest::default()).await.unwrap().images().await.unwrap();
    let seen = metadata(&server).await;
    assert_eq!(seen.get("authorization").unwrap(), "Bearer x");
    assert!(seen.get("grpc-timeout").is_none());
}

#[tokio::test]
async fn a_call_has_headers_of_its_own_beside_the_clients() {
    let server = Running::start(whole()).await;
    let headers = |pairs: &[(&'static str, &str)]| {
        let mut all = MetadataMap::new();
        pairs.iter().for_each(|(name, value)| drop(all.insert(*name, value.parse().unwrap())));
        all
    };
    let shared = headers(&[("authorization", "Bearer x"), ("x-tenant", "a")]);
    let builder = Client::builder(server.address.to_string()).metadata(shared);
    let client = builder.connect().await.unwrap();
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let own = headers(&[("traceparent", trace), ("x-tenant", "b")]);
    client.generate(GenerateRequest::default()).metadata(own).await.unwrap().images().await.unwrap();
    let seen = metadata(&server).await;
    assert_eq!(seen.get("authorization").unwrap(), "Bearer x");
    assert_eq!(seen.get("traceparent").unwrap(), trace);
    assert_eq!(seen.get_all("x-tenant").iter().collect::<Vec<_>>(), ["b"]);
}

#[tokio::test]
async fn images_come_in_the_order_of_their_index() {
    let server = Running::start(whole()).await;
    let job = server.client().await.inpaint(InpaintRequest::default()).await.unwrap();
    let images = job.images().await.unwrap();
    assert_eq!(images.iter().map(|image| (image.index, image.seed)).collect::<Vec<_>>(), [(0, 7), (1, 8)]);
}

#[tokio::test]
async fn a_stream_that_ends_early_is_an_error() {
    let server = Running::start(Script { events: vec![accepted()], ..Default::default() }).await;
    let mut job = server.client().await.generate(GenerateRequest::default()).await.unwrap();
    job.try_next().await.unwrap();
    assert_eq!(job.try_next().await.unwrap_err().kind(), ErrorKind::IncompleteAnswer);
    assert!(job.next().await.is_none());
}

#[tokio::test]
async fn a_message_above_the_limit_is_refused() {
    let server = Running::start(whole()).await;
    let builder = Client::builder(server.address.to_string()).max_message_bytes(16);
    let job = builder.connect().await.unwrap().generate(GenerateRequest::default()).await.unwrap();
    let error = job.images().await.unwrap_err();
    assert!(matches!(error.code(), Code::OutOfRange | Code::ResourceExhausted), "{error}");
}
