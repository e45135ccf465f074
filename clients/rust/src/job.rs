//! A running call and its events.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FusedStream;
use futures_util::{FutureExt, Stream, TryStreamExt};
use tokio::time::sleep;

use crate::error::{Error, Result};
use crate::events::{DrawnImage, Event};
use crate::messages::Messages;
use crate::resume::{Resumption, Source};
use crate::v1;

/// A job on the server, as the stream of its events. It ends after [`Event::Finished`], or with its first
/// error.
///
/// Dropping it cancels the call, and the server ends the job before its next step; one whose request has
/// `OnDisconnect::Keep` goes on.
#[must_use = "dropping a job cancels it"]
pub struct Job {
    messages: Messages<v1::JobEvent>,
    source: Box<dyn Source>,
    resumption: Resumption,
    opening: Option<BoxFuture<'static, Result<Messages<v1::JobEvent>>>>,
    request_id: String,
    sequence: Option<i64>,
    state: State,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Running,
    /// `finished` was read; the trailers may still come.
    Finished,
    Ended,
}

impl Job {
    pub(crate) fn new(messages: Messages<v1::JobEvent>, source: Box<dyn Source>, patience: Duration) -> Self {
        Self {
            messages,
            source,
            resumption: Resumption::new(patience),
            opening: None,
            request_id: String::new(),
            sequence: None,
            state: State::Running,
        }
    }

    /// The job's name in the server's logs; empty before the first event.
    pub fn request_id(&self) -> &str {
        &self.request_id
    }

    /// The number of the last event: 0, 1, 2 … without gaps, but for previews that were missed.
    pub fn sequence(&self) -> Option<i64> {
        self.sequence
    }

    /// Wait for the end of the job, and return the pictures that were not read before, ordered by their index.
    pub async fn images(self) -> Result<Vec<DrawnImage>> {
        let drawn = self.try_filter_map(async |event| match event {
            Event::Image(image) => Ok(Some(image)),
            _ => Ok(None),
        });
        let mut images: Vec<_> = drawn.try_collect().await?;
        images.sort_by_key(|image| image.index);
        Ok(images)
    }

    /// Cancel the call, as dropping the job does; [`Client::cancel_job`](crate::Client::cancel_job) ends one that
    /// is kept.
    pub fn cancel(self) {}

    /// Leave a job whose request has `OnDisconnect::Keep`, once it is accepted; the id by which
    /// [`Client::attach`](crate::Client::attach) finds it. Any other job is cancelled by being left.
    ///
    /// # Errors
    /// What the job was refused with.
    pub async fn detach(mut self) -> Result<String> {
        while self.request_id.is_empty() {
            if self.try_next().await?.is_none() {
                return Err(incomplete());
            }
        }
        Ok(self.request_id)
    }

    fn take(&mut self, message: v1::JobEvent) -> Option<Event> {
        if !self.resumption.is_new(&message) {
            return None;
        }
        self.source.note(&message);
        self.sequence = Some(message.sequence);
        self.request_id.clone_from(&message.request_id);
        let event = Event::decode(message);
        if matches!(event, Some(Event::Finished(_))) {
            self.state = State::Finished;
        }
        event
    }

    /// The end of a call: the job's, if its last event was read, or was before the call.
    fn end(&mut self) -> Option<Result<Event>> {
        if self.state == State::Running && !(self.source.is_partial() && self.resumption.saw_nothing()) {
            return self.cut(incomplete());
        }
        self.state = State::Ended;
        None
    }

    /// Go on after a call was cut, or say what ended the job.
    fn cut(&mut self, error: Error) -> Option<Result<Event>> {
        let wait = match self.state {
            State::Running => self.resumption.wait_after(error, self.source.deadline()),
            _ => Err(error),
        };
        match wait {
            Ok(wait) => {
                let opening = self.source.open();
                self.opening = Some(
                    async move {
                        sleep(wait).await;
                        opening.await
                    }
                    .boxed(),
                );
                None
            }
            Err(error) => {
                self.state = State::Ended;
                Some(Err(error))
            }
        }
    }
}

fn incomplete() -> Error {
    Error::incomplete("the stream ended before `finished`")
}

impl Stream for Job {
    type Item = Result<Event>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        while self.state != State::Ended {
            if let Some(opening) = &mut self.opening {
                let opened = ready!(opening.as_mut().poll(context));
                self.opening = None;
                match opened {
                    Ok(messages) => self.messages = messages,
                    Err(error) => {
                        if let Some(failure) = self.cut(error) {
                            return Poll::Ready(Some(failure));
                        }
                    }
                }
                continue;
            }
            let item = match ready!(Pin::new(&mut self.messages).poll_next(context)) {
                None => self.end(),
                Some(Err(error)) => self.cut(error),
                Some(Ok(message)) => self.take(message).map(Ok),
            };
            if item.is_some() {
                return Poll::Ready(item);
            }
        }
        Poll::Ready(None)
    }
}

impl FusedStream for Job {
    fn is_terminated(&self) -> bool {
        self.state == State::Ended
    }
}
