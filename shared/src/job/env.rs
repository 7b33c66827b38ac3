//! Environment variables of a job: their names and values.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};

/// Text that names an environment variable.
macro_rules! env_name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                let valid = (1..=255).contains(&text.len())
                    && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
                    && !text.as_bytes()[0].is_ascii_digit();
                if !valid {
                    return Err(format!(concat!("{:?} is not a valid ", $what, ": letters, digits and '_'"), text));
                }
                if text.starts_with("HAUL_") {
                    return Err(format!("{text:?} is reserved: haul sets the variables that begin with HAUL_"));
                }
                Ok(Self(text.into()))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]{0,254}$" })
            }
        }
    };
}

env_name!(
    /// The name of an environment variable (POSIX, Base Definitions 8.1), none of haul's own.
    EnvName, "variable name"
);
env_name!(
    /// The name of a secret, which is also the variable that carries it.
    SecretName, "secret name"
);

/// The value of an environment variable; a number or a truth value in the file becomes its text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct EnvValue(pub String);

impl<'de> Deserialize<'de> for EnvValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(text) => text,
            serde_json::Value::Number(number) => number.to_string(),
            serde_json::Value::Bool(truth) => truth.to_string(),
            other => {
                return Err(serde::de::Error::custom(format!(
                    "{other} is not a text, a number or a truth value"
                )));
            }
        };
        if text.contains('\0') {
            return Err(serde::de::Error::custom("the value holds a NUL byte"));
        }
        Ok(Self(text))
    }
}

impl JsonSchema for EnvValue {
    fn schema_name() -> Cow<'static, str> {
        "EnvValue".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "number", "boolean"] })
    }
}
