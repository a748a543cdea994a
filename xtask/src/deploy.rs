//! What stands in `deploy/`, each artefact by the tool that it is written for.
//!
//! Everything here runs without a network once the tools are there. All checks run even after one has
//! failed, so that a run reports all there is to repair.

use std::fs;
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::provision::{self, Unavailable};
use crate::workspace::{RunsIn, Workspace};
use crate::{process, sdk};

/// Keys long enough for every rule about keys; a client's must not be the upstream's.
const SAMPLE_KEY: &str = "0123456789abcdef0123456789abcdef";
const SAMPLE_CLIENT_KEY: &str = "fedcba9876543210fedcba9876543210";
const SAMPLE_RING_KEY: &str = "89abcdef0123456789abcdef01234567";
const SAMPLE_REDIS_URL: &str = "rediss://:sample-password@redis.example.com:6380";

/// Tools and places that the checks share.
struct Bench<'w> {
    workspace: &'w Workspace,
    /// The virtual environment of `requirements-deploy.lock`.
    python: PathBuf,
    promtool: PathBuf,
    talkline: PathBuf,
    /// Where checks write what they make.
    out: PathBuf,
}

type Check = (&'static str, fn(&Bench<'_>) -> Result<(), Unavailable>);

const CHECKS: &[Check] = &[
    ("Dockerfile", dockerfile),
    ("systemd units", unit),
    ("Helm chart", chart),
    ("alert rules", rules),
    ("dashboard", dashboard),
    ("metrics page", metrics),
    ("compose file", compose),
    ("Azure template", azure),
    ("front ends", front_ends),
];

/// Runs all checks.
///
/// # Errors
/// When one fails; the message names them all.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let lock = workspace.root.join("xtask/requirements-deploy.lock");
    let out = workspace.target.join("deploy");
    if out.exists() {
        fs::remove_dir_all(&out)?;
    }
    fs::create_dir_all(&out)?;
    let bench = Bench {
        workspace,
        python: provision::python(workspace, "deploy", &lock)?,
        promtool: provision::unpacked(workspace, "prometheus")?.join("usr/bin/promtool"),
        talkline: sdk::build(workspace)?,
        out,
    };
    let mut failed = Vec::new();
    for (name, check) in CHECKS {
        println!("::: {name}");
        match check(&bench) {
            Ok(()) => {}
            Err(Unavailable::Missing(what)) if workspace.runs_in == RunsIn::Terminal => {
                println!("skipped: {name}: {what}");
            }
            Err(error) => {
                eprintln!("error: {error}");
                failed.push(*name);
            }
        }
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

impl Bench<'_> {
    fn file(&self, path: &str) -> PathBuf {
        self.workspace.root.join("deploy").join(path)
    }

    fn tool(&self, name: &str) -> Command {
        Command::new(self.python.join("bin").join(name))
    }

    fn script(&self, name: &str) -> Command {
        let mut command = self.tool("python");
        command.arg(self.workspace.root.join("xtask/checks").join(name));
        command
    }

    /// `talkline check`, as on a machine that has the secrets and identities that the file speaks of.
    fn check_configuration(&self, path: &Path) -> Result<()> {
        let home = self.out.join("home");
        fs::create_dir_all(&home)?;
        let token = home.join("token");
        fs::write(&token, "e30.e30.c2ln")?;
        process::run(
            Command::new(&self.talkline)
                .args(["check", "--config"])
                .arg(path)
                .env_clear()
                .env("HOME", &home)
                .env("TALKLINE_CLIENT_KEY", SAMPLE_CLIENT_KEY)
                .env("AZURE_CLIENT_ID", "11111111-2222-3333-4444-555555555555")
                .env("AZURE_TENANT_ID", "66666666-7777-8888-9999-000000000000")
                .env("AZURE_FEDERATED_TOKEN_FILE", &token)
                .current_dir(&home),
        )
    }
}

