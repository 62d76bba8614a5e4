//! Messages from JSON as Protocol Buffers have it: a field that is absent has its default, and a
//! field that does not exist is an error. The types as they are generated ask for every field.

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{DeserializeOwned, Deserializer, Error as _, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::{Error, Value};

/// Reads a message.
pub(crate) fn parse<M: DeserializeOwned>(json: &str) -> Result<M, Error> {
    M::deserialize(Field(Some(serde_json::from_str(json)?)))
}

/// The value of a field, if it is there.
struct Field(Option<Value>);

impl IntoDeserializer<'_, Error> for Field {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

macro_rules! scalars {
    ($($deserialize:ident $visit:ident $default:literal;)+) => {$(
        fn $deserialize<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            match self.0 {
                Some(value) => value.$deserialize(visitor),
                None => visitor.$visit($default),
            }
        }
    )+};
}

impl<'de> Deserializer<'de> for Field {
    type Error = Error;

    scalars! {
        deserialize_bool visit_bool false;
        deserialize_i32 visit_i32 0;
        deserialize_u32 visit_u32 0;
        deserialize_i64 visit_i64 0;
        deserialize_u64 visit_u64 0;
        deserialize_f64 visit_f64 0.0;
        deserialize_string visit_str "";
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Some(_) => visitor.visit_some(self),
            None => visitor.visit_none(),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let Some(Value::Object(mut present)) = self.0 else {
            return Err(Error::custom(format_args!("{name} is not an object")));
        };
        let all: Vec<_> = fields
            .iter()
            .map(|&field| (field, Field(present.remove(field))))
            .collect();
        if let Some(unknown) = present.keys().next() {
            return Err(Error::custom(format_args!("{name} has no field {unknown}")));
        }
        visitor.visit_map(MapDeserializer::new(all.into_iter()))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let elements = match self.0 {
            Some(Value::Array(elements)) => elements,
            Some(other) => return Err(Error::custom(format_args!("{other} is not an array"))),
            None => Vec::new(),
        };
        let elements = elements.into_iter().map(|element| Field(Some(element)));
        visitor.visit_seq(SeqDeserializer::new(elements))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let entries = match self.0 {
            Some(Value::Object(entries)) => entries,
            Some(other) => return Err(Error::custom(format_args!("{other} is not an object"))),
            None => serde_json::Map::new(),
        };
        let entries = entries
            .into_iter()
            .map(|(key, value)| (key, Field(Some(value))));
        visitor.visit_map(MapDeserializer::new(entries))
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.0.unwrap_or_default().deserialize_any(visitor)
    }

    // No field of the interface is of these types.
    forward_to_deserialize_any! {
        i8 i16 i128 u8 u16 u128 f32 char str bytes byte_buf unit unit_struct newtype_struct tuple
        tuple_struct enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_cri::v1::{ContainerConfig, RunPodSandboxRequest};

    #[test]
    fn absent_fields_have_their_defaults() {
        let json = r#"{"config": {"metadata": {"name": "pod"}, "labels": {"a": "b"}}}"#;
        let request: RunPodSandboxRequest = parse(json).unwrap();
        assert_eq!(request.runtime_handler, "");
        let config = request.config.unwrap();
        assert_eq!(config.labels["a"], "b");
        let metadata = config.metadata.unwrap();
        assert_eq!((metadata.name.as_str(), metadata.attempt), ("pod", 0));
        assert!(config.linux.is_none());
    }

    #[test]
    fn elements_of_a_list_have_defaults_too() {
        let json = r#"{"command": ["x"], "mounts": [{"host_path": "/a"}], "tty": true}"#;
        let config: ContainerConfig = parse(json).unwrap();
        assert_eq!(config.command, ["x"]);
        assert_eq!(config.mounts[0].host_path, "/a");
        assert!(!config.mounts[0].readonly && config.tty);
    }

    #[test]
    fn an_unknown_field_is_named() {
        let err = parse::<ContainerConfig>(r#"{"mounts": [{"hostpath": "/a"}]}"#);
        assert_eq!(err.unwrap_err().to_string(), "Mount has no field hostpath");
    }
}
