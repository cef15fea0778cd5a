//! Where the linker puts the hot code of `pier-runtime`.

fn main() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/hot.ld");
    println!("cargo:rerun-if-changed={script}");
    println!("cargo:rustc-link-arg-bin=pier-runtime=-Wl,-T,{script}");
}
