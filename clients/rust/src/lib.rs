//! A client of sdgrpc: Stable Diffusion with LoRA files over gRPC.
//!
//! ```no_run
//! use futures_util::TryStreamExt;
//! use sdgrpc::v1::{GenerateRequest, Lora, Sampling};
//! use sdgrpc::{Client, Event};
//!
//! # async fn draw() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect("localhost:50051").await?;
//! let mut job = client
//!     .generate(GenerateRequest {
//!         prompt: "a red star on a blue background".into(),
//!         loras: vec![Lora::named("postcard", 0.8)],
//!         sampling: Some(Sampling { steps: 20, seed: Some(7), ..Default::default() }),
//!         ..Default::default()
//!     })
//!     .await?;
//! while let Some(event) = job.try_next().await? {
//!     match event {
//!         Event::Progress(progress) => println!("step {}", progress.step),
//!         Event::Image(drawn) => std::fs::write("star.png", &drawn.image.data)?,
//!         _ => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Dropping a [`Job`], or the future of a call, cancels it: the server ends the job before its next step,
//! unless its request has `OnDisconnect::Keep`: then [`Client::attach`] finds it again. A call that is cut by the end of
//! its server or connection is resumed, see [`ClientBuilder::resume`].

mod call;
mod catalog;
mod client;
mod cluster;
mod connect;
mod error;
mod events;
mod job;
mod kept;
mod messages;
mod requests;
mod resume;
mod routing;
mod upload;

pub use call::Call;
pub use client::Client;
pub use connect::{ClientBuilder, MAX_MESSAGE_BYTES};
pub use error::{Error, ErrorKind, Resource, Result, Violation};
pub use events::{Accepted, DrawnImage, Event, Finished, Prepared, Preview, PreviewContent, Progress};
pub use job::Job;

/// What [`ClientBuilder::tls`] takes: `tonic::transport::{Certificate, ClientTlsConfig, Identity}`.
#[cfg(feature = "tls")]
pub use tonic::transport::{Certificate, ClientTlsConfig, Identity};

/// The contract's messages, and its services as tonic generates them.
#[allow(missing_docs, clippy::all)]
pub mod v1 {
    include!("generated/sdgrpc.v1.rs");
}

/// The contract as an encoded `google.protobuf.FileDescriptorSet`, for reflection and JSON.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("generated/sdgrpc.v1.binpb");
