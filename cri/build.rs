//! Compiles `proto/runtime.proto` into messages, client and server, without protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto/runtime.proto");
    let descriptors = protox::compile(["runtime.proto"], ["proto"])?;
    // Ordered maps: what a component reads out of a label map must not depend on the run.
    tonic_prost_build::configure().build_transport(false).btree_map(".").compile_fds(descriptors)?;
    Ok(())
}
