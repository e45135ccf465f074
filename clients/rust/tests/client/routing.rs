//! What calls tell a proxy before several servers: `tests/contract/routing.json` of the repository.

use std::collections::BTreeMap;
use std::path::Path;

use prost_reflect::prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage};
use sdgrpc::v1::{
    GenerateRequest, InpaintRequest, Lora, OnDisconnect, PrepareLorasRequest, TransformRequest,
};
use sdgrpc::{Call, Client, FILE_DESCRIPTOR_SET, Job};
use serde::Deserialize;
use tonic::metadata::MetadataMap;

use crate::server::{Running, Script, Seen, finished};

#[derive(Deserialize)]
struct Line {
    name: String,
    request: serde_json::Value,
    metadata: BTreeMap<String, String>,
}

fn table() -> Vec<Line> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/contract/routing.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn decode<M: prost::Message + Default>(request: &serde_json::Value) -> M {
    let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET).unwrap();
    let descriptor = pool.get_message_by_name("sdgrpc.v1.GenerateRequest").unwrap();
    let message = DynamicMessage::deserialize(descriptor, request).unwrap();
    M::decode(message.encode_to_vec().as_slice()).unwrap() // the fields are those of all three requests
}

fn told(metadata: &MetadataMap) -> BTreeMap<String, String> {
    let values = ["x-sdgrpc-lora-set", "x-sdgrpc-job"].map(|key| (key, metadata.get(key)));
    let told = values.into_iter().filter_map(|(key, value)| Some((key, value?.to_str().ok()?)));
    told.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

async fn server() -> Running {
    Running::start(Script { events: vec![finished(0)], ..Default::default() }).await
}

async fn told_by(server: &Running, call: Call<Job>) -> BTreeMap<String, String> {
    drop(call.await.unwrap());
    loop {
        if let Seen::Call(metadata) = server.seen().await {
            return told(&metadata);
        }
    }
}

#[tokio::test]
async fn calls_tell_where_they_belong() {
    let server = server().await;
    let client: Client = server.client().await;
    for Line { name, request, metadata } in table() {
        let calls = [
            client.generate(decode::<GenerateRequest>(&request)),
            client.transform(decode::<TransformRequest>(&request)),
            client.inpaint(decode::<InpaintRequest>(&request)),
        ];
        for call in calls {
            assert_eq!(told_by(&server, call).await, metadata, "{name}");
        }
    }
}

#[tokio::test]
async fn preparing_goes_where_the_jobs_will() {
    let server = server().await;
    let request = PrepareLorasRequest { loras: vec![Lora::named("postcard", 0.75)], ..Default::default() };
    server.client().await.prepare_loras(request).await.unwrap();
    let Seen::Prepare(metadata) = server.seen().await else { panic!("it saw something else") };
    let id = "0ac6d11f55877e080b950120876286d9".to_owned();
    assert_eq!(told(&metadata), BTreeMap::from([("x-sdgrpc-lora-set".to_owned(), id)]));
}

#[tokio::test]
async fn a_kept_job_has_an_id() {
    let server = server().await;
    let client = server.client().await;
    let request = || GenerateRequest { on_disconnect: OnDisconnect::Keep.into(), ..Default::default() };
    let one = told_by(&server, client.generate(request())).await;
    let other = told_by(&server, client.generate(request())).await;
    assert_eq!(one["x-sdgrpc-job"].len(), 32);
    assert_ne!(one, other);
}
