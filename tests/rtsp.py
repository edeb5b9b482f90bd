"""A small RTSP server, for a transport stream over one TCP connection (RFC 2326, RFC 2250)."""

from __future__ import annotations

import socketserver
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["serve_rtsp"]

_PACKET = 7 * 188  # bytes
_MPEG_TS = 33  # payload type
_SENDER_REPORT = struct.pack(">BBHIQIII", 0x80, 200, 6, 1, 0, 0, 0, 0)
_BYE = _SENDER_REPORT + struct.pack(">BBHI", 0x81, 203, 1, 1)


class _Connection(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        while request := self.rfile.readline().decode():
            headers = {}
            while line := self.rfile.readline().decode().strip():
                name, _, value = line.partition(": ")
                headers[name.lower()] = value
            method = request.split()[0]
            if method == self.server.silent_at:
                self.server.ended.wait(60)
                return
            self._answer(method, headers["cseq"])
            if method == "PLAY":
                self._play()
                return

    def _answer(self, method: str, number: str) -> None:
        fields, body = {"CSeq": number, "Session": "1"}, ""
        if method == "OPTIONS":
            fields["Public"] = "OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN"
        if method == "DESCRIBE":
            seconds = self.server.seconds
            length = f"a=range:npt=0-{seconds}\r\n" if seconds else ""
            body = (
                f"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n{length}m=video 0 RTP/AVP {_MPEG_TS}\r\n"
            )
            fields |= {"Content-Type": "application/sdp", "Content-Length": str(len(body))}
        if method == "SETUP":
            fields["Transport"] = "RTP/AVP/TCP;unicast;interleaved=0-1"
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self.wfile.write(f"RTSP/1.0 200 OK\r\n{lines}\r\n{body}".encode())

    def _play(self) -> None:
        data = self.server.data
        for number, start in enumerate(range(0, len(data), _PACKET)):
            rtp = struct.pack(">BBHII", 0x80, _MPEG_TS, number, 0, 1) + data[start : start + _PACKET]
            self._send(0, rtp)
        if self.server.then == "bye":
            self._send(1, _BYE)
        if self.server.then in ("silence", "bye"):
            self.server.ended.wait(60)

    def _send(self, channel: int, packet: bytes) -> None:
        self.wfile.write(struct.pack(">cBH", b"$", channel, len(packet)) + packet)


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def __init__(self, data: bytes, then: str, seconds: float | None, silent_at: str | None):
        super().__init__(("127.0.0.1", 0), _Connection)
        self.data = data
        self.then = then
        self.seconds = seconds
        self.silent_at = silent_at
        self.ended = threading.Event()


@contextmanager
def serve_rtsp(
    path: Path, *, then: str = "close", seconds: float | None = None, silent_at: str | None = None
) -> Iterator[str]:
    """Serves a .ts file while the context lasts, and returns its address.

    Args:
        path: the file.
        then: what the server does after the last packet: "close" the connection, "silence", or "bye".
        seconds: the length that the server declares; None for a live stream.
        silent_at: the request that gets no answer.
    """
    with _Server(path.read_bytes(), then, seconds, silent_at) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"rtsp://127.0.0.1:{server.server_address[1]}/stream"
        finally:
            server.ended.set()
            server.shutdown()