fn dockerfile(bench: &Bench<'_>) -> Result<(), Unavailable> {
    let path = bench.file("docker/Dockerfile");
    process::run(bench.tool("hadolint").arg(&path))?;
    let text = fs::read_to_string(&path).context("reading the Dockerfile")?;
    let last = text.rsplit("\nFROM ").next().unwrap_or_default();
    for promise in [
        "scratch\n",
        "USER 65532:65532\n",
        r#"CMD ["/talkline", "healthcheck"]"#,
    ] {
        if !last.contains(promise) {
            return Err(anyhow::anyhow!("the last stage has no `{}`", promise.trim()).into());
        }
    }
    Ok(())
}

/// Highest exposure that `systemd-analyze security` may find, in tenths.
const EXPOSURE_MAX: &str = "20";

fn unit(bench: &Bench<'_>) -> Result<(), Unavailable> {
    let analyze = provision::debian("systemd", "/usr/bin/systemd-analyze")?;
    // It wants the program to be there: the one that was built stands in for the one to be installed.
    let text = fs::read_to_string(bench.file("systemd/talkline.service"))
        .context("reading the unit")?
        .replace("/usr/bin/talkline", &bench.talkline.to_string_lossy());
    let unit = bench.out.join("talkline.service");
    fs::write(&unit, text).context("writing the unit")?;
    // It belongs to the service of its name, which has to lie beside it.
    let socket = bench.out.join("talkline.socket");
    fs::copy(bench.file("systemd/talkline.socket"), &socket).context("copying the socket")?;
    process::run(
        Command::new(&analyze)
            .args(["verify", "--man=no"])
            .args([&unit, &socket]),
    )?;
    process::run(
        Command::new(&analyze)
            .args(["security", "--no-pager", "--offline=true"])
            .arg(format!("--threshold={EXPOSURE_MAX}"))
            .arg(&unit)
            .stdout(Stdio::null()),
    )?;
    Ok(())
}

fn chart(bench: &Bench<'_>) -> Result<(), Unavailable> {
    let out = bench.out.join("chart");
    process::run(
        bench
            .script("chart.py")
            .arg(bench.file("helm/talkline"))
            .arg(&out),
    )?;
    let secrets = bench.out.join("secrets");
    fs::create_dir_all(&secrets).context("making a folder")?;
    for (name, key) in [
        ("azure-key", SAMPLE_KEY),
        ("client-key", SAMPLE_CLIENT_KEY),
        ("ring-key", SAMPLE_RING_KEY),
        ("redis-url", SAMPLE_REDIS_URL),
    ] {
        let path = secrets.join(name);
        fs::write(&path, key).context("writing a sample key")?;
        let owner_only = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(&path, owner_only).context("hiding a sample key")?;
    }
    for path in files(&out)? {
        if path.to_string_lossy().ends_with(".rules.yml") {
            process::run(
                Command::new(&bench.promtool)
                    .args(["check", "rules"])
                    .arg(&path),
            )?;
            continue;
        }
        let text = fs::read_to_string(&path).context("reading a rendered configuration")?;
        let text = text.replace("/etc/talkline/secrets", &secrets.to_string_lossy());
        fs::write(&path, text).context("writing a rendered configuration")?;
        bench.check_configuration(&path)?;
    }
    Ok(())
}

fn rules(bench: &Bench<'_>) -> Result<(), Unavailable> {
    let rules = bench.file("prometheus/alerts.yml");
    process::run(
        Command::new(&bench.promtool)
            .args(["check", "rules"])
            .arg(&rules),
    )?;
    let tests = bench.file("prometheus/alerts.test.yml");
    process::run(
        Command::new(&bench.promtool)
            .args(["test", "rules"])
            .arg(tests),
    )?;
    // A chart cannot read files beside its folder.
    let copy = bench.file("helm/talkline/files/alerts.yml");
    let same = fs::read(&rules).context("reading the rules")?
        == fs::read(&copy).context("reading the chart's rules")?;
    if !same {
        return Err(anyhow::anyhow!(
            "{} is not the same as {}: copy it",
            copy.display(),
            rules.display()
        )
        .into());
    }
    Ok(())
}

