//! Statuses -> errors.

use std::collections::HashMap;
use std::time::Duration;

use sdgrpc::v1::GenerateRequest;
use sdgrpc::{Client, Error, ErrorKind};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::server::{Running, Script, Then, accepted};

fn status(code: Code, reason: &str, more: impl FnOnce(&mut ErrorDetails)) -> Status {
    let mut details =
        ErrorDetails::with_error_info(reason, "sdgrpc", HashMap::from([("lora".into(), "ink".into())]));
    more(&mut details);
    Status::with_error_details(code, "a sentence", details)
}

/// The error of a call that is refused, or fails after its first event.
async fn failure(status: Status, after_event: bool) -> Error {
    let script = match after_event {
        true => Script { events: vec![accepted()], then: Then::Fail(status), ..Default::default() },
        false => Script { refusal: Some(status), ..Default::default() },
    };
    let server = Running::start(script).await;
    let client = server.client().await;
    match client.generate(GenerateRequest::default()).await {
        Ok(job) => job.images().await.unwrap_err(),
        Err(error) => error,
    }
}

#[tokio::test]
async fn every_violation_is_told() {
    let wrong = status(Code::InvalidArgument, "INVALID_REQUEST", |details| {
        details.add_bad_request_violation("prompt", "is empty");
        details.add_bad_request_violation("loras[1].strength", "1.5 is above 1.0");
    });
    let error = failure(wrong, false).await;
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    assert_eq!((error.domain(), error.reason()), ("sdgrpc", "INVALID_REQUEST"));
    let found: Vec<_> =
        error.violations().iter().map(|v| (v.field.as_str(), v.description.as_str())).collect();
    assert_eq!(found, [("prompt", "is empty"), ("loras[1].strength", "1.5 is above 1.0")]);
    assert_eq!(error.to_string(), "INVALID_REQUEST: a sentence");
}

#[tokio::test]
async fn what_is_missing_and_when_to_retry_is_told_after_events_too() {
    let missing = status(Code::NotFound, "LORA_NOT_FOUND", |details| {
        details.set_resource_info("sdgrpc.v1.Lora", "ink", "", "");
    });
    let error = failure(missing, true).await;
    assert_eq!(error.kind(), ErrorKind::LoraNotFound);
    let resource = error.resource().unwrap();
    assert_eq!((resource.kind.as_str(), resource.name.as_str()), ("sdgrpc.v1.Lora", "ink"));
    assert_eq!(error.retry_after(), None);

    let full = status(Code::ResourceExhausted, "QUEUE_FULL", |details| {
        details.set_retry_info(Some(Duration::from_millis(2500)));
    });
    let error = failure(full, true).await;
    assert_eq!(
        (error.kind(), error.retry_after()),
        (ErrorKind::QueueFull, Some(Duration::from_millis(2500)))
    );
}

#[tokio::test]
async fn kinds_follow_the_reason_then_the_code() {
    for (code, reason, kind) in [
        (Code::NotFound, "MODEL_NOT_FOUND", ErrorKind::ModelNotFound),
        (Code::FailedPrecondition, "LORA_MALFORMED", ErrorKind::LoraUnusable),
        (Code::FailedPrecondition, "LORA_INCOMPATIBLE", ErrorKind::LoraUnusable),
        (Code::FailedPrecondition, "MODEL_UNUSABLE", ErrorKind::FailedPrecondition),
        (Code::ResourceExhausted, "OUT_OF_MEMORY", ErrorKind::OutOfMemory),
        (Code::ResourceExhausted, "SOMETHING_NEW", ErrorKind::ResourceExhausted),
        (Code::Unavailable, "DRAINING", ErrorKind::Unavailable),
        (Code::DeadlineExceeded, "", ErrorKind::DeadlineExceeded),
        (Code::Cancelled, "", ErrorKind::Cancelled),
        (Code::Internal, "INTERNAL", ErrorKind::Internal),
        (Code::Unimplemented, "", ErrorKind::Other),
    ] {
        let error = Error::from(status(code, reason, |_| {}));
        assert_eq!((error.kind(), error.code(), error.reason()), (kind, code, reason));
        assert_eq!(error.metadata()["lora"], "ink");
    }
}

#[tokio::test]
async fn details_that_cannot_be_read_count_as_none() {
    let broken = Status::with_details(Code::Unavailable, "a proxy", vec![255, 1, 2].into());
    let error = failure(broken, false).await;
    assert_eq!((error.kind(), error.reason(), error.message()), (ErrorKind::Unavailable, "", "a proxy"));
    assert_eq!(error.to_string(), "Unavailable: a proxy");
}

#[tokio::test]
async fn no_server_is_unavailable_at_once_and_later() {
    let error = Client::connect("127.0.0.1:1").await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Unavailable, Code::Unavailable));
    assert!(error.message().starts_with("no connection to 127.0.0.1:1: "), "{error}");
    let client = Client::builder("127.0.0.1:1").connect_lazy().unwrap();
    assert_eq!(client.list_models().await.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_target_that_is_no_address_is_named() {
    let error = Client::connect("not a host").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadTarget);
    assert!(error.message().starts_with("\"not a host\" is not a usable target"), "{error}");
}

#[cfg(not(feature = "tls"))]
#[tokio::test]
async fn https_says_which_feature_it_needs() {
    let error = Client::connect("https://localhost:1").await.unwrap_err();
    assert!(error.message().contains("feature `tls`"), "{error}");
}
