//! The layout of the program file of `pier-runtime` (`bins/runtime/hot.ld`).
use integration::{Result, isolated};

#[test]
fn hot_code_lies_together() -> Result {
    isolated!(|bed| {
        // A few hundred bytes, were the script's names to match nothing any more: it does not complain.
        let script = format!(
            "size -A {} | awk '$1 == \".text.hot\" {{ print ($2 > 1000000 ? \"together\" : $2) }}'",
            bed.program("pier-runtime").display()
        );
        bed.sh(&script)?.ok()?.has("together")
    })
}
