"""An RTSP server on loopback that plays small videos as cameras do, and fails on command.

RTSP 1.0 (RFC 2326) with RTP interleaved on its TCP connection, H.264 (RFC 6184) and H.265 (RFC 7798)::

    with RtspServer() as server:
        camera = server.add("cam1", read_video(path))
        camera.stall(at=45)  # the 45th access unit of every connection never comes
        ...  # a client plays camera.url
        camera.normal()

Each method of ``Camera`` under "modes" replaces the mode before it, for connections that are open and for those to
come; access (``basic``, ``digest``, ``free``) is apart from it. ``at`` counts the access units of one connection from
0; an open connection that is past it is hit by its next access unit. A client that reads too slowly blocks its own
connection, nothing is skipped: what is late is sent when it can be.
"""

from __future__ import annotations

import base64
import hashlib
import random
import re
import select
import socket
import struct
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit

import pytest

CLOCK = 90_000  # RTP ticks per second, for both codecs
_HOUR = 3600 * CLOCK
_PAYLOAD = 1200  # bytes of one RTP packet without its header: larger units are fragmented
_PATIENCE = 0.05  # seconds until a waiting connection looks for a new command
_REALM = "camera"


@dataclass(frozen=True, slots=True)
class Codec:
    """What the server must know of a codec's NAL units."""

    name: str  # in the SDP
    header: int  # bytes of a NAL unit's header
    slices: range
    parameter_sets: dict[int, str]  # type of NAL unit -> its attribute in the SDP
    delimiter: int
    fragment: int  # type of an RTP fragmentation unit

    def kind(self, nal: bytes) -> int:
        return nal[0] & 31 if self.header == 1 else nal[0] >> 1 & 63

    def payloads(self, nal: bytes) -> Iterator[bytes]:
        """The unit as one RTP payload, or as several fragments (FU-A; FU)."""
        if len(nal) <= _PAYLOAD:
            yield nal
            return
        lead = bytes(
            [nal[0] & 0xE0 | self.fragment] if self.header == 1 else [nal[0] & 0x81 | self.fragment << 1, nal[1]]
        )
        body, step = nal[self.header :], _PAYLOAD - self.header - 1
        for start in range(0, len(body), step):
            edge = 0x80 * (start == 0) | 0x40 * (start + step >= len(body))
            yield lead + bytes([edge | self.kind(nal)]) + body[start : start + step]


CODECS = {
    "h264": Codec("H264", 1, range(1, 6), {7: "sps", 8: "pps"}, 9, 28),
    "hevc": Codec("H265", 2, range(0, 32), {32: "sprop-vps", 33: "sprop-sps", 34: "sprop-pps"}, 35, 49),
}


class Unit(NamedTuple):
    """One access unit: a picture's NAL units, without start codes."""

    nals: tuple[bytes, ...]
    picture: int  # its place in presentation order, from 0: the number that make_video burns in
    ticks: int  # when it is shown, from the first picture on
    due: int  # when it is sent: in order of decoding, at the distances of presentation
    key: bool


@dataclass(frozen=True, slots=True)
class Video:
    """A file's access units in the order of decoding; every key unit carries the parameter sets."""

    codec: Codec
    fps: Fraction
    units: tuple[Unit, ...]
    parameter_sets: tuple[bytes, ...]

    @property
    def period(self) -> int:
        """Ticks of one picture."""
        return round(CLOCK / self.fps)

    def sdp(self, name: str) -> str:
        sets = [(self.codec.kind(nal), base64.b64encode(nal).decode()) for nal in self.parameter_sets]
        if self.codec.header == 1:
            profile = next(nal for nal in self.parameter_sets if self.codec.kind(nal) == 7)[1:4].hex().upper()
            both = ",".join(text for _, text in sets)
            described = f"packetization-mode=1;profile-level-id={profile};sprop-parameter-sets={both}"
        else:
            described = ";".join(f"{self.codec.parameter_sets[kind]}={text}" for kind, text in sets)
        lines = ["v=0", "o=- 0 0 IN IP4 127.0.0.1", f"s={name}", "c=IN IP4 0.0.0.0", "t=0 0", "a=control:*"]
        lines += ["a=range:npt=now-", "m=video 0 RTP/AVP 96", f"a=rtpmap:96 {self.codec.name}/{CLOCK}"]
        lines += [f"a=framerate:{float(self.fps):.6g}", f"a=fmtp:96 {described}", "a=control:track0"]
        return "\r\n".join(lines) + "\r\n"


