//! What happens to a job, as owned values.

use std::time::Duration;

use crate::v1;

/// Something that happened to a job: one `Accepted`, one `Prepared`, then `Progress` and `Image` events, then
/// one `Finished`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// The request is valid and queued.
    Accepted(Accepted),
    /// The LoRA set is fused and the prompt encoded: steps begin.
    Prepared(Prepared),
    /// A denoising step is done.
    Progress(Progress),
    /// A picture is finished.
    Image(DrawnImage),
    /// Every picture was sent.
    Finished(Finished),
}

/// The request is valid and queued behind `queue_position` others.
#[derive(Clone, Debug, PartialEq)]
pub struct Accepted {
    /// The request's own, or one that the server made.
    pub request_id: String,
    /// Jobs that wait before this one.
    pub queue_position: i32,
    /// Every default filled in, the seed too.
    pub sampling: v1::Sampling,
    /// Pixels.
    pub width: i32,
    /// Pixels.
    pub height: i32,
    /// The model's name.
    pub model: String,
    /// Steps that will run, after `strength`.
    pub step_count: i32,
    /// What may not be as it was meant, a sentence each.
    pub warnings: Vec<String>,
    /// Its size in pixels, which the pictures have; None where there is one pass.
    pub second_pass: Option<v1::SecondPass>,
}

/// What the LoRA files did to the model.
#[derive(Clone, Debug, PartialEq)]
pub struct Prepared {
    /// One per file, in the request's order.
    pub loras: Vec<v1::LoraReport>,
    /// Equal sets share one fused copy. Empty without LoRAs.
    pub lora_set_id: String,
    /// The copy was there already.
    pub lora_set_cached: bool,
    /// What fusing took.
    pub fuse_duration: Duration,
}

/// A denoising step is done.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// From 1.
    pub step: i32,
    /// Steps of the job.
    pub step_count: i32,
    /// Of the step's scheduler timestep, 0 to 999.
    pub timestep: f32,
    /// Since the first step began.
    pub elapsed: Duration,
    /// Until the last step is done, as far as it can be told.
    pub remaining: Duration,
    /// One per image, where asked for. A reader that falls behind misses previews, and nothing else.
    pub previews: Vec<Preview>,
    /// 1, or 2 in the second pass; the steps are counted over both.
    pub pass_number: i32,
}

/// One image as predicted at a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Preview {
    /// Of the image that it foretells.
    pub image_index: i32,
    /// What was asked for.
    pub content: PreviewContent,
}

/// What a preview shows.
#[derive(Clone, Debug, PartialEq)]
pub enum PreviewContent {
    /// A small approximate picture.
    Picture(v1::Image),
    /// The predicted clean latent.
    Latent(v1::Latent),
}

/// A finished picture.
#[derive(Clone, Debug, PartialEq)]
pub struct DrawnImage {
    /// From 0.
    pub index: i32,
    /// Drawing this seed alone gives the same picture.
    pub seed: i64,
    /// The file.
    pub image: v1::Image,
    /// The strength that the LoRA with a `strength_grid` has in it.
    pub lora_strength: Option<f32>,
}

/// Where the time went, one after the other, and whom it was shared with.
#[derive(Clone, Debug, PartialEq)]
pub struct Finished {
    /// Waiting.
    pub queued: Duration,
    /// Fusing and encoding the prompt.
    pub prepared: Duration,
    /// Denoising.
    pub denoised: Duration,
    /// Decoding and writing the files.
    pub decoded: Duration,
    /// Jobs that shared the UNet calls with this one, at most.
    pub largest_batch: i32,
    /// Evaluations of the UNet that the job took part in.
    pub unet_calls: i32,
}

impl Event {
    /// The message's event; none for one of a newer contract that this version does not know.
    pub(crate) fn decode(message: v1::JobEvent) -> Option<Self> {
        use v1::job_event::Event as Wire;
        Some(match message.event? {
            Wire::Accepted(accepted) => Self::Accepted(Accepted::decode(message.request_id, accepted)),
            Wire::Prepared(prepared) => Self::Prepared(prepared.into()),
            Wire::Progress(progress) => Self::Progress(progress.into()),
            Wire::Image(image) => Self::Image(image.into()),
            Wire::Finished(finished) => Self::Finished(finished.into()),
        })
    }
}

impl Accepted {
    fn decode(request_id: String, message: v1::Accepted) -> Self {
        Self {
            request_id,
            queue_position: message.queue_position,
            sampling: message.sampling.unwrap_or_default(),
            width: message.width,
            height: message.height,
            model: message.model,
            step_count: message.step_count,
            warnings: message.warnings,
            second_pass: message.second_pass,
        }
    }
}

impl From<v1::Prepared> for Prepared {
    fn from(message: v1::Prepared) -> Self {
        Self {
            loras: message.loras,
            lora_set_id: message.lora_set_id,
            lora_set_cached: message.lora_set_cached,
            fuse_duration: duration(message.fuse_duration),
        }
    }
}

impl From<v1::Progress> for Progress {
    fn from(message: v1::Progress) -> Self {
        Self {
            step: message.step,
            step_count: message.step_count,
            timestep: message.timestep,
            elapsed: duration(message.elapsed),
            remaining: duration(message.remaining),
            previews: message.previews.into_iter().filter_map(preview).collect(),
            pass_number: message.pass_number.max(1),
        }
    }
}

impl From<v1::GeneratedImage> for DrawnImage {
    fn from(message: v1::GeneratedImage) -> Self {
        Self {
            index: message.index,
            seed: message.seed,
            image: message.image.unwrap_or_default(),
            lora_strength: message.lora_strength,
        }
    }
}

impl From<v1::Finished> for Finished {
    fn from(message: v1::Finished) -> Self {
        Self {
            queued: duration(message.queued),
            prepared: duration(message.prepared),
            denoised: duration(message.denoised),
            decoded: duration(message.decoded),
            largest_batch: message.largest_batch,
            unet_calls: message.unet_calls,
        }
    }
}

/// None for a content of a newer contract.
fn preview(message: v1::Preview) -> Option<Preview> {
    use v1::preview::Content;
    let content = match message.content? {
        Content::Picture(picture) => PreviewContent::Picture(picture),
        Content::Latent(latent) => PreviewContent::Latent(latent),
    };
    Some(Preview { image_index: message.image_index, content })
}

/// Unset and negative ones, which the contract has not, count as none.
fn duration(message: Option<prost_types::Duration>) -> Duration {
    message.and_then(|message| message.try_into().ok()).unwrap_or_default()
}
