//! Compiles `proto/*.proto` with protox, a compiler written in Rust, so that no `protoc` is needed.

use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["rpc.proto", "kv.proto", "health.proto"], ["proto"])?;
    let mut described = files.clone();
    // Comments and line numbers are of no use to a program that runs.
    described
        .file
        .iter_mut()
        .for_each(|file| file.source_code_info = None);
    let out = std::env::var("OUT_DIR")?;
    std::fs::write(
        std::path::Path::new(&out).join("descriptors.bin"),
        described.encode_to_vec(),
    )?;
    tonic_prost_build::configure()
        .bytes(".")
        .compile_fds(files)?;
    Ok(())
}
