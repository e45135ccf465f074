//! Writes `src/generated` from the contract in `protos/`, or with `--check` proves that it is fresh.
//!
//! `cargo run -p codegen [-- --check]`. Both the parser and the generator are Rust: no protoc is needed,
//! and the crate itself builds from the committed files.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

use prost::Message;

const SOURCES: [&str; 4] = [
    "sdgrpc/v1/catalog.proto",
    "sdgrpc/v1/cluster.proto",
    "sdgrpc/v1/diffusion.proto",
    "sdgrpc/v1/jobs.proto",
];
const CODE: &str = "sdgrpc.v1.rs";
const DESCRIPTORS: &str = "sdgrpc.v1.binpb";

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let check = match env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => false,
        [flag] if flag == "--check" => true,
        _ => return Err("usage: codegen [--check]".into()),
    };
    // Asked when it runs, not when it is built: worktrees that share a target folder share the program.
    let manifest = env::var_os("CARGO_MANIFEST_DIR").ok_or("run it by `cargo run -p codegen`")?;
    let crate_root = Path::new(&manifest).join("..");
    let committed = crate_root.join("src/generated");
    let protos = crate_root.join("../../protos");
    if !check {
        generate(&protos, &committed)?;
        return Ok(ExitCode::SUCCESS);
    }
    let fresh = tempfile::tempdir()?;
    generate(&protos, fresh.path())?;
    let stale = stale_files(fresh.path(), &committed);
    for path in &stale {
        eprintln!("stale, run `cargo run -p codegen`: {}", path.display());
    }
    Ok(ExitCode::from(u8::from(!stale.is_empty())))
}

/// Write the messages, the services and the descriptor set into the folder `target`.
fn generate(protos: &Path, target: &Path) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(target)?;
    let mut compiler = protox::Compiler::new([protos])?;
    compiler.include_source_info(true).open_files(SOURCES)?;
    tonic_prost_build::configure()
        .out_dir(target)
        .btree_map(".")
        .compile_fds(compiler.include_imports(true).file_descriptor_set())?;
    let bare = compiler.include_source_info(false).file_descriptor_set();
    fs::write(target.join(DESCRIPTORS), bare.encode_to_vec())?;
    Ok(())
}

/// The committed files that differ from the fresh ones, or are missing.
fn stale_files(fresh: &Path, committed: &Path) -> Vec<PathBuf> {
    [CODE, DESCRIPTORS]
        .into_iter()
        .map(|name| (fresh.join(name), committed.join(name)))
        .filter(|(fresh, committed)| fs::read(fresh).ok() != fs::read(committed).ok())
        .map(|(_, committed)| committed)
        .collect()
}
