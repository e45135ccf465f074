//! Whether an answer is what a case expects.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};
use sdgrpc::v1::{PlanJobResponse, StepRange};
use sdgrpc::{Accepted, DrawnImage, Error, Event, Prepared, Preview, PreviewContent, Progress};

use crate::kinds::{Answer, Received};
use crate::table::{Content, Expect, ExpectedLora, ExpectedPreviews, ExpectedSecondPass};

/// float16.
const BYTES_PER_LATENT_VALUE: i32 = 2;

pub fn answer(expect: &Expect, answer: &Answer) -> Result<()> {
    match (&answer.error, expect.outcome.as_str()) {
        (None, "OK") => success(expect, answer),
        (None, outcome) => bail!("ended with OK instead of {outcome}"),
        (Some(error), _) => failure(expect, error),
    }
}

/// As `answer` for a call whose first events were read before.
pub fn answer_after_start(expect: &Expect, answer: &Answer) -> Result<()> {
    failure(expect, answer.error.as_ref().with_context(|| format!("no {}", expect.outcome))?)
}

pub fn failure(expect: &Expect, error: &Error) -> Result<()> {
    ensure!(code(error) == expect.outcome, "{error} instead of {}", expect.outcome);
    ensure!(error.reason() == expect.reason, "the reason is {:?}", error.reason());
    let domain = if expect.reason.is_empty() { "" } else { "sdgrpc" };
    ensure!(error.domain() == domain, "the domain is {:?}", error.domain());
    for (key, value) in &expect.metadata {
        ensure!(error.metadata().get(key) == Some(value), "the metadata is {:?}", error.metadata());
    }
    let fields: BTreeSet<_> = error.violations().iter().map(|wrong| wrong.field.clone()).collect();
    ensure!(fields == expect.violations, "the violations are {fields:?}");
    ensure!(error.violations().iter().all(|wrong| !wrong.description.is_empty()), "a bare violation");
    let resource = error.resource().map(|found| (found.kind.as_str(), found.name.as_str()));
    let expected = expect.resource.as_ref().map(|found| (found.kind.as_str(), found.name.as_str()));
    ensure!(resource == expected, "the resource is {resource:?}");
    let retry = error.retry_after();
    ensure!(retry.is_some() == expect.retry, "RetryInfo is {retry:?}");
    ensure!(retry.is_none_or(|delay| !delay.is_zero()), "RetryInfo is {retry:?}");
    Ok(())
}

/// The images of an answer, in the order in which they came.
pub fn images<'a>(answer: &'a Answer) -> Vec<&'a DrawnImage> {
    let image = |received: &'a Received| match &received.event {
        Event::Image(image) => Some(image),
        _ => None,
    };
    answer.events.iter().filter_map(image).collect()
}

fn success(expect: &Expect, answer: &Answer) -> Result<()> {
    numbering(expect, answer)?;
    let events: Vec<_> = answer.events.iter().map(|received| &received.event).collect();
    let [Event::Accepted(accepted), Event::Prepared(prepared), drawing @ .., Event::Finished(_)] =
        events.as_slice()
    else {
        bail!("the events are {:?}", events.iter().map(|event| kind(event)).collect::<Vec<_>>());
    };
    let steps: Vec<_> = drawing
        .iter()
        .filter_map(|event| if let Event::Progress(progress) = event { Some(progress) } else { None })
        .collect();
    let images = images(answer);
    ensure!(steps.len() + images.len() == drawing.len(), "other events than progress and image");
    check_accepted(expect, accepted)?;
    check_loras(&expect.loras, prepared)?;
    check_steps(accepted, &steps)?;
    check_images(expect, accepted, &images)?;
    match &expect.previews {
        Some(previews) => check_previews(previews, accepted, &steps),
        None => {
            ensure!(steps.iter().all(|step| step.previews.is_empty()), "unexpected previews");
            Ok(())
        }
    }
}

