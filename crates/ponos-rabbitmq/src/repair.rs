//! Frames that the client library cannot read, repaired in place.
//!
//! RabbitMQ passes on what a publisher wrote: short strings of any bytes, and tables in one another as deep as a frame is
//! long. The client library ends the connection over the first, and the process over the second (its parser recurses, and
//! a thread's stack overflows). The message then comes again, and again: one such message stops every consumer of its
//! queue, and whoever only looks into it.
//!
//! So a frame is looked at before the library gets it. What is not UTF-8 in a short string becomes `?`, and a table or a
//! list deeper than [`MAX_NESTING`] becomes a long string, which is laid out alike. No length changes. Nothing of ours is
//! ever touched, and of others' messages nothing that Ponos reads.

/// How deep tables and lists may be in one another. Ponos reads none; RabbitMQ's own `x-death` has two levels.
const MAX_NESTING: u32 = 16;

/// What is repaired in a message, for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Repaired {
    /// Short strings that were no UTF-8.
    pub(crate) texts: u32,
    /// Tables and lists that were too deep.
    pub(crate) nestings: u32,
}

impl Repaired {
    pub(crate) fn is_any(self) -> bool {
        self != Self::default()
    }
}

/// The kinds of frames that hold what publishers wrote.
const METHOD: u8 = 1;
const HEADER: u8 = 2;

/// Whether a frame of this kind is looked at.
pub(crate) fn concerns(kind: u8) -> bool {
    matches!(kind, METHOD | HEADER)
}

/// Repairs the payload of a frame. What cannot be followed is left as it is, for the library to judge.
pub(crate) fn repair(kind: u8, payload: &mut [u8]) -> Repaired {
    let mut reader = Reader { rest: payload, repaired: Repaired::default() };
    let _ = match kind {
        METHOD => method(&mut reader),
        HEADER => header(&mut reader),
        _ => None,
    };
    reader.repaired
}

/// `basic.deliver` and `basic.get-ok` bring the routing key, and `basic.return` ours back.
fn method(reader: &mut Reader<'_>) -> Option<()> {
    let (class, method) = (reader.u16()?, reader.u16()?);
    match (class, method) {
        (60, 60) => {
            reader.short()?; // the consumer's tag
            reader.skip(9)?; // delivery tag, redelivered
            reader.short()?;
            reader.short()
        }
        (60, 71) => {
            reader.skip(9)?;
            reader.short()?;
            reader.short()
        }
        _ => None,
    }
}

/// The content header: class, weight, the body's size, flags, and the properties that the flags name.
fn header(reader: &mut Reader<'_>) -> Option<()> {
    /// The kinds of the properties, from the highest flag on.
    const KINDS: [Kind; 14] = {
        use Kind::{Octet, Short, Table, Time};
        [Short, Short, Table, Octet, Octet, Short, Short, Short, Short, Time, Short, Short, Short, Short]
    };
    reader.skip(12)?;
    let flags = reader.u16()?;
    for (place, kind) in KINDS.iter().enumerate() {
        if flags & (0x8000 >> place) == 0 {
            continue;
        }
        match kind {
            Kind::Short => reader.short()?,
            Kind::Octet => reader.skip(1)?,
            Kind::Time => reader.skip(8)?,
            Kind::Table => {
                let mut table = reader.long()?;
                table.fields(1)?;
                reader.repaired = add(reader.repaired, table.repaired);
            }
        }
    }
    Some(())
}

enum Kind {
    Short,
    Octet,
    Time,
    Table,
}

fn add(one: Repaired, other: Repaired) -> Repaired {
    Repaired { texts: one.texts + other.texts, nestings: one.nestings + other.nestings }
}