def read_video(path: Path) -> Video:
    """The H.264 or H.265 video of a file, ready to be served."""
    import av  # here, so that the server itself needs the standard library only
    from av.bitstream import BitStreamFilterContext

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        name, fps, base = stream.codec_context.name, stream.average_rate, stream.time_base
        annexb = BitStreamFilterContext(f"{name}_mp4toannexb", stream)
        packets = [
            done for packet in container.demux(stream) for done in annexb.filter(packet if packet.size else None)
        ]
    if not packets or fps is None:
        raise ValueError(f"{path} has no pictures or no rate")
    codec = CODECS[name]
    times = [round(packet.pts * base * CLOCK) for packet in packets if packet.pts is not None and base is not None]
    if not times:  # a raw file tells no times; without B-pictures they are plain
        times = [round(index * CLOCK / fps) for index in range(len(packets))]
    start, shown = min(times), sorted(times)
    split = [[nal.rstrip(b"\0") for nal in bytes(packet).split(b"\0\0\1")] for packet in packets]
    sets = tuple(nal for nal in split[0] if nal and codec.kind(nal) in codec.parameter_sets)
    units = []
    for packet, nals, ticks, due in zip(packets, split, times, shown, strict=True):
        own = [nal for nal in nals if nal and codec.kind(nal) not in (*codec.parameter_sets, codec.delimiter)]
        with_sets = (*(sets if packet.is_keyframe else ()), *own)
        units.append(Unit(with_sets, shown.index(ticks), ticks - start, due - start, packet.is_keyframe))
    return Video(codec, Fraction(fps), tuple(units), sets)


def wait_until(condition: Callable[[], object], *, timeout: float = 5.0) -> None:
    """Return as soon as the condition holds; an AssertionError if it does not within the time."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, f"not within {timeout} s"
        time.sleep(0.01)


class Sent(NamedTuple):
    """An access unit that a client was sent."""

    picture: int  # Unit.picture, of the video that is played
    time: float  # time.monotonic() just before it was handed to the operating system
    connection: int  # the camera's connections count from 1
    number: int  # access units of this connection count from 0


class _Mode(NamedTuple):
    name: str = "normal"
    at: int = 0
    amount: float = 0.0  # share, factor or rate
    video: Video | None = None


class _Access(NamedTuple):
    scheme: str
    user: str
    password: str


class Camera:
    """One path of the server: a video, a mode, and counters of what its clients did."""

    def __init__(self, server: RtspServer, name: str, video: Video, *, speed: float, ends: bool) -> None:
        self.name = name
        self.video = video
        self.speed = speed
        self.ends = ends
        self.connections = 0  # that named this camera
        self.live = 0  # of these, still open
        self.requests: Counter[str] = Counter()
        self.units_sent = 0
        self.sent: deque[Sent] = deque(maxlen=100_000)
        self._server = server
        self._mode = _Mode()
        self._access: _Access | None = None

    @property
    def mode(self) -> str:
        return self._mode.name

    @property
    def url(self) -> str:
        """Where it plays, with the credentials that it asks for, percent-encoded."""
        access = self._access
        login = f"{quote(access.user, safe='')}:{quote(access.password, safe='')}@" if access else ""
        return f"rtsp://{login}127.0.0.1:{self._server.port}/{quote(self.name)}"

    # access

    def basic(self, user: str, password: str) -> None:
        self._access = _Access("Basic", user, password)

    def digest(self, user: str, password: str) -> None:
        self._access = _Access("Digest", user, password)

    def free(self) -> None:
        """Ask for no credentials."""
        self._access = None

    # modes

    def normal(self) -> None:
        """Real time; a stalled connection goes on with the unit it kept, its RTP clock having run on."""
        self._mode = _Mode()

    def stall(self, at: int = 0) -> None:
        """Keep the connection and answer requests, but send no more media."""
        self._mode = _Mode("stall", at)

    def drop(self, at: int = 0) -> None:
        """Close the connection."""
        self._mode = _Mode("drop", at)

    def accept_silent(self) -> None:
        """Never answer a request."""
        self._mode = _Mode("accept_silent")

    def auth401(self) -> None:
        """Refuse DESCRIBE whatever the credentials."""
        self._mode = _Mode("auth401")

    def e404(self) -> None:
        """Know no such stream when asked to DESCRIBE it."""
        self._mode = _Mode("e404")

    def corrupt(self, share: float, at: int = 0) -> None:
        """Damage this share of the slices, in 2 % of the bytes after the first 8."""
        self._mode = _Mode("corrupt", at, share)

    def garbage(self, at: int = 0) -> None:
        """Replace all slices with random bytes behind their NAL headers."""
        self._mode = _Mode("garbage", at)

    def loss(self, share: float, at: int = 0) -> None:
        """Leave out this share of the RTP packets; their sequence numbers run on."""
        self._mode = _Mode("loss", at, share)

    def res(self, video: Video, at: int = 0) -> None:
        """Play another video from its start; one of another codec closes the connection and serves the next ones."""
        self._mode = _Mode("res", at, video=video)

    def tsfwd(self, at: int = 0) -> None:
        """Let the RTP timestamps jump one hour forward."""
        self._mode = _Mode("tsfwd", at)

    def tsback(self, at: int = 0) -> None:
        """Let the RTP timestamps jump one hour back."""
        self._mode = _Mode("tsback", at)

    def wrap(self, at: int = 20) -> None:
        """Connections to come start so that their timestamps wrap at this unit, their sequence numbers before."""
        self._mode = _Mode("wrap", at)

    def frozen(self, at: int = 0) -> None:
        """Repeat the last key unit, at the video's rate."""
        self._mode = _Mode("frozen", at)

    def slow(self, factor: float = 0.5, at: int = 0) -> None:
        """Send at this share of the rate; the RTP timestamps are those of real time."""
        self._mode = _Mode("slow", at, factor)

    def burst(self, factor: float = 4.0, at: int = 0) -> None:
        """Send at this multiple of the rate; the RTP timestamps are those of real time."""
        self._mode = _Mode("burst", at, factor)

    def storm(self, rate: float = 20.0) -> None:
        """Drop every connection 1 / rate seconds after it was taken, wherever its client has got to."""
        self._mode = _Mode("storm", amount=rate)


