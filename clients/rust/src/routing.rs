//! What calls tell of themselves so that a proxy before several servers can bring them where they belong: to a server
//! that has the LoRA set fused, and to the one that keeps the job. Servers read neither.

use std::collections::hash_map::RandomState;
use std::fmt::Write;
use std::hash::{BuildHasher, Hasher};

use sha2::{Digest, Sha256};
use tonic::metadata::MetadataMap;

use crate::v1::{self, lora};

const LORA_SET: &str = "x-sdgrpc-lora-set";
const JOB: &str = "x-sdgrpc-job";
const FORM: &str = "sdgrpc lora set 1";
const ID_BYTES: usize = 16;

/// A request whose call belongs to some server.
pub(crate) trait Routed {
    /// The ids of its LoRA set and of its kept job, each empty where there is none.
    fn routing(&self) -> (String, String);

    fn tell(&self, metadata: &mut MetadataMap) {
        let (set, job) = self.routing();
        for (key, id) in [(LORA_SET, set), (JOB, job)] {
            if !id.is_empty()
                && let Ok(id) = id.parse()
            {
                metadata.insert(key, id);
            }
        }
    }
}

macro_rules! drawn {
    ($($request:ty),*) => {$(
        impl Routed for $request {
            fn routing(&self) -> (String, String) {
                let keeps = self.on_disconnect() == v1::OnDisconnect::Keep;
                let job = if keeps { job_id(&self.request_id) } else { String::new() };
                (lora_set_id(&self.model, &self.loras, &self.prompt), job)
            }
        }
    )*};
}

drawn!(v1::GenerateRequest, v1::TransformRequest, v1::InpaintRequest);

/// The set of the request that a plan is asked of: the server that has it fused knows best.
impl Routed for v1::PlanJobRequest {
    fn routing(&self) -> (String, String) {
        use v1::plan_job_request::Request;
        let set = match &self.request {
            Some(Request::Generate(drawn)) => lora_set_id(&drawn.model, &drawn.loras, &drawn.prompt),
            Some(Request::Transform(drawn)) => lora_set_id(&drawn.model, &drawn.loras, &drawn.prompt),
            Some(Request::Inpaint(drawn)) => lora_set_id(&drawn.model, &drawn.loras, &drawn.prompt),
            None => String::new(),
        };
        (set, String::new())
    }
}

impl Routed for v1::PrepareLorasRequest {
    fn routing(&self) -> (String, String) {
        (lora_set_id(&self.model, &self.loras, ""), String::new())
    }
}

impl Routed for v1::AttachJobRequest {
    fn routing(&self) -> (String, String) {
        (String::new(), job_id(&self.request_id))
    }
}

impl Routed for v1::CancelJobRequest {
    fn routing(&self) -> (String, String) {
        (String::new(), job_id(&self.request_id))
    }
}

/// An id for a job that is kept and has none: proxies find a job by the id that its first call had.
pub(crate) fn made_up_id() -> String {
    // Each state has keys of its own, from the system's randomness.
    let mut id = String::new();
    for _ in 0..2 {
        _ = write!(id, "{:016x}", RandomState::new().build_hasher().finish());
    }
    id
}

/// Depends on the model, the LoRAs in any order, their strengths, and the text of the prompt's tags.
fn lora_set_id(model: &str, loras: &[v1::Lora], prompt: &str) -> String {
    let mut lines: Vec<String> = loras.iter().map(line).collect();
    lines.extend(tags(prompt).map(|tag| format!("tag {tag}")));
    if lines.is_empty() {
        return String::new();
    }
    lines.sort_unstable();
    let head = [FORM, model].into_iter();
    let text: Vec<&str> = head.chain(lines.iter().map(String::as_str)).collect();
    hashed(text.join("\n").as_bytes(), ID_BYTES)
}

fn job_id(request_id: &str) -> String {
    if request_id.is_empty() { String::new() } else { hashed(request_id.as_bytes(), ID_BYTES) }
}

fn tags(prompt: &str) -> impl Iterator<Item = &str> {
    let mut rest = prompt;
    std::iter::from_fn(move || {
        let (_, opened) = rest.split_once("<lora:")?;
        let (tag, after) = opened.split_once('>')?;
        rest = after;
        Some(tag)
    })
}

fn line(lora: &v1::Lora) -> String {
    let strength = lora.strength.unwrap_or(1.0);
    let text_encoder = lora.text_encoder_strength.unwrap_or(strength);
    let source = match &lora.source {
        Some(lora::Source::Sha256(sha256)) => format!("sha256 {}", sha256.to_lowercase()),
        Some(lora::Source::Safetensors(content)) => format!("sha256 {}", hashed(content, usize::MAX)),
        Some(lora::Source::Name(name)) => {
            format!("name {}", name.strip_suffix(".safetensors").unwrap_or(name))
        }
        None => "name ".into(),
    };
    format!("{:08x} {:08x} {}{source}", strength.to_bits(), text_encoder.to_bits(), blocks(lora))
}

/// Strengths by block as a text; nothing where there are none.
fn blocks(lora: &v1::Lora) -> String {
    let Some(weights) = &lora.block_weights else { return String::new() };
    let mut named: Vec<String> =
        weights.blocks.iter().map(|(name, value)| format!("{name}*{:08x}", value.to_bits())).collect();
    named.sort_unstable();
    let listed = weights.values.iter().map(|value| format!("{:08x}", value.to_bits()));
    let numbers: Vec<String> = listed.chain(named).collect();
    format!("lbw {} {} ", weights.preset, numbers.join(","))
}

fn hashed(content: &[u8], bytes: usize) -> String {
    let mut id = String::new();
    for byte in Sha256::digest(content).iter().take(bytes) {
        _ = write!(id, "{byte:02x}");
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_are_made_up_differ() {
        let (one, other) = (made_up_id(), made_up_id());
        assert_eq!((one.len(), one == other), (32, false));
    }
}
