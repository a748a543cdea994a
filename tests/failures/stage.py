"""Plays every scenario to openai-python, openai-node and a browser, and writes down what all said.

Argument: a folder for the files of the run, which gets `observed.json`. With TALKLINE_TRAP set, the
caller has put this process in network and mount namespaces of its own.
"""

import base64
import concurrent.futures
import contextlib
import functools
import http.server
import json
import os
import re
import secrets
import subprocess
import sys
import threading
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "sdk/python"))

import trap as traps  # noqa: E402
import upstreams  # noqa: E402
from line import DEPLOYMENT, Process  # noqa: E402

CLIENTS = ("python", "node", "browser")
CLIENTS_SECONDS = 120
DOCTOR_SECONDS = 30
DOCTORS_AT_ONCE = 8
# 200 ms at 24 kHz, 16 bits.
SILENCE = base64.b64encode(bytes(24_000 * 2 // 5)).decode()

# Of a log line: when, who, how long and how much differ from run to run.
VOLATILE = re.compile(
    r"timestamp|target|session|client|model|dialect|intent|provider|upstream|deployment|upstream_session"
    r"|request_id|.*_ms|.*_frames|.*_bytes|.*_tokens|tokens_total"
)
NORMAL = [
    # All zeros is the simulator's principal, which a next step may have to repeat.
    (re.compile(r"(?!0{8}-)[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"), "<id>"),
    (re.compile(r"\btalk_[0-9a-f]{32}"), "<session>"),
    (re.compile(r"\b(sess|resp|item|event|evt|req)_[0-9A-Za-z]{12,}"), r"<\1>"),
    (re.compile(r"127\.0\.0\.1:\d+"), "127.0.0.1:<port>"),
    (re.compile(r"(?i)(sec-websocket-key: )[\w+/=]+"), r"\1<nonce>"),
    (re.compile(r"(verification time )\d+"), r"\1<time>"),
    (re.compile(r"\d+ ((second|minute|hour|day)s? ago)"), r"<count> \1"),
    (re.compile(r"\b\d+(\.\d+)?( ?)(ms|µs)\b"), r"<count>\2\3"),
    (re.compile(r"(traceparent: )\S+"), r"\1<trace>"),
    (re.compile(r"\btalkline/[\d.]+\S*"), "talkline/<version>"),
    # Which words depends on whether there is a name server at all.
    (re.compile(r"(failed to lookup address information: )[^\")\]]+"), r"\1<resolver's words>"),
]


def normal(value):
    """The value without what differs from run to run."""
    if isinstance(value, str):
        for pattern, word in NORMAL:
            value = pattern.sub(word, value)
        return value
    if isinstance(value, dict):
        return {key: normal(each) for key, each in value.items()}
    if isinstance(value, list):
        return [normal(each) for each in value]
    return value


class Stage:
    def __init__(self, folder: Path):
        self.folder = folder
        self.scenarios = tomllib.loads((HERE / "scenarios.toml").read_text())["scenario"]
        for scenario in self.scenarios:
            scenario.setdefault("until", None)
            for event in scenario.setdefault("sends", []):
                if event.get("audio") == "silence":
                    event["audio"] = SILENCE
        self.secrets = {
            "the Azure key": "azure-" + secrets.token_hex(16),
            "the wrong Azure key": "wrong-" + secrets.token_hex(16),
            "OpenAI's key": "sk-" + secrets.token_hex(16),
            "the identity header": "identity-" + secrets.token_hex(16),
        } | {f"the key of {client}": f"{client}-" + secrets.token_hex(16) for client in CLIENTS}
        # Everything that anybody printed, by who did.
        self.printed: dict[str, str] = {}
        self.undo = contextlib.ExitStack()

    # === the upstreams ===

    def raise_curtain(self) -> None:
        self.record = self.folder / "requests.jsonl"
        self.record.unlink(missing_ok=True)
        key = {"TALKLINE_SIM_API_KEY": self.secrets["the Azure key"]}
        self.simulator = Process("sim", ["sim", "--record", str(self.record)], key)
        self.undo.callback(self.simulator.stop)
        self.tls = subprocess.Popen(
            [os.environ["TALKLINE_UPSTREAMS"], str(self.folder)],
            env=key,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.undo.callback(self.tls.wait)
        self.undo.callback(self.tls.stdin.close)
        self.catalogue = json.loads(self.tls.stdout.readline())
        self.own = upstreams.start()
        self.identity = upstreams.Identity(self.secrets["the identity header"])
        self.undo.callback(self.identity.shutdown)
        pages = functools.partial(Page, directory=HERE / "browser")
        self.pages = http.server.ThreadingHTTPServer(("127.0.0.1", 0), pages)
        threading.Thread(target=self.pages.serve_forever, daemon=True).start()
        self.undo.callback(self.pages.shutdown)

    def missing(self) -> list[str]:
        """What the simulator can do wrong and no scenario shows."""
        proper = {"fragmented_replies", "session_created_with_101"}
        known = {scenario["name"] for scenario in self.scenarios}
        all_there_is = [*self.catalogue["refusals"], *self.catalogue["misbehaviours"]]
        return [name for name in all_there_is if name not in known | proper]

    # === configuration ===

    def provider(self, scenario: dict) -> str:
        """The keys of the provider that meets this fate, as TOML."""
        name, upstream = scenario["name"], scenario.get("upstream", "simulator")
        if host := scenario.get("host"):
            endpoint = f"https://{host}"
        elif upstream == "own":
            endpoint = f"http://{self.own[name]}"
        else:
            endpoint = scenario.get("endpoint") or self.simulator.address()
        lines = [
            f'azureEndpoint = "{endpoint}"',
            f'azureDeployment = "{scenario.get("deployment", name)}"',
        ]
        if upstream == "identity":
            lines.append(f'auth = {{ kind = "managed-identity", clientId = "{upstreams.client_id(name)}" }}')
        else:
            variable = "WRONG_KEY" if scenario.get("key") == "wrong" else "AZURE_KEY"
            lines.append(f'apiKey = {{ env = "{variable}" }}')
        if version := scenario.get("apiVersion"):
            lines.append(f'azureApiVersion = "{version}"')
        if endpoint.endswith(".invalid"):
            lines.append(f'allowedHosts = ["{endpoint.removeprefix("https://")}"]')
        return "\n".join(lines)

    def configuration(self, talk: str) -> str:
        keys = ", ".join(f'{{ name = "{each}", env = "{each.upper()}_KEY" }}' for each in CLIENTS)
        return f"""
server.listen = "127.0.0.1:0"
server.allowedOrigins = ["http://127.0.0.1:{self.pages.server_port}"]
clients.keys = [{keys}]

[limits]
dnsTimeout = "3s"
connectTimeout = "2s"
tlsTimeout = "2s"
upgradeTimeout = "3s"
pingInterval = "2s"
pongTimeout = "2s"

{talk}
"""

    def routed(self) -> list[dict]:
        return [each for each in self.scenarios if each.get("upstream") != "none"]

    def all_providers(self) -> str:
        routed = self.routed()
        tables = "".join(
            f'\n[talk.realtime.providers.{each["name"]}]\ntype = "azure-openai"\n{self.provider(each)}\n'
            for each in routed
        )
        routes = "\n".join(f'{each["name"]} = "{each["name"]}"' for each in routed)
        default = routed[0]["name"]
        return f'[talk.realtime]\nprovider = "{default}"\n\n[talk.realtime.routes]\n{routes}\n{tables}'

    def environment(self) -> dict[str, str]:
        return {
            "HOME": str(self.folder),
            "XDG_DATA_HOME": str(self.folder / "data"),
            "SSL_CERT_FILE": str(self.folder / "ca.pem"),
            "AZURE_KEY": self.secrets["the Azure key"],
            "WRONG_KEY": self.secrets["the wrong Azure key"],
            "OPENAI_API_KEY": self.secrets["OpenAI's key"],
            "IDENTITY_ENDPOINT": self.identity.endpoint,
            "IDENTITY_HEADER": self.identity.header,
        } | {f"{each.upper()}_KEY": self.secrets[f"the key of {each}"] for each in CLIENTS}

    def overrides(self, scenario: dict) -> list[str]:
        if "host" not in scenario:
            return []
        name = scenario["name"]
        address = self.own.get(name) or self.catalogue["upstreams"][name]
        return ["--resolve", f"{scenario['host']}:443:{address}"]

    def relay(self, name: str, talk: str) -> Process:
        file = self.folder / f"{name}.toml"
        file.write_text(self.configuration(talk))
        overrides = [word for each in self.scenarios for word in self.overrides(each)]
        arguments = ["run", "--config", str(file), "--tls-dev", "--log-format", "json", *overrides]
        return Process(name, arguments, self.environment())

    # === the clients ===

    def play(self, relay: Process, client: str, scenarios: list[dict]) -> list[dict]:
        """Lets one client meet the scenarios; returns what it was told in each."""
        commands = {
            "python": [sys.executable, str(HERE / "client_openai.py")],
            "node": ["node", os.environ["TALKLINE_NODE_CLIENT"]],
            "browser": ["node", os.environ["TALKLINE_BROWSER_CLIENT"]],
        }
        certificate = relay.find(r"export SSL_CERT_FILE=['\"]?([^'\"]+)['\"]?")
        environment = {
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(self.folder),
            "SSL_CERT_FILE": certificate,
            "NODE_EXTRA_CA_CERTS": certificate,
            "PYTHONDONTWRITEBYTECODE": "1",
            "TALKLINE_CHROMIUM": os.environ["TALKLINE_CHROMIUM"],
            "TALKLINE_CLIENT_KEY": self.secrets[f"the key of {client}"],
        }
        plan = {
            "port": int(relay.address().rpartition(":")[2]),
            "page": f"http://127.0.0.1:{self.pages.server_port}/",
            "scenarios": [{key: each[key] for key in ("name", "sends", "until")} for each in scenarios],
        }
        ended = subprocess.run(
            commands[client],
            env=environment,
            input=json.dumps(plan),
            capture_output=True,
            text=True,
            timeout=CLIENTS_SECONDS,
        )
        self.printed[client] = self.printed.get(client, "") + ended.stdout + ended.stderr
        if ended.returncode:
            raise RuntimeError(f"{client} failed: {ended.stdout[-2000:]}{ended.stderr[-4000:]}")
        return [json.loads(line) for line in ended.stdout.splitlines()]

    # === doctor ===

    def diagnose(self, scenario: dict) -> dict:
        file = self.folder / f"doctor-{scenario['name']}.toml"
        file.write_text(
            self.configuration(
                '[talk.realtime]\nprovider = "azure-openai"\n\n'
                f"[talk.realtime.providers.azure-openai]\n{self.provider(scenario)}"
            )
        )
        arguments = ["doctor", "--config", str(file), "--output", "json"]
        try:
            ended = subprocess.run(
                [os.environ["TALKLINE_BIN"], *arguments, *self.overrides(scenario)],
                env={"PATH": os.environ.get("PATH", "")} | self.environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=DOCTOR_SECONDS,
            )
        except subprocess.TimeoutExpired:
            return {"exit": -1, "findings": [{"checkId": "no-report", "message": "no end in time"}]}
        self.printed[f"doctor on {scenario['name']}"] = ended.stdout + ended.stderr
        try:
            findings = json.loads(ended.stdout)["findings"]
        except (ValueError, KeyError):
            findings = [{"checkId": "no-report", "severity": "error", "message": ended.stderr[-500:]}]
        shown = ("checkId", "severity", "message", "path", "fixHint")
        return {
            "exit": ended.returncode,
            "findings": [{key: each.get(key) for key in shown if each.get(key)} for each in findings],
        }

    def doctor(self) -> dict[str, dict]:
        """What `talkline doctor` says of each, if this build has it."""
        help_text = subprocess.run(
            [os.environ["TALKLINE_BIN"], "help"], capture_output=True, text=True, check=True
        )
        if not re.search(r"^\s+doctor\b", help_text.stdout, re.MULTILINE):
            return {}
        routed = [each for each in self.routed() if each.get("doctor", True)]
        with concurrent.futures.ThreadPoolExecutor(DOCTORS_AT_ONCE) as pool:
            said = pool.map(self.diagnose, routed)
            return {each["name"]: result for each, result in zip(routed, said)}

    # === all of it ===

    def perform(self) -> dict:
        trap = traps.Trap(self.folder) if os.environ.get("TALKLINE_TRAP") else None
        with self.undo:
            self.raise_curtain()
            return self.act(trap)

    def act(self, trap: traps.Trap | None) -> dict:
        relay = self.relay("relay", self.all_providers())
        try:
            with concurrent.futures.ThreadPoolExecutor(len(CLIENTS)) as pool:
                told = pool.map(lambda client: self.play(relay, client, self.scenarios), CLIENTS)
                seen = {client: {each["scenario"]: each for each in all} for client, all in zip(CLIENTS, told)}
        finally:
            relay.stop()
            self.printed["the relay"] = relay.said("ended")
        (self.folder / "relay.log").write_text(self.printed["the relay"])
        lines = self.printed["the relay"].splitlines()
        self.log = [json.loads(line) for line in lines if line.startswith("{")]
        doctor = self.doctor()
        self.printed |= {f"what {client} was told": json.dumps(each) for client, each in seen.items()}
        caught = trap and {"during": trap.caught(), "control": self.fall_into(trap)}
        return {
            "scenarios": [self.observed(each, seen, doctor) for each in self.scenarios],
            "missing": self.missing(),
            "leaks": self.leaks(),
            "keyWasUsed": self.secrets["the Azure key"] in self.record.read_text(),
            "hasDoctor": bool(doctor),
            "trap": caught,
        }

    def fall_into(self, trap: traps.Trap) -> dict:
        """With OpenAI configured the trap does catch: without this, a blind one would look like success."""
        relay = self.relay(
            "openai",
            '[talk.realtime]\nprovider = "openai"\nallowAnyModel = true\n\n'
            '[talk.realtime.providers.openai]\napiKey = { env = "OPENAI_API_KEY" }',
        )
        try:
            self.play(relay, "python", [{"name": DEPLOYMENT, "sends": [], "until": None}])
        finally:
            relay.stop()
            self.printed["the relay with OpenAI"] = relay.said("ended")
        return trap.caught()

    def observed(self, scenario: dict, seen: dict, doctor: dict) -> dict:
        name = scenario["name"]
        clients = {client: each.get(name) for client, each in seen.items()}
        # A browser opens one WebSocket to a host at a time, so its times are those of a queue.
        times = [each["seconds"] for client, each in clients.items() if each and client != "browser"]
        return {
            "name": name,
            "story": scenario["story"],
            "phase": scenario.get("phase", "refused"),
            "said": scenario.get("said"),
            "until": scenario["until"],
            "inBand": scenario.get("inBand", True),
            "closes": scenario.get("closes"),
            "fixme": scenario.get("fixme"),
            "seconds": max(times, default=0.0),
            "clients": {
                client: normal({key: each[key] for key in ("errors", "responses", "closed", "raised")})
                for client, each in clients.items()
                if each
            },
            "log": {client: self.logged(name, client) for client in CLIENTS},
            "doctor": normal(doctor.get(name)),
        }

    def logged(self, name: str, client: str) -> list[dict]:
        """The lines of the relay's log on this session, less what differs from run to run."""
        sessions = {
            line.get("session")
            for line in self.log
            if line.get("model") == name and line.get("client") == client
        }
        return [
            normal({key: value for key, value in line.items() if not VOLATILE.fullmatch(key)})
            for line in self.log
            if "session" in line and line["session"] in sessions
        ]

    def leaks(self) -> list[str]:
        return [
            f"{what} in the output of {who}"
            for who, text in self.printed.items()
            for what, secret in self.secrets.items()
            if secret in text
        ]


class Page(http.server.SimpleHTTPRequestHandler):
    """Serves the page that holds the browser's WebSockets, without a word."""

    def log_message(self, *_) -> None:
        pass


def main() -> None:
    folder = Path(sys.argv[1])
    observed = Stage(folder).perform()
    (folder / "observed.json").write_text(json.dumps(observed, indent=1))


if __name__ == "__main__":
    main()
