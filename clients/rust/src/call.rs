//! A call that is not sent yet, and its deadline.

use std::future::{Future, IntoFuture};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::{Instant, timeout_at};
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Response, Status};

use crate::error::{Error, Result};
use crate::routing::Routed;

/// The header takes eight digits, of hours at most; nobody waits for a century.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
/// The server's clock may run ahead of ours: so close to the deadline a reset by it means the deadline.
const CLOCK_TOLERANCE: Duration = Duration::from_millis(20);

type Start<T> = Box<dyn FnOnce(Context) -> BoxFuture<'static, Result<T>> + Send>;

/// A call that begins when it is awaited. Dropping its future cancels it.
#[must_use = "a call is sent when it is awaited"]
pub struct Call<T> {
    start: Start<T>,
    timeout: Option<Duration>,
    metadata: MetadataMap,
}

impl<T> Call<T> {
    pub(crate) fn new<F>(
        timeout: Option<Duration>,
        metadata: MetadataMap,
        start: impl FnOnce(Context) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let start = Box::new(move |context| start(context).boxed());
        Self { start, timeout, metadata }
    }

    /// End the call, its stream included, with [`ErrorKind::DeadlineExceeded`] after `timeout`.
    ///
    /// The server is told, and drops the job by itself; the client waits no longer in any case. It replaces
    /// the client's own timeout.
    ///
    /// [`ErrorKind::DeadlineExceeded`]: crate::ErrorKind::DeadlineExceeded
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Headers of this call beside the client's own, such as `traceparent`; they replace those of the same name.
    pub fn metadata(mut self, metadata: MetadataMap) -> Self {
        let mut headers = self.metadata.into_headers();
        headers.extend(metadata.into_headers());
        self.metadata = MetadataMap::from_headers(headers);
        self
    }
}

impl<T: 'static> IntoFuture for Call<T> {
    type Output = Result<T>;
    type IntoFuture = BoxFuture<'static, Result<T>>;

    fn into_future(self) -> Self::IntoFuture {
        // The time runs from here, not from the first poll: that is when the caller sent it.
        (self.start)(Context { deadline: Deadline::after(self.timeout), metadata: self.metadata })
    }
}

/// What every request of a call takes along.
pub(crate) struct Context {
    pub deadline: Deadline,
    metadata: MetadataMap,
}

impl Context {
    pub fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        *request.metadata_mut() = self.metadata.clone();
        if let Some((_, timeout)) = self.deadline.0 {
            request.set_timeout(timeout);
        }
        request
    }

    /// The same, with what a proxy routes by.
    pub fn routed<T: Routed>(&self, message: T) -> Request<T> {
        let mut request = self.request(message);
        let mut metadata = std::mem::take(request.metadata_mut());
        request.get_ref().tell(&mut metadata);
        *request.metadata_mut() = metadata;
        request
    }

    /// The answer, or a failure: the server's, or the deadline's.
    pub async fn answer<T>(
        &self,
        call: impl Future<Output = std::result::Result<Response<T>, Status>>,
    ) -> Result<T> {
        let outcome = match self.deadline.0 {
            None => call.await,
            Some((at, _)) => match timeout_at(at, call).await {
                Ok(outcome) => outcome,
                Err(_) => return Err(Error::deadline()),
            },
        };
        outcome.map(Response::into_inner).map_err(|status| self.deadline.error(status))
    }
}

/// When a call ends whatever happens, and the timeout that it came from.
#[derive(Clone, Copy)]
pub(crate) struct Deadline(Option<(Instant, Duration)>);

impl Deadline {
    pub fn after(timeout: Option<Duration>) -> Self {
        Self(
            timeout
                .map(|timeout| timeout.min(LONGEST_TIMEOUT))
                .map(|timeout| (Instant::now() + timeout, timeout)),
        )
    }

    pub fn instant(self) -> Option<Instant> {
        self.0.map(|(at, _)| at)
    }

    /// The failure of a call with this deadline: transports tell a passed deadline as a cancelled call, and proxies as a
    /// stream that is reset.
    pub fn error(self, status: Status) -> Error {
        let passed = self.instant().is_some_and(|at| Instant::now() + CLOCK_TOLERANCE >= at);
        match status.code() {
            Code::Cancelled if passed => Error::deadline(),
            Code::Internal | Code::Unknown if passed && status.details().is_empty() => Error::deadline(),
            _ => Error::from(status),
        }
    }
}
