//! Bodies that no handler can read, and some that look as if.

use ponos::core::Bytes;
use ponos::core::body::{MAX_BODY, MAX_DEPTH};

use super::place::{Amqp, Foreign};
use super::row::{Case, Then};

fn body(number: u8, input: &'static str, body: impl Into<Bytes>, then: Then) -> Case {
    let message = Foreign { body: body.into(), ..Foreign::default() };
    Case { number, input, message, then, tid: None, note: "", rabbitmq: false }
}

fn unreadable(number: u8, input: &'static str, bytes: impl Into<Bytes>, says: &'static str) -> Case {
    body(number, input, bytes, Then::Undecodable(says))
}

/// So many levels of arrays in a field.
fn deep(field: &str, levels: usize) -> String {
    format!("{{\"tid\":\"t\",\"n\":{levels},\"{field}\":{}{}}}", "[".repeat(levels), "]".repeat(levels))
}

/// What is no message, and what becomes of it.
pub fn cases() -> Vec<Case> {
    let delivery = include_str!("../../../../examples/payments/data/webhooks.jsonl").lines().next().unwrap();
    let ran =
        |number, input, text: &str, note| Case { note, ..body(number, input, text.to_owned(), Then::Ran(1)) };
    let compressed: &[u8] = b"\x1f\x8b\x08\0\0\0\0\0\0\xff\xed\xc1\x01\r\0\0\0\xc2\xa0\xf7Om\x0e7\xa0\0\0\0";
    vec![
        unreadable(8, "no byte at all", "", "the body is empty, a message is a JSON object such as {}"),
        unreadable(
            9,
            "bytes that are no UTF-8",
            &b"{\"n\":\"\xff\"}"[..],
            "the body is not UTF-8 from byte 6 on",
        ),
        unreadable(
            9,
            "half a character at the end",
            &b"{\"n\":\"\xc3"[..],
            "the body is not UTF-8 from byte 6 on",
        ),
        unreadable(
            9,
            "UTF-16",
            &b"\xff\xfe{\0}\0"[..],
            "the body is UTF-16, JSON is UTF-8 (RFC 8259): publish it as that",
        ),
        unreadable(10, "`hello`", "hello", "the body is not JSON: expected value at line 1 column 1"),
        unreadable(
            10,
            "two objects",
            "{\"tid\":\"t\",\"n\":1} {}",
            "the body is not JSON: trailing characters at line 1 column 19",
        ),
        unreadable(10, "a form", "n=1&tid=t", "the body is not JSON: expected ident at line 1 column 2"),
        unreadable(11, "an array", "[1]", "the body is JSON but no object"),
        unreadable(11, "a text", "\"{}\"", "the body is JSON but no object"),
        unreadable(11, "`null`", "null", "the body is JSON but no object"),
        unreadable(
            12,
            "an object without its end",
            "{\"tid\":\"t\",\"n\":1",
            "the body is not JSON: EOF while parsing an object at line 1 column 16",
        ),
        unreadable(
            12,
            "half of a real delivery of GitHub's",
            Bytes::from_static(&delivery.as_bytes()[..delivery.len() / 2]),
            "the body is not JSON: EOF while parsing a string at line 1 column 3475",
        ),
        unreadable(
            13,
            "a byte order mark",
            "\u{feff}{\"tid\":\"t\",\"n\":1}",
            "the body begins with a byte order mark, which JSON has not (RFC 8259): publish it without",
        ),
        unreadable(
            14,
            "a field twice",
            "{\"tid\":\"t\",\"n\":1,\"n\":2}",
            "the body does not fit `{type}`: at `.`: duplicate field `n` at line 1 column 20",
        ),
        ran(
            14,
            "a field twice that nobody reads",
            "{\"tid\":\"t\",\"n\":14,\"x\":1,\"x\":2}",
            "types that take any field keep the last one",
        ),
        unreadable(
            15,
            "10,000 arrays in one another",
            deep("n", 10_000),
            "the body nests deeper than 128 levels",
        ),
        unreadable(
            15,
            "the same in a field that nobody reads",
            deep("x", 10_001),
            "the body nests deeper than 128 levels",
        ),
        ran(15, "as deep as may be, in a field that nobody reads", &deep("x", MAX_DEPTH - 1), ""),
        unreadable(
            15,
            "a bracket opened 100,000 times",
            "[".repeat(100_000),
            "the body nests deeper than 128 levels",
        ),
        unreadable(
            16,
            "1e400",
            "{\"tid\":\"t\",\"n\":1e400}",
            "the body is not JSON: number out of range at line 1 column 20",
        ),
        unreadable(
            16,
            "NaN",
            "{\"tid\":\"t\",\"n\":NaN}",
            "the body is not JSON: expected value at line 1 column 16",
        ),
        unreadable(
            16,
            "2⁶⁴ for a `u64`",
            "{\"tid\":\"t\",\"n\":18446744073709551616}",
            "the body does not fit `{type}`: at `n`: invalid type: floating point `…`, expected u64 at line 1 column 35",
        ),
        unreadable(
            16,
            "−1 for a `u64`",
            "{\"tid\":\"t\",\"n\":-1}",
            "the body does not fit `{type}`: at `n`: invalid value: integer `…`, expected u64 at line 1 column 17",
        ),
        ran(
            16,
            "2⁶⁴−1 for a `u64`",
            "{\"tid\":\"t\",\"n\":18446744073709551615}",
            "no digit is lost; into an `f64` or beyond 64 bits into a `serde_json::Value` JSON's numbers are rounded",
        ),
        unreadable(
            19,
            "gzip",
            compressed,
            "the body is compressed (gzip), which is not unpacked: publish plain JSON",
        ),
        unreadable(
            19,
            "zstd",
            &b"\x28\xb5\x2f\xfd\x04\x00\x11\x00\x00{}"[..],
            "the body is compressed (zstd), which is not unpacked: publish plain JSON",
        ),
        unreadable(
            21,
            "a text for a number",
            "{\"tid\":\"t\",\"n\":\"1\"}",
            "the body does not fit `{type}`: at `n`: invalid type: string \\\"…\\\", expected u64 at line 1 column 18",
        ),
        unreadable(
            21,
            "a field less",
            "{\"tid\":\"t\"}",
            "the body does not fit `{type}`: at `.`: missing field `n` at line 1 column 11",
        ),
        unreadable(
            21,
            "a real delivery of GitHub's, a `push`",
            delivery,
            "the body does not fit `{type}`: at `.`: missing field `n` at line 1 column 6950",
        ),
        ran(
            21,
            "a field more",
            "{\"tid\":\"t\",\"n\":21,\"more\":[{}]}",
            "readers skip what they do not know",
        ),
    ]
}

