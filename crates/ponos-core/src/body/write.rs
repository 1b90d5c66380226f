//! Writing a payload as a body: `{"tid":"…",` and then the payload's own fields.

use std::fmt;

use bytes::Bytes;
use serde::ser::{
    self, Impossible, Serialize, SerializeMap, SerializeStruct, SerializeStructVariant, Serializer,
};

use super::read::depth_exceeds;
use super::{MAX_BODY, MAX_DEPTH};
use crate::id::Tid;

type Json<'a> = &'a mut serde_json::Serializer<&'a mut Vec<u8>>;
type JsonMap<'a> = <Json<'a> as Serializer>::SerializeMap;

/// A payload that cannot be a body. The message names the payload's type.
#[derive(Debug, thiserror::Error)]
#[error("`{payload}` cannot be published: {problem}")]
pub struct EncodeError {
    payload: &'static str,
    problem: String,
}

/// Writes `payload` as a JSON object with `tid` first.
///
/// # Errors
///
/// When the payload is no object (a unit struct counts as `{}`), has a top-level field `tid`, fails to serialise,
/// is larger than [`MAX_BODY`] bytes, or nests deeper than [`MAX_DEPTH`].
pub fn encode<T: Serialize + ?Sized>(tid: &Tid, payload: &T) -> Result<Bytes, EncodeError> {
    let mut out = Vec::with_capacity(192);
    let mut json = serde_json::Serializer::new(&mut out);
    let fail = |problem: String| EncodeError { payload: std::any::type_name::<T>(), problem };
    payload.serialize(Object { tid, json: &mut json }).map_err(|e| fail(e.to_string()))?;
    if out.len() > MAX_BODY {
        return Err(fail(format!(
            "its body has {} bytes, the limit is {MAX_BODY}: send a reference to the data instead of the data",
            out.len()
        )));
    }
    if depth_exceeds(&out, MAX_DEPTH) {
        return Err(fail(format!(
            "its body nests deeper than {MAX_DEPTH} levels, which no reader takes: flatten it"
        )));
    }
    Ok(Bytes::from(out))
}

/// A serializer that takes objects only and opens each with the transaction id.
struct Object<'a> {
    tid: &'a Tid,
    json: Json<'a>,
}

impl<'a> Object<'a> {
    fn open(self) -> Result<Fields<'a>, serde_json::Error> {
        let mut map = self.json.serialize_map(None)?;
        map.serialize_entry("tid", self.tid)?;
        Ok(Fields { map, key_is_tid: false })
    }
}

/// The fields of an object that is being written.
struct Fields<'a> {
    map: JsonMap<'a>,
    /// Whether the key of the entry being written is `tid`; only maps give key and value apart.
    key_is_tid: bool,
}

fn second_tid() -> serde_json::Error {
    ser::Error::custom(
        "it has a top-level field `tid`, which is the transaction id's place: rename the field",
    )
}

fn no_object(what: impl fmt::Display) -> serde_json::Error {
    ser::Error::custom(format!("it is {what}, a message is a JSON object: use a struct with named fields"))
}

impl SerializeStruct for Fields<'_> {
    type Ok = ();
    type Error = serde_json::Error;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &T,
    ) -> Result<(), Self::Error> {
        if key == "tid" {
            return Err(second_tid());
        }
        self.map.serialize_entry(key, value)
    }

    fn end(self) -> Result<(), Self::Error> {
        SerializeMap::end(self.map)
    }
}

impl SerializeStructVariant for Fields<'_> {
    type Ok = ();
    type Error = serde_json::Error;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &T,
    ) -> Result<(), Self::Error> {
        SerializeStruct::serialize_field(self, key, value)
    }

    fn end(self) -> Result<(), Self::Error> {
        SerializeMap::end(self.map)
    }
}

