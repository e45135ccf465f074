//! The contract as a table: `tests/contract` of the repository, whose README says what each line means.

mod check;
mod kept;
mod kinds;
mod others;
mod request;
mod server;
mod table;
mod token;

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use sdgrpc::Client;

use crate::kinds::Runner;
use crate::server::Server;
use crate::table::{Case, Table};

/// Far above what a case takes on a busy machine: a hang must not be silent.
const CASE_TIMEOUT: Duration = Duration::from_secs(300);

/// The images' hashes of a case, in the order of their index.
type Hashes = BTreeMap<String, Vec<String>>;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_case_of_the_table_holds() -> Result<()> {
    let table = Table::read(&repository().join("tests/contract/cases.json"))?;
    let Some(server) = Server::find(&table.server.arguments, &repository()).await? else {
        if env::var("SDGRPC_REQUIRE_ALL").is_ok_and(|value| value == "1") {
            bail!("needs SDGRPC_CONTRACT_SERVER, SDGRPC_PYTHON or .venv of the repository");
        }
        eprintln!("skipped: needs SDGRPC_CONTRACT_SERVER, SDGRPC_PYTHON or .venv of the repository");
        return Ok(());
    };
    let client = Client::connect(server.target()).await?;
    let mut runner = Runner { client, server, hashes: Hashes::new() };
    let failures = run(&mut runner, &table.cases).await;
    if let Ok(path) = env::var("SDGRPC_CONTRACT_HASHES") {
        std::fs::write(path, serde_json::to_string_pretty(&runner.hashes)?)?;
    }
    runner.server.stop().await?;
    assert!(failures.is_empty(), "{} cases failed:\n{}", failures.len(), failures.join("\n"));
    Ok(())
}

async fn run(runner: &mut Runner, cases: &[Case]) -> Vec<String> {
    let mut failures = Vec::new();
    for case in cases {
        let outcome = match tokio::time::timeout(CASE_TIMEOUT, runner.run(case)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(anyhow!("it took too long")),
        };
        println!("{}: {}", case.name, if outcome.is_ok() { "ok" } else { "FAILED" });
        if let Err(error) = outcome {
            failures.push(format!("{}: {error:#}", case.name));
        }
    }
    failures
}
