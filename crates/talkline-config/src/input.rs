//! What a configuration is made of, as data: the caller reads files, environment and arguments.

use std::{collections::BTreeMap, fmt};

/// Everything that [`resolve`](crate::resolve) looks at.
///
/// Precedence, highest first: `flags`, `variables`, `files` (a later file before an earlier one),
/// the documented defaults.
pub struct Inputs<'a> {
    /// Configuration files, already read.
    pub files: &'a [SourceFile],
    /// The environment. Only the variables of the reference and those that a secret reference
    /// names are looked at.
    pub variables: &'a BTreeMap<String, String>,
    /// Command-line flags that stand for a configuration key.
    pub flags: &'a [FlagValue],
    /// Whether the identity of a developer's tool may be used (`--dev`).
    pub developer_tools: DeveloperTools,
    /// Whether everybody on the machine may read a file that `{ file = "…" }` names.
    pub is_exposed: &'a dyn Fn(&str) -> bool,
    /// Reads a file that `{ file = "…" }` names and returns its text, or a short reason why it
    /// cannot be read. The reason is shown to the user, the text never is.
    pub read_secret_file: &'a dyn Fn(&str) -> Result<String, String>,
}

/// Whether `azure-cli` and `azd` are accepted as identities.
///
/// Never a matter of the configuration file, which travels from a developer's machine to a server,
/// where a stray `az login` would change who the relay is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeveloperTools {
    /// They are a problem.
    #[default]
    Refused,
    /// They are accepted; `auto` takes the Azure CLI where nothing says otherwise.
    Allowed,
}

/// One configuration file.
#[derive(Clone)]
pub struct SourceFile {
    /// The name by which messages call it: the path as the user wrote it.
    pub name: String,
    /// Its whole text.
    pub text: String,
    /// How to read it.
    pub format: Format,
}

/// How a configuration file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// TOML 1.0. Unknown keys are refused.
    Toml,
    /// JSON or JSON5, possibly an OpenClaw `openclaw.json`: sections that are not Talkline's and
    /// OpenClaw's own `talk.realtime` keys are accepted and not read.
    Json5,
}

impl Format {
    /// The format that a file name's ending stands for: `.json` and `.json5` are JSON5, all
    /// others TOML.
    pub fn of_file_name(name: &str) -> Self {
        let name = name.to_ascii_lowercase();
        if name.ends_with(".json") || name.ends_with(".json5") {
            Self::Json5
        } else {
            Self::Toml
        }
    }
}

impl fmt::Debug for SourceFile {
    /// Without the text, which may hold a key that somebody pasted.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceFile")
            .field("name", &self.name)
            .field("format", &self.format)
            .field("bytes", &self.text.len())
            .finish()
    }
}

/// A command-line flag that stands for a configuration key.
#[derive(Clone, PartialEq, Eq)]
pub struct FlagValue {
    /// The flag as the user typed it, `--listen`.
    pub flag: String,
    /// The dotted key that it stands for, `server.listen`.
    pub key: String,
    /// Its value as text. Lists are separated by commas.
    pub value: String,
}

impl fmt::Debug for FlagValue {
    /// Without the value: a user may have put a key there.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlagValue")
            .field("flag", &self.flag)
            .field("key", &self.key)
            .finish()
    }
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// A command-line flag, by its name.
    Flag(String),
    /// An environment variable, by its name.
    Variable(String),
    /// A place in a file.
    File {
        /// The file's name as given in [`SourceFile::name`].
        name: String,
        /// Line of the key, counted from 1.
        line: usize,
    },
    /// The documented default.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "flag {flag}"),
            Self::Variable(name) => write!(f, "variable {name}"),
            Self::File { name, line } => write!(f, "{name}:{line}"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// One effective value, for `config show --origin`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Dotted key.
    pub key: String,
    /// The value as one would write it in TOML; a secret as its fingerprint.
    pub value: String,
    /// Where it came from.
    pub source: Source,
}