/// Goes through bytes, and repairs what it passes. `None` when there are too few.
struct Reader<'a> {
    rest: &'a mut [u8],
    repaired: Repaired,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a mut [u8]> {
        let rest = std::mem::take(&mut self.rest);
        if len > rest.len() {
            return None;
        }
        let (taken, rest) = rest.split_at_mut(len);
        self.rest = rest;
        Some(taken)
    }

    fn skip(&mut self, len: usize) -> Option<()> {
        self.take(len).map(drop)
    }

    fn u16(&mut self) -> Option<u16> {
        let bytes: &[u8] = self.take(2)?;
        Some(u16::from_be_bytes(bytes.try_into().ok()?))
    }

    fn len(&mut self) -> Option<usize> {
        let bytes: &[u8] = self.take(4)?;
        usize::try_from(u32::from_be_bytes(bytes.try_into().ok()?)).ok()
    }

    /// A text of at most 255 bytes.
    fn short(&mut self) -> Option<()> {
        let len = usize::from(self.take(1)?[0]);
        let text = self.take(len)?;
        if std::str::from_utf8(text).is_err() {
            text.iter_mut().filter(|byte| !byte.is_ascii()).for_each(|byte| *byte = b'?');
            self.repaired.texts += 1;
        }
        Some(())
    }

    /// What has its length in four bytes in front.
    fn long(&mut self) -> Option<Reader<'a>> {
        let len = self.len()?;
        Some(Reader { rest: self.take(len)?, repaired: Repaired::default() })
    }

    /// The fields of a table that is so deep.
    fn fields(&mut self, depth: u32) -> Option<()> {
        while !self.rest.is_empty() {
            self.short()?;
            self.value(depth)?;
        }
        Some(())
    }

    fn value(&mut self, depth: u32) -> Option<()> {
        let kind = &mut self.take(1)?[0];
        match *kind {
            b'F' | b'A' if depth >= MAX_NESTING => {
                // A long string is laid out alike, and need be no text.
                *kind = b'S';
                self.repaired.nestings += 1;
                self.long().map(drop)
            }
            b'F' => {
                let mut table = self.long()?;
                let followed = table.fields(depth + 1);
                self.repaired = add(self.repaired, table.repaired);
                followed
            }
            b'A' => {
                let mut list = self.long()?;
                let mut followed = Some(());
                while followed.is_some() && !list.rest.is_empty() {
                    followed = list.value(depth + 1);
                }
                self.repaired = add(self.repaired, list.repaired);
                followed
            }
            b'S' | b'x' => self.long().map(drop),
            b't' | b'b' | b'B' => self.skip(1),
            b's' | b'u' | b'U' => self.skip(2),
            b'I' | b'i' | b'f' => self.skip(4),
            b'l' | b'L' | b'd' | b'T' => self.skip(8),
            b'D' => self.skip(5),
            b'V' => Some(()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn long(bytes: &[u8]) -> Vec<u8> {
        [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
    }

    /// A content header with these flags and properties.
    fn header(flags: u16, properties: &[u8]) -> Vec<u8> {
        [&[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9][..], &flags.to_be_bytes(), properties].concat()
    }

    fn nested(levels: usize) -> Vec<u8> {
        (0..levels).fold(long(b""), |inner, _| long(&[&b"\x01xF"[..], &inner].concat()))
    }

    #[test]
    fn what_is_fine_is_left_as_it_is() {
        let fields = [
            &b"\x01tt\x01\x01iI\0\0\0\x07\x02\xc3\xbcS"[..],
            &long(b"\xff\xff"),
            b"\x01vV\x01dD\x01\0\0\0\x0f",
        ]
        .concat();
        let properties =
            [&b"\x10application/json"[..], &long(&fields), b"\x02", b"\x03abc", &[0; 8]].concat();
        let mut frame = header(0x8000 | 0x2000 | 0x1000 | 0x0080 | 0x0040, &properties);
        let before = frame.clone();
        assert_eq!(repair(HEADER, &mut frame), Repaired::default());
        assert_eq!(frame, before);
    }

    #[test]
    fn a_short_string_becomes_utf_8_and_keeps_its_length() {
        let table = long(b"\x02\xff\xfet\x01");
        let mut frame = header(0x2000 | 0x0080, &[&table[..], b"\x04a\xffb\xc3"].concat());
        assert_eq!(repair(HEADER, &mut frame), Repaired { texts: 2, nestings: 0 });
        assert!(frame.ends_with(b"\x04a?b?"), "{frame:?}");
        assert!(frame.windows(5).any(|part| part == b"\x02??t\x01"), "{frame:?}");
        let mut deliver = [&[0, 60, 0, 60][..], b"\x01c", &[0; 9], b"\x01x\x02\xff\xfe"].concat();
        assert_eq!(repair(METHOD, &mut deliver).texts, 1);
        assert!(deliver.ends_with(b"\x02??"));
    }

    #[test]
    fn what_is_too_deep_becomes_a_long_string_of_the_same_length() {
        for (levels, repaired) in [(3, 0), (15, 0), (16, 1), (20_000, 1)] {
            let mut frame = header(0x2000, &nested(levels));
            let len = frame.len();
            assert_eq!(repair(HEADER, &mut frame).nestings, repaired, "{levels}");
            assert_eq!(frame.len(), len);
            assert_eq!(repair(HEADER, &mut frame), Repaired::default(), "once is enough");
        }
    }

    #[test]
    fn no_bytes_make_it_panic_or_change_their_length() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..20_000 {
            let len = random.usize(..80);
            let mut bytes: Vec<u8> = (0..len)
                .map(|_| if random.bool() { random.u8(..8) } else { b"FASxtV"[random.usize(..6)] })
                .collect();
            if len > 14 && random.bool() {
                bytes[12] = 0x20; // headers alone
                bytes[13] = 0;
            }
            repair(METHOD, &mut bytes);
            repair(HEADER, &mut bytes);
            assert_eq!(bytes.len(), len);
        }
    }
}
