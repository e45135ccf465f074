//! The client: drawing.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt};
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use crate::call::{Call, Context};
use crate::connect::ClientBuilder;
use crate::error::Result;
use crate::job::Job;
use crate::messages::Messages;
use crate::resume::{Resumable, Sender, Source};
use crate::v1;
use crate::v1::catalog_service_client::CatalogServiceClient;
use crate::v1::cluster_service_client::ClusterServiceClient;
use crate::v1::diffusion_service_client::DiffusionServiceClient;

/// A connection to a server. Clones share it; it connects anew by itself when it broke.
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) channel: Channel,
    timeout: Option<Duration>,
    patience: Duration,
    pub(crate) max_message_bytes: usize,
    metadata: MetadataMap,
}

impl Client {
    /// Connect to `HOST:PORT`, `http://HOST:PORT` (with the feature `tls` also `https://`) or `unix:/PATH`.
    ///
    /// # Errors
    /// [`ErrorKind::BadTarget`](crate::ErrorKind::BadTarget), or
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) if no server answers.
    pub async fn connect(target: impl Into<String>) -> Result<Self> {
        Self::builder(target).connect().await
    }

    /// Settings for a client of `target`.
    pub fn builder(target: impl Into<String>) -> ClientBuilder {
        ClientBuilder::new(target)
    }

    pub(crate) fn assemble(channel: Channel, settings: ClientBuilder) -> Self {
        Self {
            channel,
            timeout: settings.timeout,
            patience: settings.patience,
            max_message_bytes: settings.max_message_bytes,
            metadata: settings.headers(),
        }
    }

    /// Draw images from a prompt.
    pub fn generate(&self, request: v1::GenerateRequest) -> Call<Job> {
        let service = self.diffusion();
        self.job(request, move |request| {
            let mut service = service.clone();
            async move { service.generate(request).await }.boxed()
        })
    }

    /// Redraw an image under a prompt (img2img).
    pub fn transform(&self, request: v1::TransformRequest) -> Call<Job> {
        let service = self.diffusion();
        self.job(request, move |request| {
            let mut service = service.clone();
            async move { service.transform(request).await }.boxed()
        })
    }

    /// Redraw the masked part of an image under a prompt.
    pub fn inpaint(&self, request: v1::InpaintRequest) -> Call<Job> {
        let service = self.diffusion();
        self.job(request, move |request| {
            let mut service = service.clone();
            async move { service.inpaint(request).await }.boxed()
        })
    }

    /// Enlarge a picture by one of the server's upscalers: `accepted`, `progress` for each tile, and the `image`.
    /// Dropping the stream ends the call. A call that is cut is not made again.
    pub fn upscale(&self, request: v1::UpscaleRequest) -> Call<BoxStream<'static, Result<v1::UpscaleEvent>>> {
        let mut service = self.diffusion();
        self.call(async move |context| {
            let stream = context.answer(service.upscale(context.request(request))).await?;
            Ok(Messages::new(stream, context.deadline).boxed())
        })
    }

    pub(crate) fn call<T, F>(&self, start: impl FnOnce(Context) -> F + Send + 'static) -> Call<T>
    where
        F: Future<Output = Result<T>> + Send + 'static,
    {
        Call::new(self.timeout, self.metadata.clone(), start)
    }

    pub(crate) fn job<R, S, F>(&self, mut request: R, send: S) -> Call<Job>
    where
        R: Resumable,
        S: Fn(Request<R>) -> F + Send + 'static,
        F: Future<Output = std::result::Result<Response<Streaming<v1::JobEvent>>, Status>> + Send + 'static,
    {
        let patience = self.patience;
        request.name();
        self.call(move |context| {
            let sender = Sender { request, context: Arc::new(context), send };
            let opening = sender.open();
            async move { Ok(Job::new(opening.await?, Box::new(sender), patience)) }
        })
    }

    fn diffusion(&self) -> DiffusionServiceClient<Channel> {
        DiffusionServiceClient::new(self.channel.clone())
            .max_decoding_message_size(self.max_message_bytes)
            .max_encoding_message_size(self.max_message_bytes)
    }

    pub(crate) fn cluster(&self) -> ClusterServiceClient<Channel> {
        ClusterServiceClient::new(self.channel.clone())
    }

    pub(crate) fn catalog(&self) -> CatalogServiceClient<Channel> {
        CatalogServiceClient::new(self.channel.clone())
            .max_decoding_message_size(self.max_message_bytes)
            .max_encoding_message_size(self.max_message_bytes)
    }
}
