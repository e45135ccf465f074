//! Draws with two LoRAs, shows the progress, and saves every preview and the picture.
//!
//! `cargo run --example draw -- localhost:50051 drawn`

use std::path::Path;
use std::{env, fs};

use anyhow::{Result, bail};
use futures_util::TryStreamExt;
use sdgrpc::v1::{GenerateRequest, Lora, Output, PreviewKind, PreviewOptions, Sampling};
use sdgrpc::{Client, Error, Event, PreviewContent};

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let server = arguments.first().map_or("localhost:50051", String::as_str);
    let folder = Path::new(arguments.get(1).map_or("drawn", String::as_str));
    fs::create_dir_all(folder)?;
    if let Err(error) = draw(server, folder).await {
        error.downcast_ref().map(explain);
        bail!(error);
    }
    Ok(())
}

async fn draw(server: &str, folder: &Path) -> Result<()> {
    let token = env::var("SDGRPC_TOKEN").unwrap_or_default();
    let client = Client::builder(server).token(&token)?.connect().await?;
    let request = GenerateRequest {
        prompt: "a red star on a blue background".into(),
        loras: vec![Lora::named("postcard", 0.75), Lora::named("sepia", 0.5)],
        sampling: Some(Sampling { steps: 20, seed: Some(7), ..Default::default() }),
        output: Some(Output {
            preview: Some(PreviewOptions {
                kind: PreviewKind::Picture.into(),
                every_n_steps: 5,
                max_side: 128,
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    let mut job = client.generate(request).await?; // leaving the function drops it, which cancels the job
    while let Some(event) = job.try_next().await? {
        show(&event, folder)?;
    }
    Ok(())
}

/// Say in a line what happened, and save the pictures in it.
fn show(event: &Event, folder: &Path) -> Result<()> {
    match event {
        Event::Accepted(accepted) => {
            println!("accepted: {} steps, {} jobs before it", accepted.step_count, accepted.queue_position);
        }
        Event::Prepared(prepared) => {
            for lora in &prepared.loras {
                let percent = 100.0 * lora.relative_norm;
                println!("LoRA {} at {} changes its weights by {percent:.1} %", lora.name, lora.strength);
            }
        }
        Event::Progress(progress) => {
            println!("step {} of {}, {:.1?} left", progress.step, progress.step_count, progress.remaining);
            for preview in &progress.previews {
                if let PreviewContent::Picture(picture) = &preview.content {
                    save(&folder.join(format!("preview-{:02}.png", progress.step)), &picture.data)?;
                }
            }
        }
        Event::Image(drawn) => {
            save(&folder.join(format!("picture-{}.png", drawn.seed)), &drawn.image.data)?;
        }
        Event::Finished(finished) => println!("drawn in {:.1?}", finished.denoised),
        _ => {}
    }
    Ok(())
}

fn save(path: &Path, data: &[u8]) -> Result<()> {
    println!("saved {}", path.display());
    Ok(fs::write(path, data)?)
}

/// Print all that is known about a failure beside its text.
fn explain(error: &Error) {
    for wrong in error.violations() {
        eprintln!("  {}: {}", wrong.field, wrong.description);
    }
    if let Some(resource) = error.resource() {
        eprintln!("  not found: {} {}", resource.kind, resource.name);
    }
    if let Some(delay) = error.retry_after() {
        eprintln!("  try again in {delay:?}");
    }
}
