//! A server in this process: what it answers, and what it saw.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use sdgrpc::Client;
use sdgrpc::v1::catalog_service_server::{CatalogService, CatalogServiceServer};
use sdgrpc::v1::cluster_service_server::{ClusterService, ClusterServiceServer};
use sdgrpc::v1::diffusion_service_server::{DiffusionService, DiffusionServiceServer};
use sdgrpc::v1::upload_lora_request::Part;
use sdgrpc::v1::*;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::metadata::MetadataMap;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

type Outcome<T> = Result<Response<T>, Status>;
type Replies<T> = BoxStream<'static, Result<T, Status>>;

/// What happens after the scripted messages of a stream.
#[derive(Clone)]
pub enum Then {
    End,
    Fail(Status),
    FailAfter(Duration, Status),
    /// Stay open until the client goes.
    Wait,
}

/// How the server answers, whatever it is asked.
pub struct Script {
    /// Refuse the call before its first message.
    pub refusal: Option<Status>,
    pub events: Vec<JobEvent>,
    pub then: Then,
    /// End Generate's calls so, after so many events, one number each; those after them are whole.
    pub cuts: Vec<usize>,
    /// Answer uploads after their header.
    pub has_content: bool,
}

impl Default for Script {
    fn default() -> Self {
        Self { refusal: None, events: Vec::new(), then: Then::End, cuts: Vec::new(), has_content: false }
    }
}

/// What the server saw.
pub enum Seen {
    Call(MetadataMap),
    /// The client went away before the end.
    Dropped,
    Page(ListLorasRequest),
    Upload(UploadLoraHeader, Vec<u8>),
    Prepare(MetadataMap),
    /// Of a script with cuts.
    Request(Box<GenerateRequest>),
}

#[derive(Clone)]
struct Scripted {
    script: Arc<Script>,
    calls: Arc<AtomicUsize>,
    seen: UnboundedSender<Seen>,
}

pub struct Running {
    pub address: SocketAddr,
    seen: Mutex<UnboundedReceiver<Seen>>,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    pub async fn start(script: Script) -> Self {
        Self::start_with(script, Server::builder()).await
    }

    pub async fn start_with(script: Script, mut builder: Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it listens");
        let (sender, seen) = unbounded_channel();
        let scripted = Scripted { script: Arc::new(script), calls: Arc::default(), seen: sender };
        let router = builder
            .add_service(DiffusionServiceServer::new(scripted.clone()))
            .add_service(CatalogServiceServer::new(scripted))
            .add_service(ClusterServiceServer::new(Replicas));
        let task = tokio::spawn(async move {
            router.serve_with_incoming(TcpListenerStream::new(listener)).await.expect("it serves");
        });
        Self { address, seen: Mutex::new(seen), task }
    }

    pub async fn client(&self) -> Client {
        Client::connect(self.address.to_string()).await.expect("the server listens")
    }

    /// The next thing that the server saw.
    pub async fn seen(&self) -> Seen {
        let seen = &self.seen;
        std::future::poll_fn(|context| seen.lock().unwrap().poll_recv(context)).await.expect("it runs")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Tells when the client goes.
struct Guard(UnboundedSender<Seen>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.send(Seen::Dropped).ok();
    }
}

impl Scripted {
    fn job(&self, metadata: &MetadataMap) -> Outcome<Replies<JobEvent>> {
        self.seen.send(Seen::Call(metadata.clone())).ok();
        if let Some(refusal) = &self.script.refusal {
            return Err(refusal.clone());
        }
        let events = stream::iter(self.script.events.clone()).map(Ok);
        Ok(Response::new(events.chain(self.rest()).boxed()))
    }

    fn rest<T: Send + 'static>(&self) -> Replies<T> {
        match self.script.then.clone() {
            Then::End => stream::empty().boxed(),
            Then::Fail(status) => stream::iter([Err(status)]).boxed(),
            Then::FailAfter(wait, status) => stream::once(async move {
                tokio::time::sleep(wait).await;
                Err(status)
            })
            .boxed(),
            Then::Wait => {
                let guard = Guard(self.seen.clone());
                stream::pending().inspect(move |_| _ = &guard).boxed()
            }
        }
    }
}