/// What is larger than anything of ours; apart, because looking at it takes longer.
pub fn large() -> Vec<Case> {
    let large = |number, input, size: usize, says| {
        let case = unreadable(number, input, vec![b' '; size], says);
        Case { note: "it is not looked at; it can be discarded, and retried not", ..case }
    };
    vec![
        large(18, "1 MiB and a byte", MAX_BODY + 1, "the body has 1048577 bytes, the limit is 1048576"),
        large(18, "17 MiB", 17 << 20, "the body has 17825792 bytes, the limit is 1048576"),
    ]
}

/// What a publisher says of its body, which only AMQP carries.
pub fn labels() -> Vec<Case> {
    let label = |number, input, n: u64, amqp, note| {
        let case = body(number, input, format!("{{\"tid\":\"t\",\"n\":{n}}}"), Then::Ran(1));
        Case { message: Foreign { amqp, ..case.message }, note, rabbitmq: true, ..case }
    };
    let of_type = |content_type| Amqp { content_type, ..Amqp::default() };
    let encoded = |content_encoding| Amqp { content_encoding: Some(content_encoding), ..Amqp::default() };
    let bytes = "the bytes decide, not their label";
    vec![
        label(19, "JSON with the encoding `gzip`", 191, encoded("gzip"), bytes),
        label(19, "JSON with the encoding `utf-8`", 192, encoded("utf-8"), bytes),
        label(20, "no content type", 200, of_type(None), bytes),
        label(20, "the content type `text/plain`", 201, of_type(Some("text/plain")), bytes),
        label(
            20,
            "the content type `application/xml; charset=latin-1`",
            202,
            of_type(Some("application/xml; charset=latin-1")),
            bytes,
        ),
    ]
}
