//! The token that goes along with every call.

use sdgrpc::v1::GenerateRequest;
use sdgrpc::{Client, ErrorKind};
use tonic::{Code, Status};

use crate::server::{Running, Script, Seen};

#[tokio::test]
async fn it_is_sent_and_an_empty_one_is_not() {
    for (token, expected) in [("s3cret", Some("Bearer s3cret")), ("", None)] {
        let server = Running::start(Script::default()).await;
        let builder = Client::builder(server.address.to_string()).token(token).unwrap();
        let client = builder.connect().await.unwrap();
        let _job = client.generate(GenerateRequest::default()).await.unwrap();
        let Seen::Call(metadata) = server.seen().await else { panic!("no call") };
        assert_eq!(metadata.get("authorization").map(|value| value.to_str().unwrap()), expected);
    }
}

#[test]
fn one_that_no_header_can_carry_is_refused_and_none_is_printed() {
    for token in ["two words", "s3cret\n", "s\u{e9}cret"] {
        let error = Client::builder("localhost:1").token(token).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadTarget);
        assert!(!error.to_string().contains("cret"), "{error}");
    }
    let builder = Client::builder("localhost:1").token("s3cret").unwrap();
    assert!(!format!("{builder:?}").contains("s3cret"));
}

#[tokio::test]
async fn a_refusal_has_a_kind_of_its_own() {
    let refusal = Some(Status::new(Code::Unauthenticated, "no token"));
    let server = Running::start(Script { refusal, ..Script::default() }).await;
    let error = server.client().await.generate(GenerateRequest::default()).await.err().unwrap();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Unauthenticated, Code::Unauthenticated));
}
