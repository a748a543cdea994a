"""Sees every name that is looked up and every connection that leaves loopback.

Works in a network namespace of its own, where every address is this machine's: what would reach
the internet elsewhere is delivered here, and counted. A name server answers for api.openai.com, so
that whoever asks for it goes on to connect.
"""

import collections
import ctypes
import socket
import struct
import subprocess
import threading
from pathlib import Path

OPENAI = "api.openai.com"
# TEST-NET-2 (RFC 5737): nobody's.
OPENAI_ADDRESS = "198.51.100.7"
NAME_SERVER = "127.0.0.1"

ETH_P_ALL = 3
OUTGOING = 4
SOL_PACKET = 263
PACKET_STATISTICS = 6
SO_ATTACH_FILTER = 26

# Classic BPF (Linux, filter.rst) on an IP packet: UDP, or TCP with SYN and without ACK. Everything
# else would only fill the socket's buffer. One row an instruction: code, jump if true, jump if
# false, operand.
OPENS_OR_ASKS = [
    (0x30, 0, 0, 0),  # load the byte with the version
    (0x54, 0, 0, 0xF0),
    (0x15, 1, 0, 0x40),  # IPv4: below
    (0x15, 7, 14, 0x60),  # IPv6: further below; else no
    (0x30, 0, 0, 9),  # load the protocol
    (0x15, 11, 0, socket.IPPROTO_UDP),  # yes
    (0x15, 0, 11, socket.IPPROTO_TCP),  # else no
    (0xB1, 0, 0, 0),  # X = length of the header
    (0x50, 0, 0, 13),  # load TCP's flags
    (0x54, 0, 0, 0x12),
    (0x15, 6, 7, 0x02),  # yes; else no
    (0x30, 0, 0, 6),  # load IPv6's next header
    (0x15, 4, 0, socket.IPPROTO_UDP),  # yes
    (0x15, 0, 4, socket.IPPROTO_TCP),  # else no
    (0x30, 0, 0, 53),  # load TCP's flags
    (0x54, 0, 0, 0x12),
    (0x15, 0, 1, 0x02),
    (0x06, 0, 0, 0xFFFF),  # yes: the whole packet
    (0x06, 0, 0, 0),  # no
]


class Trap:
    def __init__(self, folder: Path):
        self.queries = collections.Counter()
        self.connections = collections.Counter()
        self._lock = threading.Lock()
        make_everything_local(folder)
        self._wire = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
        attach(self._wire, OPENS_OR_ASKS)
        self._wire.bind(("lo", ETH_P_ALL))
        threading.Thread(target=self._watch, daemon=True).start()
        self._names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._names.bind((NAME_SERVER, 53))
        threading.Thread(target=self._answer, daemon=True).start()

    def caught(self) -> dict:
        """What was seen so far, and how many packets the kernel could not show."""
        statistics = self._wire.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8)
        with self._lock:
            return {
                "queries": dict(self.queries),
                "connections": dict(self.connections),
                "packetsMissed": struct.unpack("=II", statistics)[1],
            }

    def _watch(self) -> None:
        while True:
            packet, (_, _, direction, *_) = self._wire.recvfrom(512)
            # Each packet on loopback is seen twice, going out and coming in.
            if direction == OUTGOING:
                self._note(packet)

    def _note(self, packet: bytes) -> None:
        match packet[0] >> 4:
            case 4:
                protocol, address, rest = packet[9], packet[16:20], packet[(packet[0] & 15) * 4 :]
                destination = socket.inet_ntop(socket.AF_INET, address)
                outside = address[0] != 127
            case 6:
                protocol, address, rest = packet[6], packet[24:40], packet[40:]
                destination = socket.inet_ntop(socket.AF_INET6, address)
                outside = destination != "::1"
            case _:
                return
        port = int.from_bytes(rest[2:4])
        with self._lock:
            if protocol == socket.IPPROTO_TCP and outside:
                self.connections[f"{destination}:{port}"] += 1
            elif protocol == socket.IPPROTO_UDP and port == 53:
                self.queries[name_in(rest[8:])] += 1
            elif protocol == socket.IPPROTO_UDP and outside:
                self.connections[f"{destination}:{port}/udp"] += 1

    def _answer(self) -> None:
        while True:
            question, sender = self._names.recvfrom(512)
            self._names.sendto(answer_to(question), sender)


def attach(wire: socket.socket, program: list[tuple[int, int, int, int]]) -> None:
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *row) for row in program))
    wire.setsockopt(
        socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HP", len(program), ctypes.addressof(code))
    )


def make_everything_local(folder: Path) -> None:
    resolver = folder / "resolv.conf"
    resolver.write_text(f"nameserver {NAME_SERVER}\noptions timeout:2 attempts:1\n")
    for command in (
        "ip link set lo up",
        "ip route add local default dev lo",
        f"mount --bind {resolver} {Path('/etc/resolv.conf').resolve()}",
    ):
        subprocess.run(command.split(), check=True)


def name_in(message: bytes) -> str:
    """The name that a query asks for (RFC 1035, section 4.1.2)."""
    labels, at = [], 12
    while at < len(message) and message[at]:
        labels.append(message[at + 1 : at + 1 + message[at]].decode("latin-1").lower())
        at += 1 + message[at]
    return ".".join(labels)


def answer_to(question: bytes) -> bytes:
    """An address for OpenAI's API, no address of the other family, and no other name at all."""
    name = name_in(question)
    end = 12 + len(name) + 2 + 4
    asked, kind = question[12:end], int.from_bytes(question[end - 4 : end - 2])
    exists = name == OPENAI
    has_answer = exists and kind == 1
    header = question[:2] + struct.pack("!HHHHH", 0x8180 if exists else 0x8183, 1, has_answer, 0, 0)
    record = struct.pack("!HHHIH", 0xC00C, 1, 1, 60, 4) + socket.inet_aton(OPENAI_ADDRESS)
    return header + asked + (record if has_answer else b"")
