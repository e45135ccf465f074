//! The messages of a server's stream, up to the call's deadline.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::Stream;
use tokio::time::{Sleep, sleep_until};
use tonic::Streaming;

use crate::call::Deadline;
use crate::error::{Error, Result};

/// Ends with its first failure. Dropping it cancels the call.
pub(crate) struct Messages<T> {
    stream: Option<Streaming<T>>,
    deadline: Deadline,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl<T> Messages<T> {
    pub fn new(stream: Streaming<T>, deadline: Deadline) -> Self {
        let alarm = deadline.instant().map(|at| Box::pin(sleep_until(at)));
        Self { stream: Some(stream), deadline, alarm }
    }

    /// Take no more of the stream; the server is told.
    pub fn close(&mut self) {
        self.stream = None;
    }
}

impl<T> Stream for Messages<T> {
    type Item = Result<T>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let Some(stream) = &mut this.stream else {
            return Poll::Ready(None);
        };
        if let Some(alarm) = &mut this.alarm
            && alarm.as_mut().poll(context).is_ready()
        {
            this.close();
            return Poll::Ready(Some(Err(Error::deadline())));
        }
        let item = ready!(Pin::new(stream).poll_next(context));
        if !matches!(item, Some(Ok(_))) {
            this.close();
        }
        Poll::Ready(item.map(|message| message.map_err(|status| this.deadline.error(status))))
    }
}
