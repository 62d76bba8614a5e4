//! What the table of limits becomes.

/// Declares the limits. A row has the key, the type of a value, what a value is in words, and
/// which values there are; and if only an engine can enforce it, the name that engines know it by,
/// and when they are asked for it, unless always when it is set.
macro_rules! limits {
    ($(
        $(#[$doc:meta])*
        $key:ident: $type:ty, $what:literal, $is_valid:expr
        $(, engine $limit:ident $(if $asked:expr)?)?;
    )*) => {
        /// Limits of a guest; what is not set is not limited here.
        #[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
        pub(crate) struct Limits {
            $($(#[$doc])* pub(crate) $key: Option<$type>,)*
        }

        impl Limits {
            /// Every key, in the order of the declaration.
            #[cfg(test)]
            pub(crate) const KEYS: &[&str] = &[$(stringify!($key)),*];

            /// Sets the limit `key` to a value written as text, which comes from `source`.
            ///
            /// # Errors
            ///
            /// There is no such limit, or the text is no value of it.
            pub(crate) fn set(&mut self, key: &str, text: &str, source: &str) -> Result<(), String> {
                use crate::engine::limits::setting::parse;
                match key {
                    $(stringify!($key) => {
                        self.$key = Some(parse(text, source, $what, $is_valid)?);
                    })*
                    unknown => return Err(format!("{source}: there is no limit {unknown}")),
                }
                Ok(())
            }

            /// These limits, made narrower by `wanted`.
            ///
            /// # Errors
            ///
            /// The first setting of `wanted`, which comes from `source`, that is wider than it is
            /// here.
            pub(crate) fn narrow(&self, wanted: &Self, source: &str) -> Result<Self, String> {
                use crate::engine::limits::setting::narrower;
                Ok(Self {
                    $($key: narrower(stringify!($key), &self.$key, &wanted.$key, source)?,)*
                })
            }

            /// Those that an engine has to enforce, which it may be unable to.
            pub(crate) fn of_the_engine(&self) -> impl Iterator<Item = Limit> {
                let mut asked = Vec::new();
                $($(
                    let is_asked: &[fn(&Self) -> bool] = &[$($asked)?];
                    if self.$key.is_some() && is_asked.iter().all(|is_asked| is_asked(self)) {
                        asked.push(Limit::$limit);
                    }
                )?)*
                asked.into_iter()
            }
        }

        impl<'de> serde::Deserialize<'de> for Limits {
            fn deserialize<D: serde::Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
                use crate::engine::limits::setting::check;
                #[derive(Default, serde::Deserialize)]
                #[serde(deny_unknown_fields, default)]
                struct Unchecked {
                    $($key: Option<$type>,)*
                }
                let unchecked = Unchecked::deserialize(input)?;
                $(
                    check(&unchecked.$key, stringify!($key), $what, $is_valid)
                        .map_err(serde::de::Error::custom)?;
                )*
                Ok(Self { $($key: unchecked.$key,)* })
            }
        }

        /// A limit of a guest that only its engine can enforce. The kernel or core enforces all
        /// others.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Limit {
            $($(
                #[doc = concat!("[`Workload::", stringify!($key), "`](crate::Workload::", stringify!($key), ")")]
                $limit,
            )?)*
        }

        /// The key by which the limit is set.
        impl std::fmt::Display for Limit {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(match self {
                    $($(Self::$limit => stringify!($key),)?)*
                })
            }
        }
    };
}

pub(super) use limits;
