//! What SECURITY.md names is there.

use std::path::Path;

/// The words in backticks of a line.
fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// A row names a file, then constants and functions in it, then perhaps another file with its own.
#[test]
fn constants_and_tests_of_the_security_page_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = std::fs::read_to_string(root.join("SECURITY.md")).unwrap();
    let (mut constants, mut functions) = (0, 0);
    for row in page.lines().filter(|line| line.starts_with('|')) {
        let mut source: Option<(&str, String)> = None;
        for word in quoted(row) {
            if word.ends_with(".rs") {
                let text = std::fs::read_to_string(root.join("crates").join(word));
                source = Some((word, text.unwrap_or_else(|error| panic!("{word}: {error}"))));
                continue;
            }
            // What stands before the first file of a row is prose.
            let Some((file, text)) = &source else { continue };
            let is_name =
                |other: fn(char) -> bool| word.chars().all(|c| c == '_' || c.is_ascii_digit() || other(c));
            if is_name(|c| c.is_ascii_uppercase()) {
                assert!(text.contains(&format!("const {word}: ")), "{file} has no constant {word}");
                constants += 1;
            } else if is_name(|c| c.is_ascii_lowercase()) {
                let found = [format!("fn {word}("), format!("fn {word}<")].iter().any(|it| text.contains(it));
                assert!(found, "{file} has no {word}");
                functions += 1;
            }
        }
    }
    assert!(constants > 20 && functions > 30, "{constants} constants, {functions} functions were found");
}
