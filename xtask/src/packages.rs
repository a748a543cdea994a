//! What is handed out: a static binary, an image, a Debian package, a bill of materials. And whether
//! the binary is the same wherever it is built.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::workspace::Workspace;
use crate::{process, provision};

/// The version of cargo-cyclonedx, which writes the bill of materials.
const CYCLONEDX: &str = "0.5.9";

/// The platform of this machine; named, so that build scripts and macros are not linked statically.
fn target() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}

/// Builds the static binary of a source tree; returns where it is.
///
/// Paths are mapped in what rustc and the C compiler write, so that the folder leaves no trace.
fn build_static(workspace: &Workspace, source: &Path, target_dir: &Path) -> Result<PathBuf> {
    let home = match std::env::var_os("CARGO_HOME") {
        Some(home) => PathBuf::from(home),
        None => PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?).join(".cargo"),
    };
    let maps = [
        (source, "/talkline"),
        (target_dir, "/target"),
        (&*home, "/cargo"),
    ];
    let rust: Vec<String> = maps
        .iter()
        .map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display()))
        .collect();
    let c: Vec<String> = maps
        .iter()
        .map(|(from, to)| format!("-ffile-prefix-map={}={to}", from.display()))
        .collect();
    process::run(
        workspace
            .cargo()
            .args(["build", "--locked", "--quiet", "--release"])
            .args(["--package", "talkline", "--target", &target()])
            .current_dir(source)
            .env("CARGO_TARGET_DIR", target_dir)
            .env(
                "RUSTFLAGS",
                format!("-C target-feature=+crt-static {}", rust.join(" ")),
            )
            .env("CFLAGS", c.join(" "))
            .env("SOURCE_DATE_EPOCH", "0"),
    )?;
    let binary = target_dir.join(target()).join("release/talkline");
    let linked = process::capture(Command::new("file").arg("--brief").arg(&binary));
    if let Ok(kind) = linked {
        ensure!(kind.contains("static"), "the binary is not static: {kind}");
    }
    Ok(binary)
}

fn own_static(workspace: &Workspace) -> Result<PathBuf> {
    build_static(workspace, &workspace.root, &workspace.target.join("static"))
}

fn sha256(path: &Path) -> Result<String> {
    let text = process::capture(Command::new("sha256sum").arg(path))?;
    let sum = text.split(' ').next().unwrap_or_default();
    Ok(sum.to_owned())
}

/// Builds the committed sources in two folders and compares what comes of it.
///
/// # Errors
/// When the binaries differ.
pub(crate) fn reproducible(workspace: &Workspace) -> Result<()> {
    let base = workspace.target.join("reproducible");
    let mut sums = Vec::new();
    for place in ["one", "another/longer/place"] {
        let source = base.join(place);
        if source.exists() {
            fs::remove_dir_all(&source)?;
        }
        fs::create_dir_all(&source)?;
        let mut archive = Command::new("git")
            .args(["archive", "HEAD"])
            .current_dir(&workspace.root)
            .stdout(Stdio::piped())
            .spawn()?;
        let stream = archive.stdout.take().context("it was asked for")?;
        process::run(
            Command::new("tar")
                .arg("x")
                .current_dir(&source)
                .stdin(stream),
        )?;
        ensure!(archive.wait()?.success(), "git archive failed");
        let binary = build_static(workspace, &source, &base.join("target").join(place))?;
        let sum = sha256(&binary)?;
        println!("{sum}  {place}");
        sums.push(sum);
    }
    ensure!(sums[0] == sums[1], "two folders, two binaries");
    Ok(())
}