fn numbering(expect: &Expect, answer: &Answer) -> Result<()> {
    let first = answer.events.first().context("no events")?;
    ensure!(!first.request_id.is_empty(), "no request_id");
    if let Some(id) = &expect.request_id {
        ensure!(&first.request_id == id, "request_id is {:?}", first.request_id);
    }
    for (sequence, received) in (0..).zip(&answer.events) {
        ensure!(received.sequence == sequence, "sequence {} after {sequence} events", received.sequence);
        ensure!(received.request_id == first.request_id, "request_id changes to {:?}", received.request_id);
    }
    Ok(())
}

/// What would be accepted, its steps and LoRAs.
pub fn plan(expect: &Expect, plan: &PlanJobResponse) -> Result<()> {
    let accepted = plan.accepted.clone().context("no accepted")?;
    check_accepted(
        expect,
        &Accepted {
            request_id: String::new(),
            queue_position: accepted.queue_position,
            sampling: accepted.sampling.context("no sampling")?,
            width: accepted.width,
            height: accepted.height,
            model: accepted.model,
            step_count: accepted.step_count,
            warnings: accepted.warnings,
            second_pass: accepted.second_pass,
        },
    )?;
    let steps = (Some(plan.unet_steps), Some(plan.guided_steps));
    ensure!(steps == (expect.unet_steps, expect.guided_steps), "{steps:?} steps");
    ensure!(plan.loras.len() == expect.loras.len(), "{} LoRAs", plan.loras.len());
    for (lora, planned) in expect.loras.iter().zip(&plan.loras) {
        let found = (planned.name.as_str(), planned.strength, planned.text_encoder_strength);
        check_lora(lora, found, &planned.sha256, &planned.steps)?;
        ensure!(planned.refusal.is_empty(), "{} is refused: {}", lora.name, planned.refusal);
    }
    Ok(())
}

/// What a report and a plan have in common.
fn check_lora(lora: &ExpectedLora, found: (&str, f32, f32), sha256: &str, steps: &[StepRange]) -> Result<()> {
    let expected = (lora.name.as_str(), lora.strength, lora.text_encoder_strength);
    ensure!(found == expected, "a LoRA is {found:?} instead of {expected:?}");
    ensure!(sha256.len() == 64, "the hash of {} is {sha256:?}", lora.name);
    let steps: Vec<_> = steps.iter().map(|each| (each.first, each.last)).collect();
    ensure!(lora.steps.as_ref().is_none_or(|told| *told == steps), "{} is in steps {steps:?}", lora.name);
    Ok(())
}

fn check_accepted(expect: &Expect, accepted: &Accepted) -> Result<()> {
    if let Some(model) = &expect.model {
        ensure!(&accepted.model == model, "the model is {:?}", accepted.model);
    }
    for (expected, found, name) in [
        (expect.step_count, accepted.step_count, "step_count"),
        (expect.width, accepted.width, "width"),
        (expect.height, accepted.height, "height"),
    ] {
        ensure!(expected.is_none_or(|expected| expected == found), "{name} is {found}");
    }
    let warned: Vec<_> = accepted.warnings.iter().map(|sentence| sentence.split(':').next()).collect();
    let expected: Vec<_> = expect.warnings.iter().map(|field| Some(field.as_str())).collect();
    ensure!(warned == expected, "the warnings are {:?}", accepted.warnings);
    let second = accepted.second_pass.as_ref().map(|second| ExpectedSecondPass {
        width: second.width,
        height: second.height,
        strength: second.strength(),
        steps: second.steps,
    });
    ensure!(second == expect.second_pass, "the second pass is {second:?}");
    Ok(())
}

fn check_loras(expected: &[ExpectedLora], prepared: &Prepared) -> Result<()> {
    ensure!(prepared.loras.len() == expected.len(), "{} LoRA reports", prepared.loras.len());
    ensure!(prepared.lora_set_id.is_empty() == expected.is_empty(), "the set is {:?}", prepared.lora_set_id);
    for (lora, report) in expected.iter().zip(&prepared.loras) {
        let found = (report.name.as_str(), report.strength, report.text_encoder_strength);
        check_lora(lora, found, &report.sha256, &report.steps)?;
        ensure!(!report.modules.is_empty(), "{} changes nothing", lora.name);
    }
    Ok(())
}

