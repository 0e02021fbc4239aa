//! Compiles the `.proto` files with protox, so that nobody has to install protoc.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

const FILES: [&str; 3] = [
    "factory/station/v1/station.proto",
    "factory/station/v1/line_controller.proto",
    "factory/signer/v1/signer.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    for file in FILES {
        println!("cargo::rerun-if-changed={file}");
    }
    let descriptors = protox::compile(FILES, ["."])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    // For the reflection service.
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    // What a command asks for is compared by its bytes.
    tonic_prost_build::configure()
        .btree_map(".factory.station.v1.StartUnitRequest")
        .compile_fds(descriptors)?;
    Ok(())
}
