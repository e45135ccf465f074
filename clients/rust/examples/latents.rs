//! Asks for LATENT previews and decodes them here, by the factors that the catalog gives for the model.
//!
//! `cargo run --example latents -- localhost:50051 latents`

use std::fs::{self, File};
use std::path::Path;
use std::{array, env};

use anyhow::{Context, Result};
use futures_util::TryStreamExt;
use half::f16;
use sdgrpc::v1::{GenerateRequest, Latent, LatentFormat, Output, PreviewKind, PreviewOptions};
use sdgrpc::{Client, Event, PreviewContent};

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let token = env::var("SDGRPC_TOKEN").unwrap_or_default();
    let client = Client::builder(arguments.first().map_or("localhost:50051", String::as_str))
        .token(&token)?
        .connect()
        .await?;
    let folder = Path::new(arguments.get(1).map_or("latents", String::as_str));
    fs::create_dir_all(folder)?;

    let model = client.list_models().await?.into_iter().next().context("the server has no model")?;
    let format = model.latent_format.context("the model has no latent format")?;
    let preview = PreviewOptions { kind: PreviewKind::Latent.into(), every_n_steps: 5, ..Default::default() };
    let mut job = client
        .generate(GenerateRequest {
            model: model.name,
            prompt: "a red star on a blue background".into(),
            output: Some(Output { preview: Some(preview), ..Default::default() }),
            ..Default::default()
        })
        .await?;
    while let Some(event) = job.try_next().await? {
        let Event::Progress(progress) = event else { continue };
        for preview in progress.previews {
            if let PreviewContent::Latent(latent) = preview.content {
                let path = folder.join(format!("step-{:02}.png", progress.step));
                save(&path, &latent, &decode(&latent, &format))?;
                println!("saved {}", path.display());
            }
        }
    }
    Ok(())
}

/// RGB bytes, a pixel per latent pixel: `clamp(bias + sum of latent[c] * factors[c])` from [-1, 1] to [0, 255].
fn decode(latent: &Latent, format: &LatentFormat) -> Vec<u8> {
    let values: Vec<f32> =
        latent.data.chunks_exact(2).map(|bytes| f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()).collect();
    let area = (latent.width * latent.height) as usize;
    let pixel = |position: usize| -> [u8; 3] {
        array::from_fn(|rgb| {
            let channels = (0..latent.channels as usize)
                .map(|channel| values[channel * area + position] * format.rgb_factors[3 * channel + rgb]);
            let colour = format.rgb_bias[rgb] + channels.sum::<f32>();
            ((colour.clamp(-1.0, 1.0) + 1.0) * 127.5).round() as u8
        })
    };
    (0..area).flat_map(pixel).collect()
}

fn save(path: &Path, latent: &Latent, pixels: &[u8]) -> Result<()> {
    let mut encoder = png::Encoder::new(File::create(path)?, latent.width as u32, latent.height as u32);
    encoder.set_color(png::ColorType::Rgb);
    Ok(encoder.write_header()?.write_image_data(pixels)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_the_formula_of_the_contract() {
        let values = [0.5, -0.25, 0.25, 8.0]; // two channels of a row of two pixels
        let data = values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect();
        let latent = Latent { channels: 2, height: 1, width: 2, data };
        let format = LatentFormat {
            channels: 2,
            scale_factor: 8,
            rgb_factors: vec![1.0, 0.0, 0.0, 0.0, 1.0, -1.0],
            rgb_bias: vec![0.5, 0.0, 0.0],
        };
        // (0.5 + 0.5, 0.25, -0.25) and (0.5 - 0.25, 8, -8), from [-1, 1] to [0, 255]
        assert_eq!(decode(&latent, &format), [255, 159, 96, 159, 255, 0]);
    }
}