fn check_steps(accepted: &Accepted, steps: &[&Progress]) -> Result<()> {
    let found: Vec<_> = steps.iter().map(|progress| (progress.step, progress.step_count)).collect();
    let expected: Vec<_> = (1..=accepted.step_count).map(|step| (step, accepted.step_count)).collect();
    ensure!(found == expected, "the steps are {found:?}");
    Ok(())
}

fn check_images(expect: &Expect, accepted: &Accepted, images: &[&DrawnImage]) -> Result<()> {
    let mut images = images.to_vec();
    images.sort_by_key(|image| image.index);
    let sampling = &accepted.sampling;
    let indices: Vec<_> = images.iter().map(|image| image.index).collect();
    ensure!(indices == (0..sampling.image_count).collect::<Vec<_>>(), "the images are {indices:?}");
    let strengths: Vec<_> = images.iter().filter_map(|image| image.lora_strength).collect();
    ensure!(strengths == expect.lora_strengths, "the strengths of the grid are {strengths:?}");
    if let Some(seeds) = &expect.seeds {
        let found: Vec<_> = images.iter().map(|image| image.seed).collect();
        ensure!(&found == seeds, "the seeds are {found:?}");
        ensure!(sampling.seed == seeds.first().copied(), "accepted.sampling.seed is {:?}", sampling.seed);
    }
    for drawn in images {
        let image = &drawn.image;
        ensure!(!image.data.is_empty(), "image {} is empty", drawn.index);
        let media_type = expect.media_type.as_ref();
        ensure!(media_type.is_none_or(|expected| *expected == image.media_type), "a {}", image.media_type);
        let second = accepted.second_pass.as_ref();
        let width = second.map_or(accepted.width, |second| second.width);
        let height = second.map_or(accepted.height, |second| second.height);
        ensure!(
            (image.width, image.height) == (width, height),
            "an image of {}x{}",
            image.width,
            image.height
        );
    }
    Ok(())
}

/// A slow reader may miss previews, but never the last.
fn check_previews(expect: &ExpectedPreviews, accepted: &Accepted, steps: &[&Progress]) -> Result<()> {
    let with: BTreeSet<_> =
        steps.iter().filter(|step| !step.previews.is_empty()).map(|step| step.step).collect();
    ensure!(with.is_subset(&expect.steps), "previews with the steps {with:?}");
    ensure!(with.last() == expect.steps.last(), "the last preview is with the step {:?}", with.last());
    for progress in steps.iter().filter(|progress| !progress.previews.is_empty()) {
        let indices: Vec<_> = progress.previews.iter().map(|preview| preview.image_index).collect();
        let expected: Vec<_> = (0..accepted.sampling.image_count).collect();
        ensure!(indices == expected, "previews of the images {indices:?}");
        for preview in &progress.previews {
            check_preview(expect.content, accepted, preview)?;
        }
    }
    Ok(())
}

fn check_preview(expected: Content, accepted: &Accepted, preview: &Preview) -> Result<()> {
    match (&preview.content, expected) {
        (PreviewContent::Picture(picture), Content::Picture) => {
            ensure!(!picture.data.is_empty(), "an empty preview");
        }
        (PreviewContent::Latent(latent), Content::Latent) => {
            let sides = (latent.width * 8, latent.height * 8);
            ensure!(sides == (accepted.width, accepted.height), "a latent of {sides:?} pixels");
            let size = latent.channels * latent.height * latent.width * BYTES_PER_LATENT_VALUE;
            ensure!(latent.data.len() == usize::try_from(size)? && size > 0, "a latent with gaps");
        }
        _ => bail!("a preview is not a {expected:?}"),
    }
    Ok(())
}

/// As the table calls it: `InvalidArgument` -> `INVALID_ARGUMENT`.
fn code(error: &Error) -> String {
    let mut name = String::new();
    for letter in format!("{:?}", error.code()).chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.extend(letter.to_uppercase());
    }
    name
}

fn kind(event: &Event) -> &'static str {
    match event {
        Event::Accepted(_) => "accepted",
        Event::Prepared(_) => "prepared",
        Event::Progress(_) => "progress",
        Event::Image(_) => "image",
        Event::Finished(_) => "finished",
        _ => "unknown",
    }
}