class _Playback:
    """What one connection plays: the next access unit, when it is due, and its RTP numbers."""

    def __init__(self, camera: Camera, mode: _Mode, connection: int, chance: random.Random, channel: int) -> None:
        self.camera, self.connection, self.chance, self.channel = camera, connection, chance, channel
        self.video = camera.video
        self.position = 0  # of the next unit in the video
        self.number = 0  # of the next unit in the connection
        self.clock = 0  # ticks of media time
        self.due = time.monotonic()
        self.ssrc = chance.randrange(2**32)
        self.sequence = chance.randrange(2**15)
        self.origin = chance.randrange(2**31)
        self.jumped: _Mode | None = None  # the jump of timestamps that was made
        self.stalled = False
        if mode.name == "wrap":
            self.sequence = (2**16 - mode.at) % 2**16
            self.origin = (2**32 - mode.at * self.video.period) % 2**32

    def next(self, mode: _Mode) -> tuple[Unit, bytes]:
        """The next access unit and its RTP packets, interleaved; moves on."""
        active = self.number >= mode.at
        if self.stalled:
            self.stalled = False
            self.clock += round((time.monotonic() - self.due) * CLOCK * self.camera.speed)
            self.due = time.monotonic()
        self._choose_video(mode if active else _Mode())
        if active and mode.name in ("tsfwd", "tsback") and self.jumped is not mode:
            self.jumped = mode
            self.origin += _HOUR if mode.name == "tsfwd" else -_HOUR
        frozen = active and mode.name == "frozen"
        while frozen and not self.video.units[self.position].key:
            self.position -= 1
        unit = self.video.units[self.position]
        ticks = self.origin + self.clock + (0 if frozen else unit.ticks - unit.due)
        packets = self._packets(unit, ticks, mode if active else _Mode())
        speed = self.camera.speed * (mode.amount if active and mode.name in ("slow", "burst") else 1)
        step = self.video.period
        if not frozen:
            self.position += 1
            if self.position < len(self.video.units):
                step = self.video.units[self.position].due - unit.due
            elif not self.camera.ends:
                self.position = 0
        self.clock += step
        self.due += step / CLOCK / speed
        self.number += 1
        return unit, packets

    @property
    def ended(self) -> bool:
        return self.position >= len(self.video.units)

    def _choose_video(self, mode: _Mode) -> None:
        video = mode.video if mode.name == "res" and mode.video else self.camera.video
        if video is not self.video and video.codec is self.video.codec:
            self.video, self.position = video, 0

    def _packets(self, unit: Unit, ticks: int, mode: _Mode) -> bytes:
        payloads = [part for nal in unit.nals for part in self.video.codec.payloads(self._damage(nal, mode))]
        packets = bytearray()
        for index, payload in enumerate(payloads):
            marker = 0x80 * (index == len(payloads) - 1)
            header = struct.pack("!BBHII", 0x80, marker | 96, self.sequence, ticks % 2**32, self.ssrc)
            self.sequence = (self.sequence + 1) % 2**16
            if mode.name == "loss" and self.chance.random() < mode.amount:
                continue
            packets += struct.pack("!cBH", b"$", self.channel, len(header) + len(payload)) + header + payload
        return bytes(packets)

    def _damage(self, nal: bytes, mode: _Mode) -> bytes:
        if self.video.codec.kind(nal) not in self.video.codec.slices:
            return nal
        if mode.name == "garbage":
            header = self.video.codec.header
            return nal[:header] + self.chance.randbytes(len(nal) - header)
        if mode.name == "corrupt" and len(nal) > 8 and self.chance.random() < mode.amount:
            damaged = bytearray(nal)
            for _ in range(max(1, (len(nal) - 8) // 50)):
                damaged[self.chance.randrange(8, len(nal))] ^= self.chance.randrange(1, 256)
            return bytes(damaged)
        return nal


class _Request(NamedTuple):
    method: str
    url: str
    headers: dict[str, str]  # names in lower case


class _Connection:
    """One client: answers its requests and, while it plays, sends in between; the loop of one thread."""

    def __init__(self, server: RtspServer, link: socket.socket) -> None:
        self.server, self.link = server, link
        self.taken = time.monotonic()
        self.camera: Camera | None = None
        self.number = 0
        self.chance = random.Random()
        self.nonce = ""
        self.channel = 0
        self.playback: _Playback | None = None
        self.received = b""
        self.open = True
        self.thread = threading.Thread(target=self._run, name="rtsp-connection", daemon=True)

    def _run(self) -> None:
        poll = select.poll()  # select.select() refuses file descriptors from 1024 on
        poll.register(self.link, select.POLLIN)
        try:
            while self.open:
                if poll.poll(self._patience() * 1000):
                    self._receive()
                self._send()
            self.link.shutdown(socket.SHUT_WR)
            while poll.poll(0) and self.link.recv(65536):  # unread bytes would turn the close into a reset
                pass
        except OSError:
            pass  # the client went away, or the server closes
        finally:
            self.link.close()
            self.server._forget(self)

    def _patience(self) -> float:
        """Seconds until something is due."""
        due = time.monotonic() + _PATIENCE
        if self.camera is not None and self.camera._mode.name == "storm":
            due = min(due, self.taken + 1 / self.camera._mode.amount)
        if self.playback is not None and not self.playback.stalled:
            due = min(due, self.playback.due)
        return max(0.0, due - time.monotonic())

    def _receive(self) -> None:
        data = self.link.recv(65536)
        if not data:
            self.open = False
        self.received += data
        while self.open and (request := self._next_request()):
            self._answer(request)

    def _next_request(self) -> _Request | None:
        """The next whole request; RTCP packets of the client before it are skipped."""
        while self.received[:1] == b"$":
            if len(self.received) < 4 or len(self.received) < 4 + int.from_bytes(self.received[2:4]):
                return None
            self.received = self.received[4 + int.from_bytes(self.received[2:4]) :]
        head, blank, rest = self.received.partition(b"\r\n\r\n")
        if not blank:
            return None
        first, *lines = head.decode("utf-8", "replace").split("\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", 0))
        if len(rest) < length:
            return None
        self.received = rest[length:]
        method, url = (*first.split(" "), "", "")[:2]
        return _Request(method, url, headers)

    def _answer(self, request: _Request) -> None:
        camera = self.server._find(request.url)
        if camera is not None and camera is not self.camera:
            self._name(camera)
        self.server._count(camera, request.method)
        mode = camera._mode if camera else _Mode()
        if mode.name == "accept_silent":
            return
        if request.method == "OPTIONS":
            self._reply(request, Public="OPTIONS, DESCRIBE, SETUP, PLAY, GET_PARAMETER, SET_PARAMETER, TEARDOWN")
        elif camera is None or (mode.name == "e404" and request.method == "DESCRIBE"):
            self._reply(request, "404 Not Found")
        elif mode.name == "auth401" and request.method == "DESCRIBE":
            self._challenge(request, "Basic")
        elif camera._access and not self._allowed(camera._access, request):
            self._challenge(request, camera._access.scheme)
        else:
            self._serve(request, camera, mode)

    def _serve(self, request: _Request, camera: Camera, mode: _Mode) -> None:
        base = f"rtsp://127.0.0.1:{self.server.port}/{quote(camera.name)}/"
        session = f"{self.number:08d}"
        match request.method:
            case "DESCRIBE":
                sdp = camera.video.sdp(camera.name)
                self._reply(request, body=sdp, Content_Base=base, Content_Type="application/sdp")
            case "SETUP":
                wanted = request.headers.get("transport", "")
                if "RTP/AVP/TCP" not in wanted:
                    self._reply(request, "461 Unsupported Transport")
                    return
                channels = re.search(r"interleaved=(\d+)", wanted)
                self.channel = int(channels[1]) if channels else 0
                transport = f"RTP/AVP/TCP;unicast;interleaved={self.channel}-{self.channel + 1}"
                self._reply(request, Session=f"{session};timeout=60", Transport=transport)
            case "PLAY":
                if self.playback is None:
                    self.playback = _Playback(camera, mode, self.number, self.chance, self.channel)
                info = f"url={base}track0;seq={self.playback.sequence};rtptime={self.playback.origin % 2**32}"
                self._reply(request, Session=session, Range="npt=now-", RTP_Info=info)
            case "GET_PARAMETER" | "SET_PARAMETER":
                self._reply(request, Session=session)
            case "TEARDOWN":
                self._reply(request, Session=session)
                self.open = False
            case _:
                self._reply(request, "405 Method Not Allowed")

    def _reply(self, request: _Request, status: str = "200 OK", *, body: str = "", **headers: str) -> None:
        lines = [f"RTSP/1.0 {status}", f"CSeq: {request.headers.get('cseq', '')}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        if body:
            lines.append(f"Content-Length: {len(body.encode())}")
        self.link.sendall(("\r\n".join(lines) + "\r\n\r\n" + body).encode())

    def _challenge(self, request: _Request, scheme: str) -> None:
        nonce = f', nonce="{self.nonce}"' if scheme == "Digest" else ""
        self._reply(request, "401 Unauthorized", WWW_Authenticate=f'{scheme} realm="{_REALM}"{nonce}')

    def _allowed(self, access: _Access, request: _Request) -> bool:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != access.scheme.lower():
            return False
        if access.scheme == "Basic":
            return given == base64.b64encode(f"{access.user}:{access.password}".encode()).decode()
        values = {name: quoted or bare for name, quoted, bare in re.findall(r'(\w+)=(?:"([^"]*)"|([^\s,]+))', given)}
        uri = values.get("uri", "")
        ours = _md5(access.user, _REALM, access.password)
        expected = _md5(ours, self.nonce, _md5(request.method, uri))  # RFC 2069: no qop was offered
        named = values.get("username") == access.user and uri == request.url and values.get("nonce") == self.nonce
        return named and values.get("response") == expected

    def _name(self, camera: Camera) -> None:
        """The connection turns out to be for this camera."""
        self.number = self.server._join(self, camera)
        self.camera = camera
        self.chance = random.Random(f"{self.server.seed}/{camera.name}/{self.number}")
        self.nonce = self.chance.randbytes(16).hex()

    def _send(self) -> None:
        """Do what the mode asks for now, and send the access unit that is due."""
        if self.camera is None or not self.open:
            return
        mode, playback, now = self.camera._mode, self.playback, time.monotonic()
        if mode.name == "storm" and now - self.taken >= 1 / mode.amount:
            self.open = False
            return
        if playback is None:
            return
        active = playback.number >= mode.at
        if mode.name == "drop" and active:
            self.open = False
            return
        if playback.due > now:
            return
        if mode.name == "stall" and active:
            playback.stalled = True
            return
        if mode.name == "res" and active and mode.video and mode.video.codec is not playback.video.codec:
            self.camera.video = mode.video  # for its other connections, too: they are closed at the same unit
            self.open = False
            return
        unit, packets = playback.next(mode)
        self.server._log(self.camera, Sent(unit.picture, time.monotonic(), self.number, playback.number - 1))
        self.link.sendall(packets)
        if playback.ended:
            self.open = False


def _md5(*parts: str) -> str:
    return hashlib.md5(":".join(parts).encode(), usedforsecurity=False).hexdigest()


class RtspServer:
    """Listens on a port of 127.0.0.1 from the start; a closed one may ``open`` again, cameras and counters stay."""

    def __init__(self, *, port: int = 0, seed: int = 0) -> None:
        self.port = port
        self.seed = seed
        self.cameras: dict[str, Camera] = {}
        self.connections = 0
        self.requests: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._clients: list[_Connection] = []
        self._listener: socket.socket | None = None
        self._accepter: threading.Thread | None = None
        self.open()

    def __enter__(self) -> RtspServer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def live(self) -> int:
        """Connections that are open now."""
        with self._lock:
            return len(self._clients)

    def add(self, name: str, video: Video, *, speed: float = 1.0, ends: bool = False) -> Camera:
        """A camera under this path; ``speed`` times real time, closing after its last access unit if it ``ends``."""
        if name in self.cameras:
            raise ValueError(f"there is a camera {name!r} already")
        self.cameras[name] = Camera(self, name, video, speed=speed, ends=ends)
        return self.cameras[name]

    def camera(self, name: str) -> Camera:
        return self.cameras[name]

    def open(self) -> None:
        """Listen again, on the port as before."""
        if self._listener is not None:
            return
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=128)
        self.port = self._listener.getsockname()[1]
        self._accepter = threading.Thread(target=self._accept, args=(self._listener,), name="rtsp-accept", daemon=True)
        self._accepter.start()

    def close(self) -> None:
        """Close the port and all connections; their threads have ended when this returns."""
        if self._listener is None or self._accepter is None:
            return
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept(), which closing alone does not
        self._accepter.join()
        self._listener.close()
        self._listener = self._accepter = None
        with self._lock:
            clients = list(self._clients)
        for client in clients:
            with suppress(OSError):  # it has closed by itself
                client.link.shutdown(socket.SHUT_RDWR)
        for client in clients:
            client.thread.join(10)
            assert not client.thread.is_alive(), "a connection does not end"

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                link, _ = listener.accept()
            except OSError:
                return
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client = _Connection(self, link)
            with self._lock:
                self.connections += 1
                self._clients.append(client)
            client.thread.start()

    def _find(self, url: str) -> Camera | None:
        path = unquote(urlsplit(url).path).strip("/")
        return self.cameras.get(path) or self.cameras.get(path.rpartition("/")[0])  # the latter: of a track

    def _join(self, client: _Connection, camera: Camera) -> int:
        with self._lock:
            if client.camera is not None:
                client.camera.live -= 1
            camera.live += 1
            camera.connections += 1
            return camera.connections

    def _forget(self, client: _Connection) -> None:
        with self._lock:
            self._clients.remove(client)
            if client.camera is not None:
                client.camera.live -= 1

    def _count(self, camera: Camera | None, method: str) -> None:
        with self._lock:
            self.requests[method] += 1
            if camera is not None:
                camera.requests[method] += 1

    def _log(self, camera: Camera, sent: Sent) -> None:
        with self._lock:
            camera.units_sent += 1
            camera.sent.append(sent)


@pytest.fixture
def rtsp() -> Iterator[RtspServer]:
    """A server without cameras; a test module takes it over with ``rtsp = rtsp_server.rtsp``."""
    with RtspServer() as server:
        yield server