impl SerializeMap for Fields<'_> {
    type Ok = ();
    type Error = serde_json::Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Self::Error> {
        // Flattened structs and maps come here; their keys are rarely many, so the detour over a value may cost.
        self.key_is_tid = serde_json::to_value(key)? == "tid";
        if self.key_is_tid {
            return Err(second_tid());
        }
        self.map.serialize_key(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Self::Error> {
        self.map.serialize_value(value)
    }

    fn end(self) -> Result<(), Self::Error> {
        SerializeMap::end(self.map)
    }
}

macro_rules! refuse {
    ($($method:ident($type:ty) $what:literal;)*) => {
        $(fn $method(self, _: $type) -> Result<(), Self::Error> { Err(no_object($what)) })*
    };
}

impl<'a> Serializer for Object<'a> {
    type Ok = ();
    type Error = serde_json::Error;
    type SerializeSeq = Impossible<(), Self::Error>;
    type SerializeTuple = Impossible<(), Self::Error>;
    type SerializeTupleStruct = Impossible<(), Self::Error>;
    type SerializeTupleVariant = Impossible<(), Self::Error>;
    type SerializeMap = Fields<'a>;
    type SerializeStruct = Fields<'a>;
    type SerializeStructVariant = Impossible<(), Self::Error>;

    refuse! {
        serialize_bool(bool) "a boolean";
        serialize_i8(i8) "a number";
        serialize_i16(i16) "a number";
        serialize_i32(i32) "a number";
        serialize_i64(i64) "a number";
        serialize_u8(u8) "a number";
        serialize_u16(u16) "a number";
        serialize_u32(u32) "a number";
        serialize_u64(u64) "a number";
        serialize_f32(f32) "a number";
        serialize_f64(f64) "a number";
        serialize_char(char) "a character";
        serialize_str(&str) "a string";
        serialize_bytes(&[u8]) "an array";
    }

    fn serialize_none(self) -> Result<(), Self::Error> {
        Err(no_object("null"))
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Self::Error> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Self::Error> {
        Err(no_object("null"))
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Self::Error> {
        SerializeStruct::end(self.open()?)
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<(), Self::Error> {
        Err(no_object(format_args!("the string \"{variant}\"")))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Self::Error> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Self::Error> {
        let mut fields = self.open()?;
        SerializeStruct::serialize_field(&mut fields, variant, value)?;
        SerializeStruct::end(fields)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self::SerializeSeq, Self::Error> {
        Err(no_object("an array"))
    }

    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, Self::Error> {
        Err(no_object("an array"))
    }

    fn serialize_tuple_struct(
        self,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleStruct, Self::Error> {
        Err(no_object("an array"))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, Self::Error> {
        Err(no_object("an externally tagged enum, whose other variants are no objects"))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, Self::Error> {
        self.open()
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeStruct, Self::Error> {
        self.open()
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, Self::Error> {
        Err(no_object("an externally tagged enum, whose other variants are no objects"))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Serialize;

    use super::*;

    fn tid() -> Tid {
        Tid::from_foreign("t-1").unwrap()
    }

    fn text<T: Serialize>(payload: &T) -> Result<String, String> {
        encode(&tid(), payload).map(|b| String::from_utf8(b.to_vec()).unwrap()).map_err(|e| e.to_string())
    }

    #[derive(Serialize)]
    struct Paid {
        org: &'static str,
        #[serde(flatten)]
        more: BTreeMap<&'static str, u8>,
    }

    #[derive(Serialize)]
    struct Nothing;

    #[derive(Serialize)]
    struct Shadow {
        tid: u8,
    }

    #[derive(Serialize)]
    #[serde(tag = "kind")]
    enum Tagged {
        A { x: u8 },
    }

    #[test]
    fn the_tid_is_the_first_field() {
        assert_eq!(
            text(&Paid { org: "acme", more: [("a", 1)].into() }).unwrap(),
            r#"{"tid":"t-1","org":"acme","a":1}"#
        );
        assert_eq!(text(&Nothing).unwrap(), r#"{"tid":"t-1"}"#);
        assert_eq!(text(&Tagged::A { x: 1 }).unwrap(), r#"{"tid":"t-1","kind":"A","x":1}"#);
        assert_eq!(text(&serde_json::json!({"x": 1})).unwrap(), r#"{"tid":"t-1","x":1}"#);
    }

    #[test]
    fn a_second_tid_is_refused_and_the_error_names_the_type() {
        for error in [
            text(&Shadow { tid: 1 }).unwrap_err(),
            text(&Paid { org: "", more: [("tid", 1)].into() }).unwrap_err(),
        ] {
            assert!(error.contains("rename the field"), "{error}");
        }
        assert!(text(&Shadow { tid: 1 }).unwrap_err().contains("Shadow"));
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for error in [
            text(&1).unwrap_err(),
            text(&"x").unwrap_err(),
            text(&vec![1]).unwrap_err(),
            text(&Some(())).unwrap_err(),
        ] {
            assert!(error.contains("use a struct with named fields"), "{error}");
        }
    }

    #[test]
    fn what_no_reader_would_take_for_its_depth_is_refused() {
        let nested = |levels: usize| {
            let deep = (1..levels).fold(serde_json::json!(1), |inner, _| serde_json::json!([inner]));
            serde_json::json!({ "x": deep })
        };
        // The parser's own limit is one level less for a value that is kept.
        let fits = encode(&tid(), &nested(MAX_DEPTH - 1)).unwrap();
        assert!(super::super::object(&fits).is_ok());
        let error = text(&nested(MAX_DEPTH + 1)).unwrap_err();
        assert!(error.contains("nests deeper than 128 levels"), "{error}");
    }

    #[test]
    fn a_megabyte_and_one_byte_is_refused() {
        let overhead = text(&serde_json::json!({"x": ""})).unwrap().len();
        let fits = serde_json::json!({"x": "a".repeat(MAX_BODY - overhead)});
        assert_eq!(text(&fits).unwrap().len(), MAX_BODY);
        let large = serde_json::json!({"x": "a".repeat(MAX_BODY - overhead + 1)});
        assert!(text(&large).unwrap_err().contains("1048577 bytes"));
    }
}
