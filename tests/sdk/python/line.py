"""Talkline between a simulator of Azure and a client, as three real processes would have it.

`Line` starts `talkline sim` and `talkline run` on free ports with credentials of their own, waits
until each says where it listens, and ends both on every path.
"""

import json
import os
import re
import secrets
import subprocess
import threading
import wave
from pathlib import Path

START_SECONDS = 20
STOP_SECONDS = 10
DEPLOYMENT = "gpt-realtime"

ASSETS = Path(os.environ["TALKLINE_ASSETS"])


class Process:
    """A child whose output is kept, line by line, and can be waited for."""

    def __init__(self, name: str, arguments: list[str], environment: dict[str, str]):
        self.name = name
        self._output: list[str] = []
        self._open_streams = 2
        self._changed = threading.Condition()
        # Nothing of the tester's environment: a key that happens to be set there must not help.
        self._child = subprocess.Popen(
            [os.environ["TALKLINE_BIN"], *arguments],
            env={"PATH": os.environ.get("PATH", ""), **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._readers = [
            threading.Thread(target=self._read, args=(stream,))
            for stream in (self._child.stdout, self._child.stderr)
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, stream) -> None:
        for line in stream:
            with self._changed:
                self._output.append(line)
                self._changed.notify_all()
        with self._changed:
            self._open_streams -= 1
            self._changed.notify_all()

    def find(self, pattern: str) -> str:
        """The first group of the first line that is `pattern`, waited for if need be."""

        def found():
            return next(filter(None, (re.fullmatch(pattern, it.strip()) for it in self._output)), None)

        with self._changed:
            self._changed.wait_for(lambda: found() or self._open_streams == 0, START_SECONDS)
            match = found()
        if match is None:
            raise AssertionError(self.said(f"did not print {pattern!r}"))
        return match[1]

    def address(self) -> str:
        return self.find(r"listening on (\S+)")

    def said(self, problem: str) -> str:
        return f"talkline {self.name} {problem}; all it printed:\n{''.join(self._output)}"

    def stop(self) -> None:
        self._child.terminate()
        try:
            self._child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        for reader in self._readers:
            reader.join()


class Line:
    """A simulator and a relay in front of it. Use as a context manager."""

    def __init__(self, folder: Path, tls: bool = False):
        self._folder = folder
        self._tls = tls
        self._record = folder / "requests.jsonl"
        self.client_key = "client-" + secrets.token_hex(16)
        self.azure_key = "azure-" + secrets.token_hex(16)

    def __enter__(self) -> "Line":
        self._sim = Process(
            "sim",
            ["sim", "--listen", "127.0.0.1:0", "--record", str(self._record)],
            {"TALKLINE_SIM_API_KEY": self.azure_key, "HOME": str(self._folder)},
        )
        try:
            self._run = self._start_relay(self._sim.address())
        except BaseException:
            self._sim.stop()
            raise
        try:
            self.url = self._run.address()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start_relay(self, endpoint: str) -> Process:
        config = self._folder / "talkline.toml"
        config.write_text(
            f"""
[server]
listen = "127.0.0.1:0"

[clients]
keys = [{{ name = "sdk", env = "TALKLINE_CLIENT_KEY" }}]

[talk.realtime]
provider = "openai"
transport = "gateway-relay"

[talk.realtime.providers.openai]
azureEndpoint = "{endpoint}"
azureDeployment = "{DEPLOYMENT}"
apiKey = {{ env = "AZURE_OPENAI_API_KEY" }}
"""
        )
        return Process(
            "run",
            ["run", "--config", str(config), *(["--tls-dev"] if self._tls else [])],
            {
                "TALKLINE_CLIENT_KEY": self.client_key,
                "AZURE_OPENAI_API_KEY": self.azure_key,
                "HOME": str(self._folder),
                "XDG_DATA_HOME": str(self._folder / "data"),
            },
        )

    def __exit__(self, *_) -> None:
        for process in (self._run, self._sim):
            process.stop()
            # pytest shows this only beside a failed test.
            print(process.said("ended"))

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def certificate(self) -> str:
        """The file that `--tls-dev` tells the user to trust."""
        return self._run.find(r"export SSL_CERT_FILE=['\"]?([^'\"]+)['\"]?")

    def requests(self) -> list[dict]:
        """What the simulator was asked, oldest first."""
        if not self._record.exists():
            return []
        return [json.loads(line) for line in self._record.read_text().splitlines()]


class Clip:
    """A recording that the simulator ships, and the words spoken in it."""

    def __init__(self, name: str):
        rows = re.findall(r"\| `(\S+)\.wav` \| (.+?) \|", (ASSETS / "README.md").read_text())
        self.text = dict(rows)[name]
        with wave.open(str(ASSETS / f"{name}.wav")) as file:
            shape = (file.getframerate(), file.getnchannels(), file.getsampwidth())
            assert shape == (24_000, 1, 2), f"{name} is not 24 kHz mono PCM16 but {shape}"
            self.pcm = file.readframes(file.getnframes())

    def pieces(self, milliseconds: int = 100) -> list[bytes]:
        """The audio as a microphone would deliver it."""
        size = 24_000 * 2 * milliseconds // 1000
        return [self.pcm[at : at + size] for at in range(0, len(self.pcm), size)]