#[tonic::async_trait]
impl DiffusionService for Scripted {
    type GenerateStream = Replies<JobEvent>;
    type TransformStream = Replies<JobEvent>;
    type InpaintStream = Replies<JobEvent>;
    type UpscaleStream = Replies<UpscaleEvent>;

    async fn generate(&self, request: Request<GenerateRequest>) -> Outcome<Self::GenerateStream> {
        if self.script.cuts.is_empty() {
            return self.job(request.metadata());
        }
        self.seen.send(Seen::Request(Box::new(request.into_inner()))).ok();
        match self.script.cuts.get(self.calls.fetch_add(1, Ordering::Relaxed)) {
            None => {
                let events = stream::iter(self.script.events.clone()).map(Ok);
                Ok(Response::new(events.boxed()))
            }
            Some(0) => Err(Status::unavailable("nobody is there")),
            Some(&cut) => {
                let events = stream::iter(self.script.events[..cut].to_vec()).map(Ok);
                Ok(Response::new(events.chain(self.rest()).boxed()))
            }
        }
    }

    async fn transform(&self, request: Request<TransformRequest>) -> Outcome<Self::TransformStream> {
        self.job(request.metadata())
    }

    async fn inpaint(&self, request: Request<InpaintRequest>) -> Outcome<Self::InpaintStream> {
        self.job(request.metadata())
    }

    async fn upscale(&self, request: Request<UpscaleRequest>) -> Outcome<Self::UpscaleStream> {
        let upscaler = request.into_inner().upscaler;
        let accepted = UpscaleAccepted { upscaler, tile_count: 1, ..Default::default() };
        let image = Image { data: vec![7], ..Default::default() };
        let told = [
            upscale_event::Event::Accepted(accepted),
            upscale_event::Event::Progress(UpscaleProgress { tile: 1, tile_count: 1, ..Default::default() }),
            upscale_event::Event::Image(image),
        ];
        let events = told.map(|event| Ok(UpscaleEvent { event: Some(event), ..Default::default() }));
        Ok(Response::new(stream::iter(events).boxed()))
    }
}

#[tonic::async_trait]
impl CatalogService for Scripted {
    type WatchStatusStream = Replies<WatchStatusResponse>;

    async fn list_models(&self, _: Request<ListModelsRequest>) -> Outcome<ListModelsResponse> {
        let model = Model { name: "embedded".into(), ..Default::default() };
        let range = LoraStrengthRange { minimum: -1.0, maximum: 2.0 };
        let upscaler = Upscaler { name: "large".into(), scale: 4, architecture: "ESRGAN".into() };
        Ok(Response::new(ListModelsResponse {
            models: vec![model],
            lora_strength_range: Some(range),
            upscalers: vec![upscaler],
        }))
    }

    /// Three pages: two files, none, one.
    async fn list_loras(&self, request: Request<ListLorasRequest>) -> Outcome<ListLorasResponse> {
        let request = request.into_inner();
        let (names, next): (&[&str], _) = match request.page_token.as_str() {
            "" => (&["a", "b"], "2"),
            "2" => (&[], "3"),
            "3" => (&["c"], ""),
            _ => return Err(Status::invalid_argument("page_token")),
        };
        self.seen.send(Seen::Page(request)).ok();
        let loras = names.iter().map(|name| lora_file(name)).collect();
        Ok(Response::new(ListLorasResponse { loras, next_page_token: next.into() }))
    }

    async fn list_embeddings(
        &self,
        request: Request<ListEmbeddingsRequest>,
    ) -> Outcome<ListEmbeddingsResponse> {
        let name = request.into_inner().model;
        let embeddings = vec![Embedding { name, vector_count: 2, ..Default::default() }];
        Ok(Response::new(ListEmbeddingsResponse { embeddings }))
    }

