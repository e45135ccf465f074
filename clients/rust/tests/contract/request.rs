//! A case's request: protobuf's JSON mapping, and files.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use prost_reflect::prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage};
use sdgrpc::v1::{GenerateRequest, Image, InpaintRequest, TransformRequest};
use sdgrpc::{Call, Client, FILE_DESCRIPTOR_SET, Job};

use crate::table::{Case, Method};

#[derive(Clone)]
pub enum Request {
    Generate(GenerateRequest),
    Transform(TransformRequest),
    Inpaint(InpaintRequest),
}

impl Request {
    /// The request of `case`, whose files are relative to `folder`.
    pub fn read(case: &Case, folder: &Path) -> Result<Self> {
        let mut files = BTreeMap::new();
        for (field, path) in &case.files {
            let data = fs::read(folder.join(path)).with_context(|| path.clone())?;
            files.insert(field.as_str(), Image::from(data));
        }
        let request = match case.method {
            Method::Generate => Self::Generate(decode(case)?),
            Method::Transform => {
                Self::Transform(TransformRequest { image: files.remove("image"), ..decode(case)? })
            }
            Method::Inpaint => Self::Inpaint(InpaintRequest {
                image: files.remove("image"),
                mask: files.remove("mask"),
                ..decode(case)?
            }),
            Method::Upscale | Method::ListEmbeddings | Method::DrainReplicas | Method::ScaleReplicas => {
                bail!("{:?} makes no job", case.method)
            }
        };
        if let Some(field) = files.keys().next() {
            bail!("a {:?} request has no file `{field}`", case.method);
        }
        Ok(request)
    }

    /// Its `request_id`.
    pub fn id(&self) -> &str {
        match self {
            Self::Generate(request) => &request.request_id,
            Self::Transform(request) => &request.request_id,
            Self::Inpaint(request) => &request.request_id,
        }
    }

    /// The same with a number added to its id, and that id.
    pub fn numbered(&self, number: usize) -> (String, Self) {
        let id = format!("{} {number}", self.id());
        let mut changed = self.clone();
        match &mut changed {
            Self::Generate(request) => request.request_id.clone_from(&id),
            Self::Transform(request) => request.request_id.clone_from(&id),
            Self::Inpaint(request) => request.request_id.clone_from(&id),
        }
        (id, changed)
    }

    /// The same with another prompt.
    pub fn with_another_prompt(&self) -> Self {
        let mut changed = self.clone();
        match &mut changed {
            Self::Generate(request) => request.prompt += " and another",
            Self::Transform(request) => request.prompt += " and another",
            Self::Inpaint(request) => request.prompt += " and another",
        }
        changed
    }

    pub fn call(&self, client: &Client) -> Call<Job> {
        match self {
            Self::Generate(request) => client.generate(request.clone()),
            Self::Transform(request) => client.transform(request.clone()),
            Self::Inpaint(request) => client.inpaint(request.clone()),
        }
    }
}

/// The message of a case's method, without its files.
pub fn decode<M: prost::Message + Default>(case: &Case) -> Result<M> {
    let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET)?;
    let name = format!("sdgrpc.v1.{:?}Request", case.method);
    let descriptor = pool.get_message_by_name(&name).context(name)?;
    let message = DynamicMessage::deserialize(descriptor, &case.request)?;
    Ok(M::decode(message.encode_to_vec().as_slice())?)
}
