//! Failures: a `google.rpc.Status` with its details, decoded and typed.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// What every call of this crate returns.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, as far as a program may want to act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Fields of the request are wrong: see [`Error::violations`].
    InvalidRequest,
    /// The server has no such model: see [`Error::resource`].
    ModelNotFound,
    /// The server has no such LoRA file: see [`Error::resource`].
    LoraNotFound,
    /// The server keeps no such job for this client: it was not sent to be kept, or is forgotten.
    JobNotFound,
    /// The server keeps a job of that request_id, which asks for something else.
    JobExists,
    /// A LoRA file that is broken, for another base, or in a format that is not applied; its name stands
    /// under `lora` in [`Error::metadata`].
    LoraUnusable,
    /// The request is sound, but what it names cannot be used like this.
    FailedPrecondition,
    /// The server's queue, or this token's part of it, is full: see [`Error::retry_after`].
    QueueFull,
    /// The server's device has no memory left for this job.
    OutOfMemory,
    /// Another budget of the server is used up, or a message is too large.
    ResourceExhausted,
    /// The call showed no token, or none that is valid: see [`ClientBuilder::token`](crate::ClientBuilder::token).
    Unauthenticated,
    /// No server answers, it is stopping, or the connection broke.
    Unavailable,
    /// The call's timeout passed; the server drops the job.
    DeadlineExceeded,
    /// The call was cancelled, and with it the job.
    Cancelled,
    /// The stream ended without an error and without its last event.
    IncompleteAnswer,
    /// A fault of the server; its log has the cause under the id in the message.
    Internal,
    /// The target is not an address, or its TLS settings or the token are wrong.
    BadTarget,
    /// A local file could not be read.
    Io,
    /// Any other status code: see [`Error::code`].
    Other,
}

/// A field of a request that is wrong: `loras[1].strength`, `1.5 is above 1.0`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Its path.
    pub field: String,
    /// What is wrong with it.
    pub description: String,
}

/// What was not found: `sdgrpc.v1.Lora`, `styles/postcard`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// A message of the contract.
    pub kind: String,
    /// As the request gave it.
    pub name: String,
}

/// A call that failed. Its text names the cause too, so that it has no source.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}: {}", .0.label(), .0.message)]
pub struct Error(Box<Failure>);

#[derive(Clone, Debug)]
struct Failure {
    kind: ErrorKind,
    code: Code,
    message: String,
    details: Details,
}

#[derive(Clone, Debug, Default)]
struct Details {
    domain: String,
    reason: String,
    metadata: HashMap<String, String>,
    violations: Vec<Violation>,
    resource: Option<Resource>,
    retry_after: Option<Duration>,
}

impl Failure {
    fn label(&self) -> String {
        match self.details.reason.as_str() {
            "" => format!("{:?}", self.code),
            reason => reason.to_owned(),
        }
    }
}

impl Error {
    /// What to act on.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The gRPC status code. Failures of this side have the code that fits best.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// A sentence for people.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The domain of ErrorInfo: `sdgrpc`, or empty if the failure did not come from an sdgrpc server.
    pub fn domain(&self) -> &str {
        &self.0.details.domain
    }

    /// The reason of ErrorInfo, such as `LORA_MALFORMED`; empty if there is none.
    pub fn reason(&self) -> &str {
        &self.0.details.reason
    }

    /// The metadata of ErrorInfo.
    pub fn metadata(&self) -> &HashMap<String, String> {
        &self.0.details.metadata
    }

    /// Every field that is wrong.
    pub fn violations(&self) -> &[Violation] {
        &self.0.details.violations
    }

    /// What was not found.
    pub fn resource(&self) -> Option<&Resource> {
        self.0.details.resource.as_ref()
    }

