//! Gathers files, environment and flags, and has them resolved.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    io::IsTerminal as _,
    path::{Path, PathBuf},
};

use talkline_config::{
    DeveloperTools, FlagValue, Format, Inputs, Report, Resolved, SourceFile, Style,
};

use crate::{cli::ConfigArguments, exit::Exit};

/// Read when no `--config` is given and it exists.
const DEFAULT_FILE: &str = "talkline.toml";
/// A configuration file is a few kilobytes; more is a mistake, such as a log or a device.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// A secret is a line.
const SECRET_BYTES_MAX: u64 = 64 << 10;

/// Reads everything and resolves it.
///
/// `Err` is a file that cannot be read; what stands in it is judged in the inner result.
pub(crate) fn resolve(arguments: &ConfigArguments) -> Result<Result<Resolved, Report>, Exit> {
    resolve_noting_files(arguments).map(|(resolved, _)| resolved)
}

/// The same, with the secret files that the configuration names.
pub(crate) fn resolve_noting_files(
    arguments: &ConfigArguments,
) -> Result<(Result<Resolved, Report>, Vec<PathBuf>), Exit> {
    let paths = files(arguments);
    let files = paths
        .iter()
        .map(|path| source(path))
        .collect::<Result<Vec<_>, _>>()?;
    // A variable that is not text cannot be one of ours.
    let variables: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let secret_files = RefCell::new(Vec::new());
    let resolved = talkline_config::resolve(&Inputs {
        files: &files,
        variables: &variables,
        flags: &flags(arguments),
        developer_tools: match arguments.dev {
            true => DeveloperTools::Allowed,
            false => DeveloperTools::Refused,
        },
        is_exposed: &|path| is_exposed(Path::new(path)),
        read_secret_file: &|path| {
            secret_files.borrow_mut().push(PathBuf::from(path));
            read_text(Path::new(path), SECRET_BYTES_MAX)
        },
    });
    Ok((resolved, secret_files.into_inner()))
}

/// The configuration files that are read.
pub(crate) fn files(arguments: &ConfigArguments) -> Vec<PathBuf> {
    match &arguments.config {
        Some(path) => vec![path.clone()],
        None if Path::new(DEFAULT_FILE).exists() => vec![PathBuf::from(DEFAULT_FILE)],
        None => Vec::new(),
    }
}

/// The configuration, or the exit with everything that is wrong with it.
pub(crate) fn load(arguments: &ConfigArguments) -> Result<Resolved, Exit> {
    resolve(arguments)?.map_err(|report| Exit::Configuration(report.render(style())))
}

/// Colours where a person looks.
pub(crate) fn style() -> Style {
    let wanted = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    if wanted { Style::Colour } else { Style::Plain }
}

fn source(path: &Path) -> Result<SourceFile, Exit> {
    let name = path.display().to_string();
    let text = read_text(path, FILE_BYTES_MAX)
        .map_err(|reason| Exit::CouldNotRun(format!("{name} cannot be read: {reason}")))?;
    Ok(SourceFile {
        format: Format::of_file_name(&name),
        name,
        text,
    })
}

fn read_text(path: &Path, bytes_max: u64) -> Result<String, String> {
    use std::io::Read as _;

    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    file.take(bytes_max + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| error.to_string())?;
    if bytes.len() as u64 > bytes_max {
        return Err(format!("it is larger than {bytes_max} bytes"));
    }
    String::from_utf8(bytes).map_err(|error| format!("it is not UTF-8: {error}"))
}

/// Whether users other than the relay's own may read the file. Kubernetes and the like mount secrets
/// read-only for a group, so a group may.
fn is_exposed(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;

    std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o007 != 0)
}

fn flags(arguments: &ConfigArguments) -> Vec<FlagValue> {
    let flag = |flag: &str, key: &str, value: &Option<String>| {
        value.as_ref().map(|value| FlagValue {
            flag: flag.to_owned(),
            key: key.to_owned(),
            value: value.clone(),
        })
    };
    [
        flag("--listen", "server.listen", &arguments.listen),
        flag("--tls-cert", "server.tls.cert", &arguments.tls_cert),
        flag("--tls-key", "server.tls.key", &arguments.tls_key),
    ]
    .into_iter()
    .flatten()
    .collect()
}
