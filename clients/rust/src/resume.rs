//! What of a job was seen, and how a call that was cut goes on.

use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::Instant;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::call::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::messages::Messages;
use crate::routing::{self, Routed};
use crate::v1;
use crate::v1::job_event::Event;

/// How long a call that was cut is tried again until a server takes it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// How often a job is begun anew: what ends server after server is not to end all of them.
const MOST_RESUMPTIONS: u32 = 5;
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

type Events = Messages<v1::JobEvent>;

/// A request of which a job comes, and that can go on with it.
pub(crate) trait Resumable: Routed + Clone + Send + Sync + 'static {
    /// Become the request that goes on after this event.
    fn note(&mut self, event: &v1::JobEvent);

    /// Have an id where its job is kept.
    fn name(&mut self) {}

    /// Whether it asks for the events after one alone.
    fn is_partial(&self) -> bool {
        false
    }
}

macro_rules! drawn {
    ($($request:ty),*) => {$(
        impl Resumable for $request {
            fn note(&mut self, event: &v1::JobEvent) {
                if let Some(Event::Accepted(accepted)) = &event.event {
                    self.request_id.clone_from(&event.request_id);
                    self.sampling.get_or_insert_default().seed =
                        accepted.sampling.as_ref().and_then(|sampling| sampling.seed);
                }
            }

            fn name(&mut self) {
                if self.request_id.is_empty() && self.on_disconnect() == v1::OnDisconnect::Keep {
                    self.request_id = routing::made_up_id();
                }
            }
        }
    )*};
}

drawn!(v1::GenerateRequest, v1::TransformRequest, v1::InpaintRequest);

impl Resumable for v1::AttachJobRequest {
    fn note(&mut self, event: &v1::JobEvent) {
        self.after_sequence = Some(event.sequence);
    }

    fn is_partial(&self) -> bool {
        self.after_sequence.is_some()
    }
}

/// What a job is read from, again where it was cut.
pub(crate) trait Source: Send {
    fn note(&mut self, event: &v1::JobEvent);
    fn is_partial(&self) -> bool;
    fn deadline(&self) -> Option<Instant>;
    fn open(&self) -> BoxFuture<'static, Result<Events>>;
}

type Answer = std::result::Result<Response<Streaming<v1::JobEvent>>, Status>;

pub(crate) struct Sender<R, S> {
    pub request: R,
    pub context: Arc<Context>,
    pub send: S,
}

impl<R, S, F> Source for Sender<R, S>
where
    R: Resumable,
    S: Fn(Request<R>) -> F + Send,
    F: Future<Output = Answer> + Send + 'static,
{
    fn note(&mut self, event: &v1::JobEvent) {
        self.request.note(event);
    }

    fn is_partial(&self) -> bool {
        self.request.is_partial()
    }

    fn deadline(&self) -> Option<Instant> {
        self.context.deadline.instant()
    }

    fn open(&self) -> BoxFuture<'static, Result<Events>> {
        let context = Arc::clone(&self.context);
        let answer = (self.send)(context.routed(self.request.clone()));
        async move { Ok(Messages::new(context.answer(answer).await?, context.deadline)) }.boxed()
    }
}

/// Decides what is new, and whether to go on.
pub(crate) struct Resumption {
    patience: Duration,
    seen: HashSet<(u8, i64)>,
    cut: Option<(Error, Instant)>,
    wait: Duration,
    count: u32,
}

impl Resumption {
    pub fn new(patience: Duration) -> Self {
        Self { patience, seen: HashSet::new(), cut: None, wait: FIRST_WAIT, count: 0 }
    }

    pub fn saw_nothing(&self) -> bool {
        self.seen.is_empty()
    }

    /// Take note of an event; whether it was not seen before.
    pub fn is_new(&mut self, event: &v1::JobEvent) -> bool {
        if self.cut.take().is_some() {
            self.wait = FIRST_WAIT;
            self.count += 1;
        }
        self.seen.insert(key_of(event))
    }

    /// In how long to open the source again, or what ended the job.
    pub fn wait_after(&mut self, error: Error, deadline: Option<Instant>) -> Result<Duration> {
        if self.seen.is_empty() || !is_cut(&error) || self.count >= MOST_RESUMPTIONS {
            return Err(error);
        }
        let now = Instant::now();
        let wait = self.wait.max(error.retry_after().unwrap_or_default());
        self.wait = (2 * self.wait).min(LONGEST_WAIT);
        let (first, at) = self.cut.get_or_insert((error, now)).clone();
        let passes = deadline.is_some_and(|deadline| now + wait >= deadline);
        if passes || now + wait > at + self.patience { Err(first) } else { Ok(wait) }
    }
}

/// What an event of a job is, whoever draws it.
fn key_of(event: &v1::JobEvent) -> (u8, i64) {
    match &event.event {
        None => (0, event.sequence), // of a newer contract
        Some(Event::Accepted(_)) => (1, 0),
        Some(Event::Prepared(_)) => (2, 0),
        Some(Event::Progress(progress)) => (3, progress.step.into()),
        Some(Event::Image(image)) => (4, image.index.into()),
        Some(Event::Finished(_)) => (5, 0),
    }
}

/// Whether a call ended because its server or connection did, or because there is none yet.
fn is_cut(error: &Error) -> bool {
    let broken = matches!(error.code(), Code::Internal | Code::Unknown) && error.reason().is_empty();
    broken || matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::IncompleteAnswer)
}