/// Makes the image of `deploy/docker/Dockerfile` with a binary of this machine in place of its first
/// stage, and has it hold a spoken turn.
///
/// # Errors
/// When it cannot be made, or does not work as the user it is made for.
pub(crate) fn image(workspace: &Workspace) -> Result<()> {
    let buildah = provision::debian("buildah", "/usr/bin/buildah")?;
    let binary = own_static(workspace)?;
    let folder = workspace.target.join("image");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    let root = folder.join("context/image");
    fs::create_dir_all(root.join("etc/ssl/certs"))?;
    fs::create_dir_all(root.join("etc/talkline"))?;
    fs::copy(&binary, root.join("talkline"))?;
    fs::copy(
        "/etc/ssl/certs/ca-certificates.crt",
        root.join("etc/ssl/certs/ca-certificates.crt"),
    )
    .context("the certificates of Debian's ca-certificates")?;
    let text = fs::read_to_string(workspace.root.join("deploy/docker/Dockerfile"))?;
    let dockerfile = folder.join("Dockerfile");
    fs::write(&dockerfile, last_stage(&text)?)?;
    let tool = || {
        let mut command = Command::new(&buildah);
        command
            .args(["--storage-driver", "vfs", "--root"])
            .arg(folder.join("storage"))
            .arg("--runroot")
            .arg(folder.join("run"));
        command
    };
    // The Docker format: that of OCI has no HEALTHCHECK.
    process::run(
        tool()
            .args([
                "bud",
                "--quiet",
                "--isolation",
                "chroot",
                "--format",
                "docker",
            ])
            .args(["--tag", "talkline", "--file"])
            .arg(&dockerfile)
            .arg(folder.join("context"))
            .stdout(Stdio::null()),
    )?;
    let inspected = process::capture(tool().args(["inspect", "--type", "image", "talkline"]))?;
    let inspected: serde_json::Value = serde_json::from_str(&inspected)?;
    let config = &inspected["Docker"]["config"];
    ensure!(
        config["User"] == "65532:65532",
        "it runs as {}",
        config["User"]
    );
    ensure!(
        config["Healthcheck"]["Test"] == serde_json::json!(["CMD", "/talkline", "healthcheck"]),
        "its health is asked by {}",
        config["Healthcheck"]["Test"]
    );
    let container = process::capture(tool().args(["from", "--pull=never", "localhost/talkline"]))?;
    let container = container.trim();
    // The user comes from the image. The root is shown read-only by the platform; the relay writes nothing.
    let inside = |environment: &[(String, String)], arguments: &[&str]| {
        let mut command = tool();
        command.args(["run", "--isolation", "chroot", "--terminal=false"]);
        for (name, value) in environment {
            command.arg("--env").arg(format!("{name}={value}"));
        }
        command.args([container, "--", "/talkline"]).args(arguments);
        command
    };
    println!("a spoken turn through simulator and relay, both in the image:");
    process::run(&mut inside(&[], &["demo", "--once"]))?;
    in_service(inside)?;
    let size = fs::metadata(&binary)?.len();
    println!("image: {:.1} MiB", size as f64 / f64::from(1 << 20));
    Ok(())
}

