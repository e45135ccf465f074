//! The client against servers in this process that answer what a test says.

mod calls;
mod catalog;
mod errors;
mod events;
mod keepalive;
mod resume;
mod routing;
mod server;
#[cfg(feature = "tls")]
mod tls;
mod token;