fn dashboard(bench: &Bench<'_>) -> Result<(), Unavailable> {
    let path = bench.file("grafana/talkline.json");
    let text = fs::read_to_string(&path).context("reading the dashboard")?;
    let dashboard: serde_json::Value =
        serde_json::from_str(&text).context("the dashboard is no JSON")?;
    let mut rules = serde_json::json!({"groups": [{"name": "dashboard", "rules": []}]});
    let list = rules["groups"][0]["rules"]
        .as_array_mut()
        .context("the literal above has it")?;
    for (at, query) in queries(&dashboard).into_iter().enumerate() {
        // What Grafana fills in itself.
        let query = query
            .replace("$__rate_interval", "5m")
            .replace("$job", "talkline");
        list.push(serde_json::json!({"record": format!("panel:query:{at}"), "expr": query}));
    }
    ensure_some(list.len())?;
    let out = bench.out.join("dashboard.rules.yml");
    // JSON is YAML.
    fs::write(&out, rules.to_string()).context("writing the queries")?;
    process::run(
        Command::new(&bench.promtool)
            .args(["check", "rules"])
            .arg(&out),
    )?;
    Ok(())
}

fn ensure_some(count: usize) -> Result<()> {
    ensure!(count > 10, "the dashboard asks {count} queries");
    Ok(())
}

/// The queries of every panel.
fn queries(dashboard: &serde_json::Value) -> Vec<&str> {
    let panels = dashboard["panels"].as_array().into_iter().flatten();
    panels
        .flat_map(|panel| panel["targets"].as_array().into_iter().flatten())
        .filter_map(|target| target["expr"].as_str())
        .collect()
}

