//! `cases.json`; an unknown key is an error.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    pub server: ServerSettings,
    pub cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerSettings {
    pub arguments: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    pub name: String,
    pub kind: Kind,
    pub method: Method,
    pub request: serde_json::Value,
    #[serde(default)]
    pub files: BTreeMap<String, String>,
    pub timeout_seconds: Option<f64>,
    pub expect: Expect,
    pub with_replicas: Option<Expect>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Call,
    Unreachable,
    Cancel,
    Deadline,
    Fill,
    Drain,
    Keep,
    Exists,
    Attach,
    Upscale,
    Embeddings,
    Plan,
    Cluster,
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub enum Method {
    Generate,
    Transform,
    Inpaint,
    Upscale,
    ListEmbeddings,
    DrainReplicas,
    ScaleReplicas,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    pub outcome: String,
    pub request_id: Option<String>,
    pub model: Option<String>,
    pub step_count: Option<i32>,
    pub width: Option<i32>,
    pub height: Option<i32>,
    pub seeds: Option<Vec<i64>>,
    pub media_type: Option<String>,
    #[serde(default)]
    pub warnings: Vec<String>,
    pub second_pass: Option<ExpectedSecondPass>,
    #[serde(default)]
    pub lora_strengths: Vec<f32>,
    pub upscaler: Option<String>,
    pub tile_count: Option<i32>,
    pub embeddings: Option<Vec<ExpectedEmbedding>>,
    pub unet_steps: Option<i32>,
    pub guided_steps: Option<i32>,
    pub replicas: Option<i32>,
    #[serde(default)]
    pub loras: Vec<ExpectedLora>,
    pub previews: Option<ExpectedPreviews>,
    #[serde(default)]
    pub reason: String,
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    #[serde(default)]
    pub violations: BTreeSet<String>,
    pub resource: Option<ExpectedResource>,
    #[serde(default)]
    pub retry: bool,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ExpectedSecondPass {
    pub width: i32,
    pub height: i32,
    pub strength: f32,
    pub steps: i32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectedLora {
    pub name: String,
    pub strength: f32,
    pub text_encoder_strength: f32,
    pub steps: Option<Vec<(i32, i32)>>,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ExpectedEmbedding {
    pub name: String,
    pub base: String,
    pub vector_count: i32,
    pub fits: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectedPreviews {
    pub content: Content,
    pub steps: BTreeSet<i32>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    Picture,
    Latent,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectedResource {
    #[serde(rename = "type")]
    pub kind: String,
    pub name: String,
}

impl Table {
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        serde_json::from_str(&text).with_context(|| path.display().to_string())
    }
}