/// The relay as the image starts it, against a simulator, asked for its health from within.
fn in_service(inside: impl Fn(&[(String, String)], &[&str]) -> Command) -> Result<()> {
    // Both are free for the moment that matters: nothing else binds them by number.
    let port = |_| Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port());
    let ports: Vec<u16> = (0..2).map(port).collect::<Result<_>>()?;
    let (upstream, relay) = (ports[0], ports[1]);
    let key = "0123456789abcdef0123456789abcdef";
    let environment = [
        (
            "AZURE_OPENAI_ENDPOINT",
            format!("http://127.0.0.1:{upstream}"),
        ),
        ("AZURE_OPENAI_DEPLOYMENT_NAME", "gpt-realtime".to_owned()),
        ("AZURE_OPENAI_API_KEY", key.to_owned()),
        ("TALKLINE_CLIENT_KEY", key.replace('0', "f")),
        ("TALKLINE_LISTEN", format!("127.0.0.1:{relay}")),
    ]
    .map(|(name, value)| (name.to_owned(), value));
    let mut relay = inside(&environment, &["run", "--log-format", "json"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut healthy = false;
    while !healthy && Instant::now() < deadline && relay.try_wait()?.is_none() {
        let status = inside(&environment, &["healthcheck"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?;
        healthy = status.success();
    }
    let uid = uid_of_talkline(relay.id());
    process::run(Command::new("kill").args(["-TERM", &relay.id().to_string()]))?;
    relay.wait()?;
    ensure!(healthy, "the relay in the image is not well");
    let uid = uid?;
    ensure!(uid == "65532", "the relay in the image runs as {uid}");
    println!("healthcheck: ok, as uid {uid}");
    Ok(())
}

/// The user of the talkline process among the descendants of a process.
fn uid_of_talkline(ancestor: u32) -> Result<String> {
    let mut waiting = vec![ancestor.to_string()];
    while let Some(pid) = waiting.pop() {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.map(|rest| {
                rest.split_whitespace()
                    .next()
                    .unwrap_or_default()
                    .to_owned()
            })
        };
        if field("Name:").as_deref() == Some("talkline") {
            return field("Uid:").context("a process has a user");
        }
        let children = fs::read_dir(format!("/proc/{pid}/task"))
            .into_iter()
            .flatten();
        for task in children.filter_map(Result::ok) {
            let text = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            waiting.extend(text.split_whitespace().map(str::to_owned));
        }
    }
    bail!("no relay was found")
}

/// The last stage of a Dockerfile, which takes its files from the folder `image` of the context instead
/// of from the stage before.
fn last_stage(text: &str) -> Result<String> {
    let (_, last) = text
        .rsplit_once("\nFROM ")
        .context("the Dockerfile has one stage")?;
    let taken = "COPY --from=build /image/ /";
    ensure!(last.contains(taken), "the last stage has no `{taken}`");
    Ok(format!("FROM {}", last.replace(taken, "COPY image/ /")))
}

/// Makes the Debian package, unpacks it, and asks what came out.
///
/// # Errors
/// When it cannot be made, or what it installs does not work.
pub(crate) fn deb(workspace: &Workspace) -> Result<()> {
    let binary = own_static(workspace)?;
    let folder = workspace.target.join("deb");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    let root = folder.join("root");
    let deploy = workspace.root.join("deploy");
    let install = |from: &Path, to: &str, mode: &str| {
        process::run(
            Command::new("install")
                .args(["-D", "-m", mode])
                .arg(from)
                .arg(root.join(to)),
        )
    };
    install(&binary, "usr/bin/talkline", "755")?;
    let unit = deploy.join("systemd/talkline.service");
    install(&unit, "lib/systemd/system/talkline.service", "644")?;
    let socket = deploy.join("systemd/talkline.socket");
    install(&socket, "lib/systemd/system/talkline.socket", "644")?;
    let toml = deploy.join("debian/talkline.toml");
    install(&toml, "etc/talkline/talkline.toml", "640")?;
    for name in ["README.md", "CHANGELOG.md", "LICENSE"] {
        let to = match name {
            "LICENSE" => "usr/share/doc/talkline/copyright".to_owned(),
            name => format!("usr/share/doc/talkline/{name}"),
        };
        install(&workspace.root.join(name), &to, "644")?;
    }
    for (shell, to) in [
        ("bash", "usr/share/bash-completion/completions/talkline"),
        ("zsh", "usr/share/zsh/vendor-completions/_talkline"),
        ("fish", "usr/share/fish/vendor_completions.d/talkline.fish"),
    ] {
        let script = process::capture(Command::new(&binary).args(["completions", shell]))?;
        let path = folder.join(shell);
        fs::write(&path, script)?;
        install(&path, to, "644")?;
    }
    let version = process::capture(Command::new(&binary).args(["version"]))?;
    let version = version.trim().trim_start_matches("talkline ").to_owned();
    let architecture = process::capture(Command::new("dpkg").arg("--print-architecture"))?;
    let kib = fs::metadata(&binary)?.len() / 1024;
    let control = fs::read_to_string(deploy.join("debian/control.in"))?
        .replace("@VERSION@", &version)
        .replace("@ARCHITECTURE@", architecture.trim())
        .replace("@SIZE@", &kib.to_string());
    let controls = folder.join("control");
    fs::write(&controls, control)?;
    install(&controls, "DEBIAN/control", "644")?;
    let conffiles = folder.join("conffiles");
    fs::write(&conffiles, "/etc/talkline/talkline.toml\n")?;
    install(&conffiles, "DEBIAN/conffiles", "644")?;
    for script in ["postinst", "prerm"] {
        install(
            &deploy.join("debian").join(script),
            &format!("DEBIAN/{script}"),
            "755",
        )?;
    }
    let package = folder.join(format!("talkline_{version}_{}.deb", architecture.trim()));
    process::run(
        Command::new("dpkg-deb")
            .args(["--root-owner-group", "--build"])
            .arg(&root)
            .arg(&package)
            .env("SOURCE_DATE_EPOCH", "0"),
    )?;
    let unpacked = folder.join("unpacked");
    process::run(
        Command::new("dpkg-deb")
            .arg("-x")
            .arg(&package)
            .arg(&unpacked),
    )?;
    process::run(Command::new(unpacked.join("usr/bin/talkline")).args(["demo", "--once"]))?;
    println!("{}", package.display());
    Ok(())
}

/// Writes the bill of materials of the binary, in CycloneDX.
///
/// # Errors
/// When it cannot be written, or lacks what is in the lock file.
pub(crate) fn sbom(workspace: &Workspace) -> Result<()> {
    let tool = provision::cargo_install(workspace, "cargo-cyclonedx", CYCLONEDX)?;
    let manifest = workspace.root.join("crates/talkline/Cargo.toml");
    process::run(
        Command::new(tool)
            .args(["cyclonedx", "--format", "json", "--spec-version", "1.5"])
            .args(["--target", &target(), "--override-filename", "talkline.cdx"])
            .arg("--manifest-path")
            .arg(&manifest)
            .env("SOURCE_DATE_EPOCH", "0")
            .current_dir(&workspace.root),
    )?;
    // It writes beside each manifest of the workspace; the binary's is the one that is handed out.
    let written = manifest.with_file_name("talkline.cdx.json");
    let text = fs::read_to_string(&written).context("reading the bill of materials")?;
    for member in workspace.metadata.members() {
        let beside = member.manifest_path.with_file_name("talkline.cdx.json");
        let _ = fs::remove_file(beside);
    }
    let bill: serde_json::Value = serde_json::from_str(&text)?;
    let components = bill["components"].as_array().map_or(0, Vec::len);
    ensure!(
        bill["bomFormat"] == "CycloneDX",
        "it is no CycloneDX document"
    );
    for expected in ["rustls", "hyper", "tokio", "aws-lc-sys", "fastwebsockets"] {
        let listed = bill["components"].as_array().into_iter().flatten();
        let mut names = listed.filter_map(|component| component["name"].as_str());
        ensure!(
            names.any(|name| name == expected),
            "it does not list {expected}"
        );
    }
    let path = workspace.target.join("talkline.cdx.json");
    fs::File::create(&path)?.write_all(text.as_bytes())?;
    println!("{}: {components} components", path.display());
    Ok(())
}

/// Everything that is handed out, in one run: slow, for a machine that has the night.
///
/// # Errors
/// When one of it fails; the message names them all.
pub(crate) fn all(workspace: &Workspace) -> Result<()> {
    type Step = (&'static str, fn(&Workspace) -> Result<()>);
    const STEPS: &[Step] = &[
        ("image", image),
        ("deb", deb),
        ("sbom", sbom),
        ("reproducible", reproducible),
    ];
    let mut failed = Vec::new();
    for (name, step) in STEPS {
        println!("::: {name}");
        if let Err(error) = step(workspace) {
            eprintln!("error: {error:#}");
            failed.push(*name);
        }
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_stage_takes_its_files_from_the_context() {
        let text =
            "FROM rust AS build\nRUN x\n\nFROM scratch\nCOPY --from=build /image/ /\nUSER 1\n";
        assert_eq!(
            last_stage(text).unwrap(),
            "FROM scratch\nCOPY image/ /\nUSER 1\n"
        );
        assert!(last_stage("FROM scratch\n").is_err());
        assert!(last_stage("FROM a\n\nFROM b\nCOPY x y\n").is_err());
    }
}