    /// After this time trying again may help; none where it will not.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.details.retry_after
    }

    fn local(kind: ErrorKind, code: Code, message: impl Into<String>) -> Self {
        Self(Box::new(Failure { kind, code, message: message.into(), details: Details::default() }))
    }

    pub(crate) fn deadline() -> Self {
        Self::local(ErrorKind::DeadlineExceeded, Code::DeadlineExceeded, "the call's timeout passed")
    }

    pub(crate) fn incomplete(what: &str) -> Self {
        Self::local(ErrorKind::IncompleteAnswer, Code::DataLoss, what)
    }

    pub(crate) fn bad_target(target: &str, cause: impl std::fmt::Display) -> Self {
        let message = format!("{target:?} is not a usable target: {cause}");
        Self::local(ErrorKind::BadTarget, Code::InvalidArgument, message)
    }

    pub(crate) fn bad_token() -> Self {
        let message = String::from("the token must be printable ASCII without spaces");
        Self::local(ErrorKind::BadTarget, Code::InvalidArgument, message)
    }

    pub(crate) fn unreachable(target: &str, cause: &tonic::transport::Error) -> Self {
        let message = format!("no connection to {target}: {}", first_cause(cause));
        Self::local(ErrorKind::Unavailable, Code::Unavailable, message)
    }

    pub(crate) fn io(what: impl std::fmt::Display, cause: &std::io::Error) -> Self {
        Self::local(ErrorKind::Io, Code::Unknown, format!("{what}: {cause}"))
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        let details = Details::from(status.get_error_details());
        // Only what happened here has a source, and tonic has several codes for a broken connection.
        let cause = status.source().map(first_cause);
        let code = match status.code() {
            Code::Unknown | Code::Internal | Code::Cancelled if cause.is_some() => Code::Unavailable,
            code => code,
        };
        let message = cause.unwrap_or_else(|| status.message().to_owned());
        Self(Box::new(Failure { kind: kind_of(code, &details.reason), code, message, details }))
    }
}

impl From<ErrorDetails> for Details {
    fn from(details: ErrorDetails) -> Self {
        let info = details.error_info().cloned();
        let (domain, reason, metadata) =
            info.map(|info| (info.domain, info.reason, info.metadata)).unwrap_or_default();
        let violations = details.bad_request().map(|bad| bad.field_violations.clone()).unwrap_or_default();
        Self {
            domain,
            reason,
            metadata,
            violations: violations
                .into_iter()
                .map(|wrong| Violation { field: wrong.field, description: wrong.description })
                .collect(),
            resource: details
                .resource_info()
                .map(|info| Resource { kind: info.resource_type.clone(), name: info.resource_name.clone() }),
            retry_after: details.retry_info().and_then(|info| info.retry_delay),
        }
    }
}

fn kind_of(code: Code, reason: &str) -> ErrorKind {
    match (reason, code) {
        ("MODEL_NOT_FOUND", _) => ErrorKind::ModelNotFound,
        ("LORA_NOT_FOUND", _) => ErrorKind::LoraNotFound,
        ("JOB_NOT_FOUND", _) => ErrorKind::JobNotFound,
        ("JOB_EXISTS", _) => ErrorKind::JobExists,
        ("LORA_UNUSABLE" | "LORA_INCOMPATIBLE" | "LORA_MALFORMED" | "LORA_UNSUPPORTED", _) => {
            ErrorKind::LoraUnusable
        }
        ("QUEUE_FULL" | "TOKEN_QUEUE_FULL", _) => ErrorKind::QueueFull,
        ("OUT_OF_MEMORY", _) => ErrorKind::OutOfMemory,
        (_, Code::InvalidArgument) => ErrorKind::InvalidRequest,
        (_, Code::FailedPrecondition) => ErrorKind::FailedPrecondition,
        (_, Code::ResourceExhausted) => ErrorKind::ResourceExhausted,
        (_, Code::Unauthenticated) => ErrorKind::Unauthenticated,
        (_, Code::Unavailable) => ErrorKind::Unavailable,
        (_, Code::DeadlineExceeded) => ErrorKind::DeadlineExceeded,
        (_, Code::Cancelled) => ErrorKind::Cancelled,
        (_, Code::Internal) => ErrorKind::Internal,
        _ => ErrorKind::Other,
    }
}

/// The message of the first cause: those after it say little ("transport error").
fn first_cause(error: &(dyn StdError + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
