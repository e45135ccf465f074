//! The client: what a server has.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt, TryStreamExt};

use crate::call::Call;
use crate::client::Client;
use crate::error::{Error, Result};
use crate::events::Prepared;
use crate::messages::Messages;
use crate::upload::{self, Upload};
use crate::v1;

impl Client {
    /// The models that requests can name, the default first.
    pub fn list_models(&self) -> Call<Vec<v1::Model>> {
        let mut catalog = self.catalog();
        self.call(async move |context| {
            let answer = catalog.list_models(context.request(v1::ListModelsRequest {}));
            Ok(context.answer(answer).await?.models)
        })
    }

    /// What `UpscaleRequest` and `SecondPass` can name, the default first.
    pub fn list_upscalers(&self) -> Call<Vec<v1::Upscaler>> {
        let mut catalog = self.catalog();
        self.call(async move |context| {
            let answer = catalog.list_models(context.request(v1::ListModelsRequest {}));
            Ok(context.answer(answer).await?.upscalers)
        })
    }

    /// The strengths of LoRAs that the server takes, both ends included; its operator chooses them.
    pub fn lora_strength_range(&self) -> Call<v1::LoraStrengthRange> {
        let mut catalog = self.catalog();
        self.call(async move |context| {
            let answer = catalog.list_models(context.request(v1::ListModelsRequest {}));
            Ok(context.answer(answer).await?.lora_strength_range.unwrap_or_default())
        })
    }

    /// The server's LoRA files, ordered by name. Pages are asked for as the stream is read, each a call with the
    /// client's timeout; it begins at the request's `page_token`, and ends with its first error.
    pub fn list_loras(
        &self,
        request: v1::ListLorasRequest,
    ) -> impl Stream<Item = Result<v1::LoraFile>> + Send + Unpin + 'static {
        let client = self.clone();
        let pages = stream::try_unfold(Some(request), move |request| {
            let client = client.clone();
            async move {
                let Some(request) = request else { return Ok(None) };
                let page = client.list_loras_page(request.clone()).await?;
                let next = (!page.next_page_token.is_empty())
                    .then_some(v1::ListLorasRequest { page_token: page.next_page_token, ..request });
                Ok::<_, Error>(Some((stream::iter(page.loras.into_iter().map(Ok)), next)))
            }
        });
        pages.try_flatten().boxed()
    }

    /// One page of the server's LoRA files.
    pub fn list_loras_page(&self, request: v1::ListLorasRequest) -> Call<v1::ListLorasResponse> {
        let mut catalog = self.catalog();
        self.call(async move |context| context.answer(catalog.list_loras(context.request(request))).await)
    }

    /// The server's textual inversions, whose names are words of prompts, by name.
    pub fn list_embeddings(&self, request: v1::ListEmbeddingsRequest) -> Call<Vec<v1::Embedding>> {
        let mut catalog = self.catalog();
        self.call(async move |context| {
            Ok(context.answer(catalog.list_embeddings(context.request(request))).await?.embeddings)
        })
    }

    /// All that `sdgrpc loras inspect` knows about one LoRA file.
    pub fn get_lora(&self, request: v1::GetLoraRequest) -> Call<v1::GetLoraResponse> {
        let mut catalog = self.catalog();
        self.call(async move |context| context.answer(catalog.get_lora(context.request(request))).await)
    }

    /// Bring a LoRA file. A server that has the content already answers before the content was sent.
    pub fn upload_lora(
        &self,
        name: impl Into<String>,
        content: impl Into<Arc<[u8]>>,
    ) -> Call<v1::UploadLoraResponse> {
        let (name, content) = (name.into(), content.into());
        self.upload(async move || Ok(Upload::of_bytes(name, content)))
    }

    /// Bring a LoRA file from a local path, without holding it in memory.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) if it cannot be read, beside the server's.
    pub fn upload_lora_file(
        &self,
        name: impl Into<String>,
        path: impl AsRef<Path>,
    ) -> Call<v1::UploadLoraResponse> {
        let (name, path) = (name.into(), path.as_ref().to_owned());
        self.upload(async move || Upload::of_file(name, path).await)
    }

    fn upload<F>(&self, open: impl FnOnce() -> F + Send + 'static) -> Call<v1::UploadLoraResponse>
    where
        F: Future<Output = Result<Upload>> + Send + 'static,
    {
        let mut catalog = self.catalog();
        self.call(async move |context| {
            let (parts, fault) = upload::parts(open().await?);
            let answer = context.answer(catalog.upload_lora(context.request(parts))).await;
            answer.map_err(|error| fault.take().unwrap_or(error))
        })
    }

    /// Fuse a LoRA set ahead of its first use; the answer is what a job with this set will be told.
    pub fn prepare_loras(&self, request: v1::PrepareLorasRequest) -> Call<Prepared> {
        let mut catalog = self.catalog();
        self.call(async move |context| {
            let answer = context.answer(catalog.prepare_loras(context.routed(request))).await?;
            let prepared =
                answer.prepared.ok_or_else(|| Error::incomplete("the answer has no `prepared`"))?;
            Ok(prepared.into())
        })
    }

    /// What a request would do, without drawing it.
    pub fn plan_job(&self, request: v1::PlanJobRequest) -> Call<v1::PlanJobResponse> {
        let mut catalog = self.catalog();
        self.call(async move |context| context.answer(catalog.plan_job(context.routed(request))).await)
    }

    /// The server's state now and whenever it changes, at most every `min_interval`. Dropping the stream ends
    /// the call.
    pub fn watch_status(
        &self,
        min_interval: Duration,
    ) -> Call<BoxStream<'static, Result<v1::WatchStatusResponse>>> {
        let mut catalog = self.catalog();
        self.call(async move |context| {
            let request = v1::WatchStatusRequest {
                min_interval: Some(prost_types::Duration::try_from(min_interval).unwrap_or_default()),
            };
            let stream = context.answer(catalog.watch_status(context.request(request))).await?;
            Ok(Messages::new(stream, context.deadline).boxed())
        })
    }
}
