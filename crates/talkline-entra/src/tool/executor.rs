//! Runs a program for a moment: bounded in time and output, and gone when nobody waits for it.

use std::{
    env::split_paths,
    ffi::{OsStr, OsString},
    io,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::{Child, Command},
    time::timeout,
};

/// Largest output of each kind. A token with what is around it is about 3 KiB.
const OUTPUT_BYTES_MAX: usize = 64 * 1024;

#[derive(Debug)]
pub(super) struct Executor {
    /// Where programs are looked for, as in the variable `PATH`.
    path: Option<OsString>,
    pub(super) timeout: Duration,
}

/// What a program came to.
pub(super) struct Outcome {
    pub(super) success: bool,
    pub(super) status: ExitStatus,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
}

/// Why a program came to nothing.
#[derive(Debug)]
pub(super) enum Trouble {
    Missing,
    Start(io::Error),
    Hung(Duration),
    TooMuch(usize),
    Read(io::Error),
}

impl Executor {
    pub(super) fn new(path: Option<OsString>) -> Self {
        Self {
            path,
            timeout: Duration::from_secs(10),
        }
    }

    /// Runs `program` to its end.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the program and what it has started.
    pub(super) async fn run(
        &self,
        program: &str,
        arguments: &[String],
    ) -> Result<Outcome, Trouble> {
        let program = find(program, self.path.as_deref()).ok_or(Trouble::Missing)?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            // Wherever this process was started, nothing is picked up from there.
            .current_dir(if cfg!(windows) { r"C:\" } else { "/" })
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        // Both tools start others, which would go on alone.
        #[cfg(unix)]
        command.process_group(0);
        let mut group = Group::of(command.spawn().map_err(Trouble::Start)?);
        timeout(self.timeout, group.output())
            .await
            .map_err(|_| Trouble::Hung(self.timeout))?
    }
}

/// A running program with all that it starts; dropping it ends them.
struct Group {
    child: Child,
    #[cfg(unix)]
    leader: Option<rustix::process::Pid>,
}

impl Group {
    fn of(child: Child) -> Self {
        Self {
            #[cfg(unix)]
            leader: child
                .id()
                .and_then(|id| rustix::process::Pid::from_raw(id.try_into().ok()?)),
            child,
        }
    }

    async fn output(&mut self) -> Result<Outcome, Trouble> {
        let (stdout, stderr) = (self.child.stdout.take(), self.child.stderr.take());
        let (stdout, stderr) = tokio::try_join!(read(stdout), read(stderr))?;
        let status = self.child.wait().await.map_err(Trouble::Read)?;
        Ok(Outcome {
            success: status.success(),
            status,
            stdout,
            stderr,
        })
    }
}

#[cfg(unix)]
impl Drop for Group {
    fn drop(&mut self) {
        // Once the child has been waited for, its number may be another's.
        if let (Some(leader), Some(_)) = (self.leader, self.child.id()) {
            // It fails when nobody is left, which is what is wanted.
            let _ = rustix::process::kill_process_group(leader, rustix::process::Signal::KILL);
        }
    }
}

async fn read(pipe: Option<impl AsyncRead + Unpin>) -> Result<Vec<u8>, Trouble> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(OUTPUT_BYTES_MAX as u64 + 1)
            .read_to_end(&mut bytes)
            .await
            .map_err(Trouble::Read)?;
    }
    if bytes.len() > OUTPUT_BYTES_MAX {
        return Err(Trouble::TooMuch(OUTPUT_BYTES_MAX));
    }
    Ok(bytes)
}

/// The first program of that name in the absolute directories of `path`: a relative one would make
/// the working directory a place to plant programs.
pub(crate) fn find(program: &str, path: Option<&OsStr>) -> Option<PathBuf> {
    let names: &[&str] = if cfg!(windows) {
        &["exe", "cmd"]
    } else {
        &[""]
    };
    split_paths(path?)
        .filter(|directory| directory.is_absolute())
        .flat_map(|directory| {
            names
                .iter()
                .map(move |extension| directory.join(program).with_extension(extension))
        })
        .find(|candidate| is_executable(candidate))
}

#[cfg(unix)]
fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;

    path.metadata()
        .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_executable(path: &Path) -> bool {
    path.is_file()
}
