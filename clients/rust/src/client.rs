//! The client: drawing.

use std::time::Duration;

use tonic::Streaming;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;

use crate::call::{Call, Context};
use crate::connect::ClientBuilder;
use crate::error::Result;
use crate::job::Job;
use crate::messages::Messages;
use crate::v1;
use crate::v1::catalog_service_client::CatalogServiceClient;
use crate::v1::diffusion_service_client::DiffusionServiceClient;

/// A connection to a server. Clones share it; it connects anew by itself when it broke.
#[derive(Clone, Debug)]
pub struct Client {
    channel: Channel,
    timeout: Option<Duration>,
    max_message_bytes: usize,
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
            max_message_bytes: settings.max_message_bytes,
            metadata: settings.headers(),
        }
    }

    /// Draw images from a prompt.
    pub fn generate(&self, request: v1::GenerateRequest) -> Call<Job> {
        let mut service = self.diffusion();
        self.call(async move |context| {
            let answer = service.generate(context.request(request));
            Ok(job(context.answer(answer).await?, &context))
        })
    }

    /// Redraw an image under a prompt (img2img).
    pub fn transform(&self, request: v1::TransformRequest) -> Call<Job> {
        let mut service = self.diffusion();
        self.call(async move |context| {
            let answer = service.transform(context.request(request));
            Ok(job(context.answer(answer).await?, &context))
        })
    }

    /// Redraw the masked part of an image under a prompt.
    pub fn inpaint(&self, request: v1::InpaintRequest) -> Call<Job> {
        let mut service = self.diffusion();
        self.call(async move |context| {
            let answer = service.inpaint(context.request(request));
            Ok(job(context.answer(answer).await?, &context))
        })
    }

    pub(crate) fn call<T, F>(&self, start: impl FnOnce(Context) -> F + Send + 'static) -> Call<T>
    where
        F: Future<Output = Result<T>> + Send + 'static,
    {
        Call::new(self.timeout, self.metadata.clone(), start)
    }

    fn diffusion(&self) -> DiffusionServiceClient<Channel> {
        DiffusionServiceClient::new(self.channel.clone())
            .max_decoding_message_size(self.max_message_bytes)
            .max_encoding_message_size(self.max_message_bytes)
    }

    pub(crate) fn catalog(&self) -> CatalogServiceClient<Channel> {
        CatalogServiceClient::new(self.channel.clone())
            .max_decoding_message_size(self.max_message_bytes)
            .max_encoding_message_size(self.max_message_bytes)
    }
}

fn job(stream: Streaming<v1::JobEvent>, context: &Context) -> Job {
    Job::new(Messages::new(stream, context.deadline))
}
