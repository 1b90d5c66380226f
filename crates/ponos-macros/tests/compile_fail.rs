//! What the type system promises, and the texts that a user reads when a promise is broken.
//!
//! Each file in `compile_fail/` breaks one rule; the `.stderr` beside it is what the compiler says.
//! After a change of a text: `TRYBUILD=overwrite cargo test -p ponos-macros --test compile_fail`, then read the difference.

#[test]
fn a_broken_rule_does_not_compile_and_the_text_says_what_to_do() {
    // One run for all: trybuild builds the dependencies once and then checks case after case.
    let cases = trybuild::TestCases::new();
    cases.pass("tests/compile_pass/*.rs");
    cases.compile_fail("tests/compile_fail/*.rs");
}
