"""openai-python through nginx and HAProxy as TLS terminators, with the files of `deploy/frontends`."""

import asyncio
import socket
import subprocess
import time
from pathlib import Path

import pytest
from line import DEPLOYMENT
from openai import AsyncOpenAI
from spoken import QUESTION, assert_only_the_servers_credential, assert_whole
from test_openai import PUSH_TO_TALK, ask, within_time

FILES = Path(__file__).parents[3] / "deploy/frontends"
START_SECONDS = 20


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def certify(folder: Path) -> tuple[Path, Path]:
    certificate, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
        + ["-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
        + ["-keyout", str(key), "-out", str(certificate)],
        check=True,
        stderr=subprocess.DEVNULL,
    )
    return certificate, key


def replaced(text: str, *pairs: tuple[str, str]) -> str:
    for found, instead in pairs:
        assert found in text, found
        text = text.replace(found, instead)
    return text


def nginx(folder: Path, certificate: Path, key: Path, port: int, relay: str) -> list[str]:
    text = replaced(
        (FILES / "nginx.conf").read_text(),
        ("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;"),
        ("/etc/ssl/talk.example.com.crt", str(certificate)),
        ("/etc/ssl/talk.example.com.key", str(key)),
        ("127.0.0.1:8080", relay),
    )
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    folders = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    path = folder / "nginx.conf"
    path.write_text(
        f"daemon off;\nmaster_process off;\npid {folder}/pid;\nerror_log {folder}/error.log;\n"
        f"events {{}}\nhttp {{\naccess_log off;\n{folders}{text}\n}}\n"
    )
    return ["/usr/sbin/nginx", "-c", str(path)]


def haproxy(folder: Path, certificate: Path, key: Path, port: int, relay: str) -> list[str]:
    both = folder / "both.pem"
    both.write_text(certificate.read_text() + key.read_text())
    path = folder / "haproxy.cfg"
    path.write_text(
        replaced(
            (FILES / "haproxy.cfg").read_text(),
            ("bind :443 ssl", f"bind 127.0.0.1:{port} ssl"),
            ("/etc/haproxy/talk.example.com.pem", str(both)),
            ("127.0.0.1:8080", relay),
        )
    )
    return ["/usr/sbin/haproxy", "-db", "-f", str(path)]


def wait_for(port: int, child: subprocess.Popen) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            assert child.poll() is None, "the front end ended at once"
            assert time.monotonic() < deadline, "the front end does not listen"
            time.sleep(0.02)


@pytest.mark.parametrize("front_end", [nginx, haproxy])
def test_ga_client_over_wss_through_a_front_end(front_end, line, tmp_path, monkeypatch):
    folder = tmp_path / "front"
    folder.mkdir()
    certificate, key = certify(folder)
    port = free_port()
    command = front_end(folder, certificate, key, port, f"127.0.0.1:{line.port}")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

    async def talk():
        client = AsyncOpenAI(base_url=f"https://localhost:{port}/v1", api_key=line.client_key)
        async with client.realtime.connect(model=DEPLOYMENT) as connection:
            return await ask(connection, PUSH_TO_TALK)

    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        wait_for(port, child)
        turn = asyncio.run(within_time(talk()))
    finally:
        child.kill()
        child.wait()
    assert_whole(turn)
    assert turn.heard == QUESTION.text
    assert_only_the_servers_credential(line, "localhost")
