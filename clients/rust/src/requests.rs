//! Short forms of what requests are made of.

use crate::v1::{Image, Lora, lora};

impl Lora {
    /// A file of the server's LoRA folder, with or without `.safetensors`, at a strength.
    pub fn named(name: impl Into<String>, strength: f32) -> Self {
        Self::of(lora::Source::Name(name.into()), strength)
    }

    /// The file of this content, whatever its name: the lower-case hex SHA-256 of it.
    pub fn with_sha256(sha256: impl Into<String>, strength: f32) -> Self {
        Self::of(lora::Source::Sha256(sha256.into()), strength)
    }

    fn of(source: lora::Source, strength: f32) -> Self {
        Self { source: Some(source), strength: Some(strength), ..Self::default() }
    }
}

/// The bytes of a PNG, JPEG or WebP file.
impl From<Vec<u8>> for Image {
    fn from(data: Vec<u8>) -> Self {
        Self { data, ..Self::default() }
    }
}