    async fn get_lora(&self, request: Request<GetLoraRequest>) -> Outcome<GetLoraResponse> {
        match request.into_inner().source {
            Some(get_lora_request::Source::Name(name)) => {
                let lora = Some(lora_file(&name));
                Ok(Response::new(GetLoraResponse { lora, tensor_count: 2, ..Default::default() }))
            }
            _ => Err(Status::not_found("no such file")),
        }
    }

    async fn upload_lora(
        &self,
        request: Request<Streaming<UploadLoraRequest>>,
    ) -> Outcome<UploadLoraResponse> {
        let mut parts = request.into_inner();
        let Some(UploadLoraRequest { part: Some(Part::Header(header)) }) = parts.message().await? else {
            return Err(Status::invalid_argument("header"));
        };
        let lora = Some(lora_file(&header.name));
        let mut content = Vec::new();
        while !self.script.has_content
            && let Some(UploadLoraRequest { part: Some(Part::Chunk(chunk)) }) = parts.message().await?
        {
            content.extend(chunk);
        }
        self.seen.send(Seen::Upload(header, content)).ok();
        Ok(Response::new(UploadLoraResponse { lora, existed: self.script.has_content }))
    }

    async fn prepare_loras(&self, request: Request<PrepareLorasRequest>) -> Outcome<PrepareLorasResponse> {
        self.seen.send(Seen::Prepare(request.metadata().clone())).ok();
        let prepared = request.into_inner().loras.first().map(|_| Prepared {
            lora_set_id: "set".into(),
            fuse_duration: Some(prost_types::Duration { seconds: 1, nanos: 500_000_000 }),
            ..Default::default()
        });
        Ok(Response::new(PrepareLorasResponse { prepared }))
    }

    async fn plan_job(&self, request: Request<PlanJobRequest>) -> Outcome<PlanJobResponse> {
        self.seen.send(Seen::Prepare(request.metadata().clone())).ok();
        Ok(Response::new(PlanJobResponse { unet_steps: 7, ..Default::default() }))
    }

    async fn watch_status(&self, _: Request<WatchStatusRequest>) -> Outcome<Self::WatchStatusStream> {
        let report = |running| Ok(WatchStatusResponse { ready: true, running, ..Default::default() });
        let reports = stream::iter([report(1), report(0)]);
        Ok(Response::new(reports.chain(self.rest()).boxed()))
    }
}

fn lora_file(name: &str) -> LoraFile {
    LoraFile { name: name.into(), ..Default::default() }
}

/// A message with this event.
pub fn message(sequence: i64, event: job_event::Event) -> JobEvent {
    JobEvent { request_id: "job-1".into(), sequence, event: Some(event) }
}

pub fn accepted() -> JobEvent {
    message(0, job_event::Event::Accepted(Accepted { step_count: 2, ..Default::default() }))
}

pub fn image(sequence: i64, index: i32) -> JobEvent {
    let image = Image { data: vec![1, 2, 3], media_type: "image/png".into(), width: 8, height: 8 };
    let image = GeneratedImage { index, seed: 7 + i64::from(index), image: Some(image), lora_strength: None };
    message(sequence, job_event::Event::Image(image))
}

pub fn finished(sequence: i64) -> JobEvent {
    message(sequence, job_event::Event::Finished(Finished { largest_batch: 3, ..Default::default() }))
}

/// Answers with what it was asked.
struct Replicas;

#[tonic::async_trait]
impl ClusterService for Replicas {
    async fn drain_replicas(&self, request: Request<DrainReplicasRequest>) -> Outcome<DrainReplicasResponse> {
        let replicas = vec![format!("{}-0", request.into_inner().name)];
        Ok(Response::new(DrainReplicasResponse { replicas }))
    }

    async fn scale_replicas(&self, request: Request<ScaleReplicasRequest>) -> Outcome<ScaleReplicasResponse> {
        let request = request.into_inner();
        Ok(Response::new(ScaleReplicasResponse { replicas: 10 * request.least + request.most }))
    }
}
