//! The messages of an upload.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use futures_util::stream::{self, Stream, StreamExt};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncSeekExt};

use crate::error::{Error, Result};
use crate::v1::{UploadLoraHeader, UploadLoraRequest, upload_lora_request::Part};

const CHUNK_BYTES: usize = 1 << 20;

/// What is uploaded, hashed already.
pub(crate) struct Upload {
    header: UploadLoraHeader,
    content: Box<dyn AsyncRead + Send + Unpin>,
}

/// Why the messages ended early, if they did.
#[derive(Clone, Default)]
pub(crate) struct Fault(Arc<Mutex<Option<io::Error>>>);

impl Fault {
    pub fn take(&self) -> Option<Error> {
        let error = self.0.lock().expect("nothing panics while it is held").take();
        error.map(|error| Error::io("the file of the upload", &error))
    }

    fn set(&self, error: io::Error) {
        *self.0.lock().expect("nothing panics while it is held") = Some(error);
    }
}

impl Upload {
    pub fn of_bytes(name: String, content: Arc<[u8]>) -> Self {
        let header = header(name, Sha256::new_with_prefix(&content), content.len() as u64);
        Self { header, content: Box::new(io::Cursor::new(content)) }
    }

    /// The file is read twice: for its hash, and when it is sent.
    pub async fn of_file(name: String, path: PathBuf) -> Result<Self> {
        let read = async {
            let mut file = tokio::fs::File::open(&path).await?;
            let mut hash = Sha256::new();
            let mut size = 0;
            loop {
                let chunk = read_chunk(&mut file).await?;
                if chunk.is_empty() {
                    break;
                }
                hash.update(&chunk);
                size += chunk.len() as u64;
            }
            file.rewind().await?;
            Ok(Self { header: header(name, hash, size), content: Box::new(file) })
        };
        read.await.map_err(|error| Error::io(path.display(), &error))
    }
}

/// The header, then the chunks. A file that cannot be read on ends them, so that the server refuses the rest.
pub(crate) fn parts(upload: Upload) -> (impl Stream<Item = UploadLoraRequest> + Send + 'static, Fault) {
    let fault = Fault::default();
    let chunks = stream::unfold((upload.content, fault.clone()), |(mut content, fault)| async move {
        match read_chunk(&mut content).await {
            Ok(chunk) if chunk.is_empty() => None,
            Ok(chunk) => Some((message(Part::Chunk(chunk)), (content, fault))),
            Err(error) => {
                fault.set(error);
                None
            }
        }
    });
    let first = message(Part::Header(upload.header));
    (stream::once(async { first }).chain(chunks), fault)
}

fn header(name: String, hash: Sha256, size: u64) -> UploadLoraHeader {
    let sha256 = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    UploadLoraHeader { name, sha256, size_bytes: size.try_into().unwrap_or(i64::MAX) }
}

fn message(part: Part) -> UploadLoraRequest {
    UploadLoraRequest { part: Some(part) }
}

/// The next bytes, empty at the end.
async fn read_chunk(content: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut chunk = Vec::new();
    content.take(CHUNK_BYTES as u64).read_to_end(&mut chunk).await?;
    Ok(chunk)
}
