//! Every input that fuzzing kept, checked as the fuzz targets check it, by the stable compiler.

use std::fs;
use std::panic;
use std::path::Path;

#[allow(unreachable_pub, missing_docs, reason = "a crate of its own where it is fuzzed")]
#[path = "../../../../fuzz/src/lib.rs"]
mod targets;

#[test]
fn whatever_fuzzing_kept_is_still_read_as_it_should_be() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
    for (target, check) in targets::TARGETS {
        let mut inputs = 0;
        for kept in ["corpus", "regressions"] {
            let Ok(files) = fs::read_dir(root.join(kept).join(target)) else {
                continue;
            };
            for file in files {
                let path = file.unwrap().path();
                let input = fs::read(&path).unwrap();
                assert!(panic::catch_unwind(|| check(&input)).is_ok(), "{} fails, see above", path.display());
                inputs += 1;
            }
        }
        assert!(inputs > 3, "only {inputs} inputs of {target} are kept");
    }
}
