//! A server that vanishes without a word.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::TryStreamExt;
use sdgrpc::v1::{Accepted, GenerateRequest, JobEvent, job_event};
use sdgrpc::{Client, ErrorKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

use crate::server::{Running, Script, Then};

/// Pass bytes on until `gone` is set; then take them and be silent, as a machine without power would be.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, gone: Arc<AtomicBool>) {
    let mut data = vec![0; 1 << 16];
    while let Ok(count @ 1..) = from.read(&mut data).await {
        if !gone.load(Ordering::Relaxed) && to.write_all(&data[..count]).await.is_err() {
            return;
        }
    }
}

/// Stand before a server for one connection.
async fn vanishing(server: SocketAddr, gone: Arc<AtomicBool>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (outside, _) = listener.accept().await.unwrap();
        let (from, to) = outside.into_split();
        let (from_server, to_server) = TcpStream::connect(server).await.unwrap().into_split();
        tokio::join!(pass(from, to_server, gone.clone()), pass(from_server, to, gone));
    });
    address
}

#[tokio::test]
async fn pings_find_a_server_that_vanished_while_a_job_waits() {
    let accepted =
        JobEvent { event: Some(job_event::Event::Accepted(Accepted::default())), ..Default::default() };
    let script = Script { events: vec![accepted], then: Then::Wait, ..Script::default() };
    let server = Running::start(script).await;
    let gone = Arc::new(AtomicBool::new(false));
    let target = vanishing(server.address, gone.clone()).await.to_string();
    let brisk = Duration::from_millis(200);
    let client = Client::builder(target).keep_alive(brisk, brisk).connect().await.unwrap();
    let mut job = client.generate(GenerateRequest::default()).await.unwrap();
    assert!(job.try_next().await.unwrap().is_some());
    gone.store(true, Ordering::Relaxed);
    let waited = tokio::time::timeout(Duration::from_secs(60), job.try_next()).await;
    let error = waited.expect("it is noticed").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}
