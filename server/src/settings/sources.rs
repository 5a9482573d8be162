//! Where values come from, and what is said of those that are wrong.

use std::{collections::BTreeMap, fmt, path::Path};

use super::KNOWN;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub name: String,
    pub expected: String,
    /// What was found; never of a secret.
    pub found: Option<String>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: expected {}", self.name, self.expected)?;
        match &self.found {
            Some(found) => write!(f, ", found \"{found}\""),
            None => Ok(()),
        }
    }
}

/// Where values come from. Earlier sources win.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    pub flags: BTreeMap<String, String>,
    pub environment: BTreeMap<String, String>,
    pub file: BTreeMap<String, String>,
}

impl Sources {
    /// The process's environment, and a TOML file: the one named, or `botdeck.toml` when it is there.
    pub fn read(flags: BTreeMap<String, String>, file: Option<&Path>) -> (Self, Vec<Fault>) {
        let mut faults = Vec::new();
        let environment = environment(&mut faults);
        let fallback = Path::new("botdeck.toml");
        let path = file.or_else(|| fallback.exists().then_some(fallback));
        let values = path.map(|path| toml_values(path, &mut faults)).unwrap_or_default();
        (
            Self {
                flags,
                environment,
                file: values,
            },
            faults,
        )
    }

    /// In the order in which they win.
    pub(super) fn layers(&self) -> [&BTreeMap<String, String>; 3] {
        [&self.flags, &self.environment, &self.file]
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.layers().into_iter().find_map(|layer| set_in(layer, name))
    }

    /// It is set somewhere.
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Sets what no source sets.
    pub fn fall_back(&mut self, name: &str, value: &str) {
        if !self.has(name) {
            self.file.insert(name.to_owned(), value.to_owned());
        }
    }

    /// What a command that works on the database cannot do without, and is set nowhere.
    pub fn missing_storage(&self) -> Vec<Fault> {
        let missing = |names: &[&str], expected: &str| {
            names.iter().all(|name| !self.has(name)).then(|| Fault {
                name: names.first().copied().unwrap_or_default().to_owned(),
                expected: expected.to_owned(),
                found: None,
            })
        };
        let database = "postgres://user:password@host/name; or --embedded for a private one";
        missing(&["DATABASE_URL"], database)
            .into_iter()
            .chain(missing(
                &["BOTDECK_SECRET_KEY", "BOTDECK_SECRET_KEY_FILE"],
                services::EXPECTED_KEY,
            ))
            .collect()
    }

    pub(super) fn unknown(&self) -> impl Iterator<Item = &String> {
        let named = self.flags.keys().chain(self.file.keys());
        named.filter(|name| !KNOWN.iter().any(|known| known.name == name.as_str()))
    }
}

/// An empty value counts as not set: `NAME=` in an environment file hides nothing. A password is taken as it was typed, but for the
/// line's end that a file brings along: who signs in types the same.
pub(super) fn set_in<'a>(layer: &'a BTreeMap<String, String>, name: &str) -> Option<&'a str> {
    let value = layer.get(name)?;
    let value = match name {
        "BOTDECK_OWNER_PASSWORD" => value.trim_end_matches(['\r', '\n']),
        _ => value.trim(),
    };
    (!value.trim().is_empty()).then_some(value)
}

/// Only the settings are looked at: what others put into the environment need not even be text.
fn environment(faults: &mut Vec<Fault>) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    for known in KNOWN {
        match std::env::var_os(known.name).map(std::ffi::OsString::into_string) {
            Some(Ok(value)) => drop(values.insert(known.name.to_owned(), value)),
            Some(Err(_)) => faults.push(Fault {
                name: known.name.to_owned(),
                expected: "text in UTF-8".to_owned(),
                found: None,
            }),
            None => {}
        }
    }
    values
}

/// Keys are the settings' names in lower case; numbers and booleans may stand without quotes.
fn toml_values(path: &Path, faults: &mut Vec<Fault>) -> BTreeMap<String, String> {
    let fault = |expected: String| Fault {
        name: path.display().to_string(),
        expected,
        found: None,
    };
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            faults.push(fault(format!("a readable TOML file ({error})")));
            return BTreeMap::new();
        }
    };
    let table: toml::Table = match toml::from_str(&text) {
        Ok(table) => table,
        // The message alone: toml's own report quotes the line, and with it a secret.
        Err(error) => {
            faults.push(fault(format!("TOML ({})", error.message())));
            return BTreeMap::new();
        }
    };
    let mut values = BTreeMap::new();
    for (key, value) in table {
        let text = match value {
            toml::Value::String(text) => text,
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Boolean(truth) => truth.to_string(),
            _ => {
                faults.push(fault(format!("a text, number or boolean for {key}")));
                continue;
            }
        };
        values.insert(key.to_uppercase(), text);
    }
    values
}
