//! A server of our own, on a socket, that asks for a token.

use std::time::Duration;
use std::{env, fs, process};

use anyhow::{Result, ensure};
use sdgrpc::v1::{GenerateRequest, Sampling};
use sdgrpc::{Client, ErrorKind};

use crate::repository;
use crate::server::Server;

#[tokio::test(flavor = "multi_thread")]
async fn a_token_opens_every_call() -> Result<()> {
    if env::var("SDGRPC_CONTRACT_SERVER").is_ok() {
        eprintln!("skipped: the server that SDGRPC_CONTRACT_SERVER names may ask for another token");
        return Ok(());
    }
    let folder = env::temp_dir().join(format!("sdgrpc-rust-{}", process::id()));
    fs::create_dir_all(&folder)?;
    let tokens = folder.join("tokens");
    fs::write(&tokens, "rust-client: s3cret-of-rust\n")?;
    let listen = format!("unix:{}", folder.join("own/s").display());
    let arguments = ["--listen", &listen, "--token-file", tokens.to_str().expect("it is text")];
    let Some(server) = Server::find(&arguments.map(String::from), &repository()).await? else {
        eprintln!("skipped: needs SDGRPC_PYTHON or .venv of the repository");
        return Ok(());
    };
    ensure!(server.target() == listen, "{}", server.target());
    for token in ["", "wrong", "s3cret-of-rust"] {
        let client = Client::builder(server.target()).token(token)?.connect().await?;
        let request = GenerateRequest {
            prompt: "a star".into(),
            sampling: Some(Sampling { steps: 1, ..Default::default() }),
            ..Default::default()
        };
        let drawing = client.generate(request).timeout(Duration::from_secs(120));
        let (drawing, listing) = (drawing.await, client.list_models().await);
        if token == "s3cret-of-rust" {
            ensure!(drawing?.images().await?.len() == 1 && listing?.len() == 1);
            continue;
        }
        let (drawing, listing) = (drawing.err().expect("refused"), listing.expect_err("refused"));
        for error in [drawing, listing] {
            ensure!(error.kind() == ErrorKind::Unauthenticated, "{error}");
            ensure!(error.reason() == "UNAUTHENTICATED" && !error.to_string().contains("s3cret"));
        }
    }
    server.stop().await?;
    fs::remove_dir_all(folder)?;
    Ok(())
}
