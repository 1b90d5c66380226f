//! JSON for programs that is also safe for a terminal, and bodies laid out for people.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter};

use crate::output::Output;
use crate::text::is_unsafe;

/// The version of every JSON that the verbs print. Keys are added under the same one.
pub(crate) const VERSION: u32 = 1;

/// Prints a value as one line.
pub(crate) fn print(value: &impl Serialize, out: &mut Output) {
    out.line(&to_line(value));
}

/// A value as one line.
pub(crate) fn to_line(value: &impl Serialize) -> String {
    let mut bytes = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, Tame(CompactFormatter));
    value.serialize(&mut serializer).expect("structs of texts, numbers and JSON are always JSON");
    String::from_utf8(bytes).expect("JSON is UTF-8")
}

/// Escapes in texts whatever a terminal would obey; the value stays the same.
struct Tame(CompactFormatter);

impl Formatter for Tame {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        writer.write_all(escape(fragment).as_bytes())
    }

    fn write_raw_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        // Valid JSON has control characters below 0x20 between its tokens only, and those are left out.
        writer.write_all(layout(fragment, None).as_bytes())
    }
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        push(c, &mut out);
    }
    out
}

fn push(c: char, out: &mut String) {
    use std::fmt::Write as _;
    if is_unsafe(c) {
        // All of them lie below U+FFFF. Writing to a string cannot fail.
        let _ = write!(out, "\\u{:04x}", u32::from(c));
    } else {
        out.push(c);
    }
}

/// The text, if it is one JSON value of a depth that people and parsers can follow.
pub(crate) fn valid(body: &[u8]) -> Option<&str> {
    serde_json::from_slice::<serde::de::IgnoredAny>(body).ok()?;
    std::str::from_utf8(body).ok()
}

/// Valid JSON over lines, each after `indent`.
pub(crate) fn pretty(json: &str, indent: &str) -> String {
    layout(json, Some(indent))
}

/// Lays valid JSON out anew without reading its values: order of keys and every digit of a number stay as they were.
fn layout(json: &str, indent: Option<&str>) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    out.push_str(indent.unwrap_or_default());
    let mut depth = 0usize;
    let mut chars = json.chars().peekable();
    let new_line = |depth: usize, out: &mut String| {
        if let Some(indent) = indent {
            out.push('\n');
            out.push_str(indent);
            out.push_str(&"  ".repeat(depth));
        }
    };
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                out.push('"');
                while let Some(c) = chars.next() {
                    push(c, &mut out);
                    match c {
                        '\\' => out.extend(chars.next()),
                        '"' => break,
                        _ => {}
                    }
                }
            }
            '{' | '[' => {
                out.push(c);
                while chars.next_if(char::is_ascii_whitespace).is_some() {}
                if let Some(end) = chars.next_if(|c| matches!(c, '}' | ']')) {
                    out.push(end);
                } else {
                    depth += 1;
                    new_line(depth, &mut out);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                new_line(depth, &mut out);
                out.push(c);
            }
            ',' => {
                out.push(',');
                new_line(depth, &mut out);
            }
            ':' => out.push_str(if indent.is_some() { ": " } else { ":" }),
            c if c.is_ascii_whitespace() => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_keeps_its_order_and_its_digits() {
        let body = "{\"tid\":\"t\" , \"z\":[1.10,\n{}, [ ]],\"a\":{\"big\":123456789012345678901234567890,\"s\":\"x\\\"{,\"}}";
        let expected = "\
| {
|   \"tid\": \"t\",
|   \"z\": [
|     1.10,
|     {},
|     []
|   ],
|   \"a\": {
|     \"big\": 123456789012345678901234567890,
|     \"s\": \"x\\\"{,\"
|   }
| }";
        assert_eq!(pretty(valid(body.as_bytes()).unwrap(), "| "), expected);
        let compact = "{\"tid\":\"t\",\"z\":[1.10,{},[]],\"a\":{\"big\":123456789012345678901234567890,\"s\":\"x\\\"{,\"}}";
        assert_eq!(layout(body, None), compact);
    }

    #[test]
    fn what_a_terminal_would_obey_is_escaped_and_means_the_same() {
        let evil = "\u{9b}31m\u{202e}\u{7f}\x1b[2J ok";
        let line = to_line(&evil);
        assert!(!line.chars().any(is_unsafe), "{line:?}");
        assert_eq!(serde_json::from_str::<String>(&line).unwrap(), evil);
        let body = "{\"a\":\"\u{9b}\u{202e}\"}";
        let raw: &serde_json::value::RawValue = serde_json::from_str(body).unwrap();
        assert_eq!(to_line(&raw), "{\"a\":\"\\u009b\\u202e\"}");
        assert_eq!(pretty(body, ""), "{\n  \"a\": \"\\u009b\\u202e\"\n}");
    }

    #[test]
    fn what_is_no_json_is_not_laid_out() {
        for body in ["", "{", "{} x", &"[".repeat(10_000)] {
            assert_eq!(valid(body.as_bytes()), None);
        }
        assert_eq!(valid(b"{\"a\":\"\xff\"}"), None);
    }
}