/// The page of a running relay.
fn metrics(bench: &Bench<'_>) -> Result<(), Unavailable> {
    let configuration = bench.out.join("metrics.toml");
    let text = format!(
        "allowPlaintextSecrets = true\n\
         server.listen = \"127.0.0.1:0\"\n\
         admin.listen = \"127.0.0.1:0\"\n\
         clients.keys = [\"{SAMPLE_CLIENT_KEY}\"]\n\
         talk.realtime.provider = \"azure-openai\"\n\
         talk.realtime.providers.openai.azureEndpoint = \"https://contoso.openai.azure.com\"\n\
         talk.realtime.providers.openai.azureDeployment = \"gpt-realtime\"\n\
         talk.realtime.providers.openai.apiKey = \"{SAMPLE_KEY}\"\n"
    );
    fs::write(&configuration, text).context("writing a configuration")?;
    let page = served(&bench.talkline, &configuration)?;
    let mut linter = Command::new(&bench.promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .spawn()
        .context("starting promtool")?;
    let mut stdin = linter.stdin.take().context("it was asked for")?;
    stdin
        .write_all(page.as_bytes())
        .context("handing the page to promtool")?;
    drop(stdin);
    let status = linter.wait().context("waiting for promtool")?;
    if !status.success() {
        return Err(anyhow::anyhow!("promtool finds fault with /metrics").into());
    }
    Ok(())
}

/// Starts a relay, asks its listener for operators for the page, and ends it.
fn served(talkline: &Path, configuration: &Path) -> Result<String> {
    let mut child = Command::new(talkline)
        .args(["run", "--log-format", "json", "--config"])
        .arg(configuration)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("starting the relay")?;
    let stdout = child.stdout.take().context("it was asked for")?;
    let page = (|| {
        let prefix = "operators on http://";
        let mut seen = Vec::new();
        for line in BufReader::new(stdout).lines() {
            let line = line?;
            if let Some(address) = line.strip_prefix(prefix) {
                return get(address, "/metrics");
            }
            seen.push(line);
        }
        bail!("the relay said nothing of operators: {seen:?}")
    })();
    child.kill()?;
    child.wait()?;
    page
}

/// The body of a GET.
fn get(address: &str, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("the answer has no head")?;
    ensure!(head.starts_with("HTTP/1.1 200"), "{path} answered: {head}");
    Ok(body.to_owned())
}

fn compose(bench: &Bench<'_>) -> Result<(), Unavailable> {
    process::run(
        bench
            .tool("check-jsonschema")
            .args(["--builtin-schema", "vendor.compose-spec"])
            .arg(bench.file("compose/compose.yaml")),
    )?;
    let schema = bench
        .workspace
        .root
        .join("docs/reference/talkline.schema.json");
    process::run(
        bench
            .tool("check-jsonschema")
            .arg("--schemafile")
            .arg(schema)
            .arg(bench.file("compose/talkline.toml")),
    )?;
    bench.check_configuration(&bench.file("compose/talkline.toml"))?;
    // In the container the rules lie beside it.
    let folder = bench.out.join("prometheus");
    fs::create_dir_all(&folder).context("making a folder")?;
    for path in ["compose/prometheus.yml", "prometheus/alerts.yml"] {
        let from = bench.file(path);
        let name = from.file_name().context("it is a file")?;
        fs::copy(&from, folder.join(name)).context("copying")?;
    }
    process::run(
        Command::new(&bench.promtool)
            .args(["check", "config"])
            .arg(folder.join("prometheus.yml")),
    )?;
    Ok(())
}

fn azure(bench: &Bench<'_>) -> Result<(), Unavailable> {
    let out = bench.out.join("azure.toml");
    process::run(
        bench
            .script("bicep.py")
            .arg(bench.file("azure/infra/main.bicep"))
            .arg(&out),
    )?;
    bench.check_configuration(&out)?;
    Ok(())
}

/// Whether nginx and HAProxy take their files; `tests/it` sends sessions through both.
fn front_ends(bench: &Bench<'_>) -> Result<(), Unavailable> {
    let nginx = provision::debian("nginx-light", "/usr/sbin/nginx")?;
    let haproxy = provision::debian("haproxy", "/usr/sbin/haproxy")?;
    let folder = bench.out.join("frontends");
    fs::create_dir_all(&folder).context("making a folder")?;
    let (certificate, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    process::run(
        Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
            ])
            .args([
                "-nodes",
                "-days",
                "2",
                "-subj",
                "/CN=talk.example.com",
                "-keyout",
            ])
            .arg(&key)
            .arg("-out")
            .arg(&certificate)
            .stderr(Stdio::null()),
    )?;
    let pem = folder.join("both.pem");
    let both = [&certificate, &key].map(|path| fs::read_to_string(path).unwrap_or_default());
    fs::write(&pem, both.concat()).context("writing certificate and key")?;

    let text =
        fs::read_to_string(bench.file("frontends/nginx.conf")).context("reading nginx.conf")?;
    let text = text
        .replace(
            "/etc/ssl/talk.example.com.crt",
            &certificate.to_string_lossy(),
        )
        .replace("/etc/ssl/talk.example.com.key", &key.to_string_lossy());
    let main = folder.join("nginx.conf");
    let text = format!(
        "pid {0}/nginx.pid;\nerror_log stderr;\nevents {{}}\nhttp {{\naccess_log off;\n{text}\n}}\n",
        folder.display()
    );
    fs::write(&main, text).context("writing nginx.conf")?;
    process::run(
        Command::new(nginx)
            .args(["-t", "-q", "-p"])
            .arg(&folder)
            .arg("-c")
            .arg(&main),
    )?;
    let text =
        fs::read_to_string(bench.file("frontends/haproxy.cfg")).context("reading haproxy.cfg")?;
    let text = text.replace("/etc/haproxy/talk.example.com.pem", &pem.to_string_lossy());
    let config = folder.join("haproxy.cfg");
    fs::write(&config, text).context("writing haproxy.cfg")?;
    process::run(Command::new(haproxy).args(["-c", "-q", "-f"]).arg(&config))?;
    Ok(())
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .with_context(|| format!("reading {}", folder.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_query_of_a_dashboard_is_found() {
        let dashboard = serde_json::json!({"panels": [
            {"type": "row"},
            {"targets": [{"expr": "a"}, {"expr": "b"}]},
            {"targets": [{"refId": "A"}]},
        ]});
        assert_eq!(queries(&dashboard), ["a", "b"]);
    }
}
