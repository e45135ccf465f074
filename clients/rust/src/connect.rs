//! How a server is reached.

use std::time::Duration;

use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
#[cfg(feature = "tls")]
use tonic::transport::ClientTlsConfig;
use tonic::transport::{Channel, Endpoint};

use crate::client::Client;
use crate::error::{Error, Result};
use crate::resume::PATIENCE;

/// Images travel whole in one message, and gRPC's own limit of 4 MiB is below that of a large PNG.
pub const MAX_MESSAGE_BYTES: usize = 128 << 20;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// The server allows pings this often, also between calls: a peer that vanished is noticed.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(60);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// The server's error details take up to 8 KiB.
const MAX_HEADER_BYTES: u32 = 64 << 10;

/// Settings of a [`Client`].
#[derive(Clone, Debug)]
#[must_use]
pub struct ClientBuilder {
    target: String,
    connect_timeout: Duration,
    keep_alive: (Duration, Duration),
    token: Option<MetadataValue<Ascii>>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) patience: Duration,
    pub(crate) max_message_bytes: usize,
    metadata: MetadataMap,
    #[cfg(feature = "tls")]
    tls: Option<ClientTlsConfig>,
}

impl ClientBuilder {
    pub(crate) fn new(target: impl Into<String>) -> Self {
        Self {
            target: target.into(),
            connect_timeout: CONNECT_TIMEOUT,
            keep_alive: (KEEP_ALIVE_INTERVAL, KEEP_ALIVE_TIMEOUT),
            token: None,
            timeout: None,
            patience: PATIENCE,
            max_message_bytes: MAX_MESSAGE_BYTES,
            metadata: MetadataMap::new(),
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

    /// How long a connection may take; 20 seconds unless set.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// The timeout of every call that sets none itself; unlimited unless set.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// For how long a call is tried again that was cut once its job was accepted, by the end of its server or of the
    /// connection, until a server takes it; ten seconds unless set, zero for never.
    ///
    /// The same request is sent with the seed and the id that `accepted` told, and events that were seen are left
    /// out. With a server that shares no UNet calls (`--no-batching`) the pictures are the same to the byte.
    pub fn resume(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The largest message in either direction; [`MAX_MESSAGE_BYTES`] unless set.
    pub fn max_message_bytes(mut self, bytes: usize) -> Self {
        self.max_message_bytes = bytes;
        self
    }

    /// Headers of every call, such as what a gateway before the server asks for.
    pub fn metadata(mut self, metadata: MetadataMap) -> Self {
        self.metadata = metadata;
        self
    }

    /// Send `authorization: Bearer TOKEN` with every call; an empty token sends nothing.
    ///
    /// Without TLS whoever sees the traffic can read it: leave TLS out on the loopback and on Unix sockets only.
    ///
    /// # Errors
    /// [`ErrorKind::BadTarget`](crate::ErrorKind::BadTarget) if a header cannot carry it: it must be printable
    /// ASCII without spaces. The error does not quote it.
    pub fn token(mut self, token: &str) -> Result<Self> {
        let value = match token {
            "" => None,
            _ if token.bytes().all(|byte| byte.is_ascii_graphic()) => format!("Bearer {token}").parse().ok(),
            _ => return Err(Error::bad_token()),
        };
        self.token = value.map(|mut value: MetadataValue<Ascii>| {
            value.set_sensitive(true); // printed as "Sensitive"
            value
        });
        Ok(self)
    }

    /// How often to ping the server, also between calls, and how long it may take to answer before the connection
    /// counts as broken; 60 and 20 seconds unless set. A server takes a ping every ten seconds.
    pub fn keep_alive(mut self, interval: Duration, timeout: Duration) -> Self {
        self.keep_alive = (interval, timeout);
        self
    }

    pub(crate) fn headers(&self) -> MetadataMap {
        let mut headers = self.metadata.clone();
        if let Some(token) = &self.token {
            headers.insert("authorization", token.clone());
        }
        headers
    }

    /// Talk TLS: the authorities to trust, and this client's certificate if the server asks for one.
    ///
    /// An `https://` target without it trusts the system's authorities.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: ClientTlsConfig) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Connect now.
    ///
    /// # Errors
    /// [`ErrorKind::BadTarget`](crate::ErrorKind::BadTarget), or
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) if no server answers.
    pub async fn connect(self) -> Result<Client> {
        let channel = self.endpoint()?.connect().await;
        let channel = channel.map_err(|error| Error::unreachable(&self.target, &error))?;
        Ok(Client::assemble(channel, self))
    }

    /// Connect at the first call. Must be called in a Tokio runtime.
    ///
    /// # Errors
    /// [`ErrorKind::BadTarget`](crate::ErrorKind::BadTarget).
    pub fn connect_lazy(self) -> Result<Client> {
        Ok(Client::assemble(self.endpoint()?.connect_lazy(), self))
    }

    /// Use a channel that was made elsewhere, say with a connector of its own.
    pub fn with_channel(self, channel: Channel) -> Client {
        Client::assemble(channel, self)
    }

    fn endpoint(&self) -> Result<Endpoint> {
        let endpoint = Endpoint::from_shared(self.address())
            .map_err(|error| Error::bad_target(&self.target, error))?
            .connect_timeout(self.connect_timeout)
            .http2_keep_alive_interval(self.keep_alive.0)
            .keep_alive_timeout(self.keep_alive.1)
            .keep_alive_while_idle(true)
            .http2_max_header_list_size(MAX_HEADER_BYTES);
        self.secured(endpoint)
    }

    #[cfg(feature = "tls")]
    fn secured(&self, endpoint: Endpoint) -> Result<Endpoint> {
        let tls = match &self.tls {
            Some(tls) => tls.clone(),
            None if endpoint.uri().scheme_str() == Some("https") => {
                ClientTlsConfig::new().with_native_roots()
            }
            None => return Ok(endpoint),
        };
        endpoint.tls_config(tls).map_err(|error| Error::bad_target(&self.target, error))
    }

    #[cfg(not(feature = "tls"))]
    fn secured(&self, endpoint: Endpoint) -> Result<Endpoint> {
        match endpoint.uri().scheme_str() {
            Some("https") => Err(Error::bad_target(&self.target, "https:// needs the feature `tls`")),
            _ => Ok(endpoint),
        }
    }

    /// The target as a URI: `HOST:PORT` is taken as well, and `unix:/PATH`.
    fn address(&self) -> String {
        if self.target.contains("://") || self.target.starts_with("unix:") {
            return self.target.clone();
        }
        #[cfg(feature = "tls")]
        if self.tls.is_some() {
            return format!("https://{}", self.target);
        }
        format!("http://{}", self.target)
    }
}
