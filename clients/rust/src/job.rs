//! A running call and its events.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::stream::FusedStream;
use futures_util::{Stream, TryStreamExt};

use crate::error::{Error, Result};
use crate::events::{DrawnImage, Event};
use crate::messages::Messages;
use crate::v1;

/// A job on the server, as the stream of its events. It ends after [`Event::Finished`], or with its first
/// error.
///
/// Dropping it cancels the call, and the server ends the job before its next step.
#[must_use = "dropping a job cancels it"]
pub struct Job {
    messages: Messages<v1::JobEvent>,
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
    pub(crate) fn new(messages: Messages<v1::JobEvent>) -> Self {
        Self { messages, request_id: String::new(), sequence: None, state: State::Running }
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

    /// Cancel the call, as dropping the job does.
    pub fn cancel(self) {}

    fn take(&mut self, message: v1::JobEvent) -> Option<Event> {
        self.sequence = Some(message.sequence);
        self.request_id.clone_from(&message.request_id);
        let event = Event::decode(message);
        if matches!(event, Some(Event::Finished(_))) {
            self.state = State::Finished;
        }
        event
    }

    fn end(&mut self) -> Option<Result<Event>> {
        let complete = self.state != State::Running;
        self.state = State::Ended;
        (!complete).then(|| Err(Error::incomplete("the stream ended before `finished`")))
    }
}

impl Stream for Job {
    type Item = Result<Event>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        while self.state != State::Ended {
            match ready!(Pin::new(&mut self.messages).poll_next(context)) {
                None => return Poll::Ready(self.end()),
                Some(Err(error)) => {
                    self.state = State::Ended;
                    return Poll::Ready(Some(Err(error)));
                }
                Some(Ok(message)) => {
                    if let Some(event) = self.take(message) {
                        return Poll::Ready(Some(Ok(event)));
                    }
                }
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
