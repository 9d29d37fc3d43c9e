//! Enums whose values have names: the same in TOML files, in commands and in error messages.

/// Declares such an enum: `ALL`, `name`, `Display`, `FromStr` and serde come from the one list.
/// The literal says what the values are, for the error that lists them.
macro_rules! named {
    (
        $what:literal,
        $(#[$meta:meta])*
        pub enum $Enum:ident {
            $($(#[$doc:meta])* $Variant:ident = $name:literal,)+
        }
    ) => {
        $(#[$meta])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize,
            schemars::JsonSchema,
        )]
        pub enum $Enum {
            $($(#[$doc])* #[serde(rename = $name)] $Variant,)+
        }

        impl $Enum {
            /// All of them.
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$Variant),+];

            /// The name in commands and files.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$Variant => $name,)+
                }
            }
        }

        impl std::fmt::Display for $Enum {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }

        impl std::str::FromStr for $Enum {
            type Err = $crate::Error;

            fn from_str(name: &str) -> $crate::Result<Self> {
                let known = Self::ALL.into_iter().find(|value| value.name() == name);
                known.ok_or_else(|| {
                    let names = Self::ALL.map(Self::name).join(", ");
                    $crate::Error::Invalid(format!(
                        "{} `{name}` is unknown; expected one of {names}",
                        $what
                    ))
                })
            }
        }
    };
}

pub(crate) use named;
