//! Not a test: how fast a layer is unpacked. `TAR=big.tar.gz cargo test -p distribution --test store -- --ignored speed --nocapture`
use crate::Bed;
use std::time::Instant;

#[test]
#[ignore = "a measurement: needs TAR"]
fn speed() {
    let Ok(path) = std::env::var("TAR") else { return };
    for _ in 0..3 {
        let bed = Bed::new();
        let blob = std::fs::File::open(&path).unwrap();
        let start = Instant::now();
        let info = bed.store.layers().apply_unnamed(blob, &oci::Descriptor::of("", b""), None).unwrap();
        println!("{} entries, {} bytes on disk, {:?}", info.entries, info.size_bytes, start.elapsed());
    }
}
