"""Servers that go wrong in ways that the simulator does not: raw sockets and an identity endpoint on loopback."""

import base64
import hashlib
import http.server
import socket
import threading
import urllib.parse
from collections.abc import Callable

HEAD_BYTES_MAX = 64 * 1024
WAIT_SECONDS = 30


class Upstream:
    """One such server. `address` is where it can be reached."""

    def __init__(self, behave: Callable[[socket.socket], None]):
        self._behave = behave
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            connection.settimeout(WAIT_SECONDS)
            try:
                self._behave(connection)
            except OSError:
                pass  # The relay has heard enough.


class Refused:
    """A port that is taken, so that nobody else gets it, and at which nobody listens."""

    def __init__(self):
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self._socket.getsockname()[1]


class BlackHole:
    """A listener whose queue is full: the kernel drops every further SYN without a word."""

    def __init__(self):
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(0)
        self._waiting = []
        for _ in range(4):
            waiting = socket.socket()
            waiting.setblocking(False)
            waiting.connect_ex(self._listener.getsockname())
            self._waiting.append(waiting)
        self.address = "127.0.0.1:%d" % self._listener.getsockname()[1]


def read_head(connection: socket.socket) -> str:
    head = b""
    while b"\r\n\r\n" not in head and len(head) < HEAD_BYTES_MAX:
        piece = connection.recv(4096)
        if not piece:
            raise ConnectionError("the relay hung up")
        head += piece
    return head.decode("latin-1")


def accept_of(head: str) -> str:
    """RFC 6455, section 4.2.2."""
    lines = (line.partition(":") for line in head.split("\r\n"))
    key = next(value.strip() for name, _, value in lines if name.lower() == "sec-websocket-key")
    digest = hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
    return base64.b64encode(digest).decode()


def answers(text: str) -> Callable[[socket.socket], None]:
    """Sends one answer; `{accept}` in it becomes the answer to the relay's key."""

    def behave(connection: socket.socket) -> None:
        head = read_head(connection)
        connection.sendall(text.replace("{accept}", accept_of(head)).replace("\n", "\r\n").encode())
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)

    return behave


def page(status: str, title: str) -> str:
    body = f"<!doctype html><html><head><title>{title}</title></head><body>{title}</body></html>"
    return (
        f"HTTP/1.1 {status}\nContent-Type: text/html\nContent-Length: {len(body)}\nConnection: close\n\n{body}"
    )


def hangs_up(connection: socket.socket) -> None:
    read_head(connection)


def is_silent(connection: socket.socket) -> None:
    while connection.recv(4096):
        pass


def speaks_plain_http(connection: socket.socket) -> None:
    connection.recv(4096)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")


JSON_HEAD = "HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json\r\n"


def echoes_request(connection: socket.socket) -> None:
    head = read_head(connection)
    shown = head.replace("\\", "\\\\").replace('"', '\\"').replace("\r\n", " | ")
    body = '{"error":{"code":"401","message":"Access denied due to invalid subscription key. Request: %s"}}' % shown
    connection.sendall(f"{JSON_HEAD}Content-Length: {len(body)}\r\n\r\n{body}".encode("latin-1"))
    connection.recv(1)


def sends_ten_mebibytes(connection: socket.socket) -> None:
    read_head(connection)
    body = '{"error":{"code":"401","message":"' + "x" * (10 << 20) + '"}}'
    connection.sendall(f"{JSON_HEAD}Content-Length: {len(body)}\r\n\r\n{body}".encode())


def never_ends(connection: socket.socket) -> None:
    read_head(connection)
    connection.sendall(f'{JSON_HEAD}Transfer-Encoding: chunked\r\n\r\n22\r\n{{"error":{{"code":"401","message":"\r\n'.encode())
    connection.recv(1)  # Ends when the relay hangs up.


def nests_deep(connection: socket.socket) -> None:
    read_head(connection)
    body = "[" * 100_000
    connection.sendall(f"{JSON_HEAD}Content-Length: {len(body)}\r\n\r\n{body}".encode())


SWITCH = "HTTP/1.1 101 Switching Protocols\nConnection: Upgrade\nSec-WebSocket-Accept: {accept}\n"


class Identity(http.server.ThreadingHTTPServer):
    """The identity endpoint of App Service and Container Apps, going wrong for each client id in its way."""

    daemon_threads = True

    def __init__(self, header: str):
        super().__init__(("127.0.0.1", 0), IdentityHandler)
        self.header = header
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/msi/token"


# By scenario: status, headers, body. In the words of Microsoft's pages on managed identities.
IDENTITIES = {
    "identity_not_assigned": (
        400,
        {},
        '{"statusCode":400,"message":"No User Assigned or Delegated Managed Identity found for specified ClientId"}',
    ),
    "identity_throttled": (429, {"Retry-After": "86400"}, '{"statusCode":429,"message":"Too many requests"}'),
    "identity_down": (500, {}, '{"statusCode":500,"message":"Internal error"}'),
    "identity_answers_a_page": (200, {"Content-Type": "text/html"}, "<html><title>Sign in</title></html>"),
    "identity_redirects": (302, {"Location": "http://127.0.0.1:9/?secret=x"}, ""),
}


def client_id(scenario: str) -> str:
    """The client id that stands for a scenario."""
    return f"00000000-0000-4000-8000-{list(IDENTITIES).index(scenario):012x}"


class IdentityHandler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        asked = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query).get("client_id", [""])[0]
        unknown = (404, {}, "")
        answers = (IDENTITIES[name] for name in IDENTITIES if client_id(name) == asked)
        status, headers, body = next(answers, unknown)
        if self.headers.get("X-IDENTITY-HEADER") != self.server.header:
            status, headers, body = 401, {}, ""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_) -> None:
        pass


def start() -> dict[str, str]:
    """Starts all of them; returns address by scenario. They end with this process."""
    behaviours = {
        "unrequested_subprotocol": answers(
            f"{SWITCH}Upgrade: websocket\nSec-WebSocket-Protocol: chat\n\n"
        ),
        "no_upgrade_header": answers(f"{SWITCH}\n"),
        "a_web_page": answers(page("200 OK", "Sign in to continue")),
        "a_proxys_403": answers(page("403 Forbidden", "Blocked by your organisation's proxy")),
        "hangs_up": hangs_up,
        "redirect_to_openai": answers(
            "HTTP/1.1 307 Temporary Redirect\n"
            "Location: https://api.openai.com/v1/realtime?model=gpt-realtime\nContent-Length: 0\n\n"
        ),
        "tls_silent": is_silent,
        "tls_plain_http": speaks_plain_http,
        "body_echoes_request": echoes_request,
        "body_ten_mebibytes": sends_ten_mebibytes,
        "body_never_ends": never_ends,
        "body_nests_deep": nests_deep,
    }
    servers = {name: Upstream(behave) for name, behave in behaviours.items()}
    servers |= {"tcp_refused": Refused(), "tcp_black_hole": BlackHole()}
    KEPT.extend(servers.values())
    return {name: server.address for name, server in servers.items()}


# Sockets close when nothing refers to them.
KEPT: list = []
