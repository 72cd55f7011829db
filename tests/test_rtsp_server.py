"""The fault-injecting RTSP server, with PyAV as its client: what arrives, and what PyAV makes of each fault."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import pytest
import rtsp_server
from conftest import Pixels, draw_number, make_video, read_number
from rtsp_server import Camera, RtspServer, Video, read_video, wait_until

rtsp = rtsp_server.rtsp  # the fixture

# small probes: they say how much PyAV takes in before it opens, not what arrives
OPTIONS = {"rtsp_transport": "tcp", "timeout": "5000000", "probesize": "32768", "analyzeduration": "200000"}
PASSWORDS = ["simple", "p@ss/w?rd#1:2%20", "100%", "ü + &=é", "a:b@c", " "]


def draw_noise(number: int, width: int, height: int) -> Pixels:
    """A numbered picture that fills several RTP packets."""
    picture = draw_number(number, width, height)
    noise = np.random.default_rng(number).integers(0, 80, picture.shape, np.uint8)
    return np.where(picture > 126, picture - noise, picture + noise)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rtsp")


@pytest.fixture(scope="module")
def plain(folder: Path) -> Video:
    return read_video(make_video(folder / "plain.mp4", frames=60))


@pytest.fixture(scope="module")
def small(folder: Path) -> Video:
    return read_video(make_video(folder / "small.mp4", frames=30, size=(96, 64), first=1000))


@pytest.fixture(scope="module")
def large(folder: Path) -> Video:
    return read_video(make_video(folder / "large.mp4", frames=60, size=(320, 240), draw=draw_noise))


@pytest.fixture(scope="module")
def hevc(folder: Path) -> Video:
    path = folder / "hevc.mp4"
    return read_video(make_video(path, frames=24, first=2000, codec="libx265", draw=draw_noise))


class Seen(NamedTuple):
    """A decoded picture as a client saw it."""

    number: int | None  # None: unreadable
    width: int
    seconds: float | None
    corrupt: bool


class Client:
    """PyAV on one URL: the pictures so far, packets, and errors of the decoder."""

    def __init__(self, url: str, **options: str) -> None:
        self.container = av.open(url, options={**OPTIONS, **options})
        self.packets = 0
        self.errors: list[av.error.FFmpegError] = []

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exception: object) -> None:
        self.container.close()

    def pictures(self) -> Iterator[Seen]:
        for packet in self.container.demux(video=0):
            self.packets += 1
            try:
                frames = packet.decode()
            except av.error.InvalidDataError as error:
                self.errors.append(error)
                continue
            for frame in frames:
                try:
                    number = read_number(frame.to_ndarray(format="rgb24"))
                except AssertionError:
                    number = None
                seconds = None if frame.pts is None else float(frame.pts * frame.time_base)
                yield Seen(number, frame.width, seconds, frame.is_corrupt)

    def take(self, count: int) -> list[Seen]:
        pictures = self.pictures()
        return [next(pictures) for _ in range(count)]


def play(url: str) -> list[Seen]:
    """All pictures until the server ends."""
    with Client(url) as client:
        return list(client.pictures())


def numbers(pictures: list[Seen]) -> list[int | None]:
    return [picture.number for picture in pictures]


def steps(pictures: list[Seen]) -> list[float]:
    """Seconds from each picture to the next, from the second one on: the first has no time."""
    times = [picture.seconds for picture in pictures[1:]]
    return [round(after - before, 3) for before, after in pairwise(times)]


class Plain:
    """A client without a decoder, for what PyAV never sends."""

    def __init__(self, camera: Camera, port: int) -> None:
        self.link = socket.create_connection(("127.0.0.1", port), timeout=5)
        self.base = f"rtsp://127.0.0.1:{port}/{camera.name}"
        self.count = 0

    def __enter__(self) -> Plain:
        return self

    def __exit__(self, *exception: object) -> None:
        self.link.close()

    def ask(self, method: str, path: str = "", before: bytes = b"", **headers: str) -> str:
        self.count += 1
        lines = [f"{method} {self.base}{path} RTSP/1.0", f"CSeq: {self.count}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self.link.sendall(before + ("\r\n".join(lines) + "\r\n\r\n").encode())
        return self.link.recv(65536).decode("utf-8", "replace")

    def play(self) -> str:
        self.ask("SETUP", "/track0", Transport="RTP/AVP/TCP;unicast;interleaved=0-1")
        return self.ask("PLAY")


# what arrives


@pytest.mark.parametrize(("bframes", "slices"), [(0, 1), (2, 1), (0, 3)])
def test_every_picture_arrives_once_and_in_order(rtsp: RtspServer, tmp_path: Path, bframes: int, slices: int) -> None:
    options = {"x264-params": f"slices={slices}"}
    video = read_video(make_video(tmp_path / "video.mp4", frames=40, bframes=bframes, options=options))
    assert len(video.units[1].nals) == slices
    camera = rtsp.add("cam1", video, speed=10, ends=True)
    pictures = play(camera.url)
    assert numbers(pictures) == list(range(40))
    assert set(steps(pictures)) == {0.04}
    assert not any(picture.corrupt for picture in pictures)
    assert pictures[0].seconds is None
    assert sorted(sent.picture for sent in camera.sent) == list(range(40))


def test_large_pictures_arrive_in_fragments(rtsp: RtspServer, large: Video, hevc: Video) -> None:
    for video, first in ((large, 0), (hevc, 2000)):
        assert min(max(map(len, unit.nals)) for unit in video.units) > rtsp_server._PAYLOAD
        camera = rtsp.add(f"cam{first}", video, speed=10, ends=True)
        assert numbers(play(camera.url)) == list(range(first, first + len(video.units)))


def test_a_raw_file_plays(rtsp: RtspServer, tmp_path: Path) -> None:
    video = read_video(make_video(tmp_path / "video.h264", frames=30, container="h264"))
    assert numbers(play(rtsp.add("cam1", video, speed=10, ends=True).url)) == list(range(30))


def test_a_video_loops(rtsp: RtspServer, small: Video) -> None:
    with Client(rtsp.add("cam1", small, speed=10).url) as client:
        pictures = client.take(75)
    assert numbers(pictures) == [1000 + index % 30 for index in range(75)]
    assert set(steps(pictures)) == {0.04}


def test_units_are_sent_in_real_time(rtsp: RtspServer, plain: Video) -> None:
    camera = rtsp.add("cam1", plain)
    with Client(camera.url) as client:
        client.take(25)
        now = time.monotonic()
    log = list(camera.sent)
    assert [sent.picture for sent in log] == [sent.number for sent in log] == list(range(len(log)))
    assert {sent.connection for sent in log} == {1}
    assert 0.7 < log[24].time - log[0].time < 1.5
    assert 0 <= now - log[24].time < 0.7


def test_a_client_that_asks_for_udp_is_led_to_tcp(rtsp: RtspServer, plain: Video) -> None:
    camera = rtsp.add("cam1", plain, speed=4)
    with Client(camera.url, rtsp_transport="udp+tcp") as client:
        assert numbers(client.take(5)) == [0, 1, 2, 3, 4]
    assert camera.requests["SETUP"] == 2


# faults


def test_a_stalled_camera_times_out(rtsp: RtspServer, plain: Video) -> None:
    camera = rtsp.add("cam1", plain, speed=4)
    camera.stall(at=20)
    with Client(camera.url, timeout="700000") as client:
        pictures = client.pictures()
        assert numbers([next(pictures) for _ in range(19)]) == list(range(19))
        start = time.monotonic()
        assert next(pictures).number == 19  # FFmpeg's parser keeps the newest picture until it has timed out once
        with pytest.raises(av.error.FFmpegError, match=r"timed out|exit"):
            next(pictures)
        assert time.monotonic() - start > 1.3
    assert camera.units_sent == 20


def test_a_stalled_camera_goes_on_when_told(rtsp: RtspServer, plain: Video) -> None:
    camera = rtsp.add("cam1", plain)
    camera.stall(at=20)
    with Client(camera.url) as client:
        pictures = client.pictures()
        seen = [next(pictures) for _ in range(19)]  # the 20th comes with the 21st
        time.sleep(0.7)
        assert (camera.units_sent, camera.live) == (20, 1)
        camera.normal()
        seen += [next(pictures) for _ in range(11)]
    assert numbers(seen) == list(range(30))
    assert steps(seen)[18] > 0.4  # the camera's clock ran on
    assert set(steps(seen)[:18] + steps(seen)[19:]) == {0.04}


def test_a_dropped_connection_is_a_clean_end(rtsp: RtspServer, plain: Video) -> None:
    camera = rtsp.add("cam1", plain, speed=4)
    camera.drop(at=20)
    assert numbers(play(camera.url)) == list(range(20))
    assert numbers(play(camera.url)) == list(range(20))
    assert camera.connections == 2


def test_a_silent_camera_times_out(rtsp: RtspServer, plain: Video) -> None:
    camera = rtsp.add("cam1", plain)
    camera.accept_silent()
    start = time.monotonic()
    with pytest.raises(av.error.FFmpegError, match=r"Invalid data|timed out|exit"):
        Client(camera.url, timeout="700000")
    assert time.monotonic() - start > 0.6
    assert camera.requests == {"OPTIONS": 1}


def test_refusals_are_told_apart(rtsp: RtspServer, plain: Video) -> None:
    camera = rtsp.add("cam1", plain, speed=4)
    camera.auth401()
    with pytest.raises(av.error.HTTPUnauthorizedError, match="401"):
        Client(camera.url)
    camera.e404()
    with pytest.raises(av.error.HTTPNotFoundError, match="404"):
        Client(camera.url)
    with pytest.raises(av.error.HTTPNotFoundError, match="404"):
        Client(camera.url.replace("cam1", "cam2"))
    camera.normal()
    with Client(camera.url) as client:
        assert numbers(client.take(3)) == [0, 1, 2]


@pytest.mark.parametrize("password", PASSWORDS)
@pytest.mark.parametrize("scheme", ["basic", "digest"])
def test_credentials_are_checked(rtsp: RtspServer, plain: Video, scheme: str, password: str) -> None:
    camera = rtsp.add("cam1", plain, speed=4)
    getattr(camera, scheme)("cam user@home", password)
    with Client(camera.url) as client:
        assert numbers(client.take(2)) == [0, 1]
    wrong = camera.url.replace("@127", "x@127")
    without = f"rtsp://127.0.0.1:{rtsp.port}/cam1"
    for url in (wrong, without):
        with pytest.raises(av.error.HTTPUnauthorizedError, match="401"):
            Client(url)
    camera.free()
    with Client(without) as client:
        assert numbers(client.take(2)) == [0, 1]


def test_corrupt_slices_are_flagged_and_raise_nothing(rtsp: RtspServer, large: Video) -> None:
    camera = rtsp.add("cam1", large, speed=4, ends=True)
    camera.corrupt(0.3, at=15)
    with Client(camera.url) as client:
        pictures = list(client.pictures())
    assert not client.errors
    assert len(pictures) == 60
    assert numbers(pictures[:15]) == list(range(15))
    assert not any(picture.corrupt for picture in pictures[:15])
    assert sum(picture.corrupt for picture in pictures) >= 3


def test_faults_repeat_with_the_seed(large: Video) -> None:
    runs = []
    for seed in (1, 1, 2):
        with RtspServer(seed=seed) as server:
            camera = server.add("cam1", large, speed=10, ends=True)
            camera.loss(0.1)
            with Plain(camera, server.port) as client:
                client.play()
                data = b""
                while part := client.link.recv(65536):
                    data += part
            runs.append(data[-50_000:])
    assert runs[0] == runs[1] != runs[2]


def test_garbage_decodes_to_nothing_while_packets_flow(rtsp: RtspServer, large: Video) -> None:
    camera = rtsp.add("cam1", large, speed=4, ends=True)
    camera.garbage(at=20)
    with Client(camera.url) as client:
        pictures = list(client.pictures())
    assert numbers(pictures[:20]) == list(range(20))
    assert client.packets > 40
    assert len(client.errors) > 10
    assert all(picture.corrupt for picture in pictures[20:])


def test_lost_packets_damage_pictures_and_lose_them(rtsp: RtspServer, large: Video) -> None:
    camera = rtsp.add("cam1", large, speed=4, ends=True)
    camera.loss(0.02, at=15)
    pictures = play(camera.url)
    assert numbers(pictures[:15]) == list(range(15))
    assert 30 < len(pictures) <= 60
    assert any(picture.corrupt for picture in pictures)
    assert camera.units_sent == 60


def test_a_change_of_size_delivers_both(rtsp: RtspServer, plain: Video, small: Video) -> None:
    camera = rtsp.add("cam1", plain, speed=4)
    camera.res(small, at=20)
    with Client(camera.url) as client:
        pictures = client.take(40)
    assert numbers(pictures) == [*range(20), *range(1000, 1020)]
    assert [picture.width for picture in pictures] == [160] * 20 + [96] * 20
    assert set(steps(pictures)) == {0.04}


def test_a_change_of_codec_is_a_restart(rtsp: RtspServer, plain: Video, hevc: Video) -> None:
    camera = rtsp.add("cam1", plain, speed=4, ends=True)
    camera.res(hevc, at=20)
    assert numbers(play(camera.url)) == list(range(20))
    with Client(camera.url) as client:
        assert client.container.streams.video[0].codec_context.name == "hevc"
        assert numbers(list(client.pictures())) == list(range(2000, 2024))


@pytest.mark.parametrize(("mode", "jump"), [("tsfwd", 3600.0), ("tsback", 2**32 / 90_000 - 3600)])
def test_timestamps_jump_once(rtsp: RtspServer, plain: Video, mode: str, jump: float) -> None:
    camera = rtsp.add("cam1", plain, speed=4)
    getattr(camera, mode)(at=20)
    with Client(camera.url) as client:
        pictures = client.take(40)
    assert numbers(pictures) == list(range(40))
    assert steps(pictures)[18] == pytest.approx(jump + 0.04, abs=0.01)  # back, too, PyAV goes forward: 32 bits wrap
    assert set(steps(pictures)[:18] + steps(pictures)[19:]) == {0.04}


def test_wrapping_numbers_go_unnoticed(rtsp: RtspServer, plain: Video) -> None:
    camera = rtsp.add("cam1", plain, speed=4)
    camera.wrap(at=20)
    with Plain(camera, rtsp.port) as client:
        assert f"seq={2**16 - 20};rtptime={2**32 - 20 * 3600}" in client.play()
    with Client(camera.url) as client:
        pictures = client.take(40)
    assert numbers(pictures) == list(range(40))
    assert set(steps(pictures)) == {0.04}


def test_a_frozen_camera_repeats_a_picture_until_told(rtsp: RtspServer, plain: Video) -> None:
    camera = rtsp.add("cam1", plain, speed=4)
    camera.frozen(at=29)  # key units are 0, 12, 24 ..
    with Client(camera.url) as client:
        source = client.pictures()
        pictures = [next(source) for _ in range(45)]
        assert numbers(pictures) == [*range(29), *[24] * 16]
        camera.normal()
        while (picture := next(source)).number == 24:
            pictures.append(picture)
        rest = [picture, *(next(source) for _ in range(20))]
    assert numbers(rest) == list(range(25, 46))
    assert not any(picture.corrupt for picture in pictures + rest)
    assert set(steps(pictures + rest)) == {0.04}


@pytest.mark.parametrize(("mode", "factor", "least", "most"), [("slow", 0.5, 1.3, 2.5), ("burst", 4.0, 0.1, 0.7)])
def test_the_rate_may_differ_from_the_timestamps(
    rtsp: RtspServer, plain: Video, mode: str, factor: float, least: float, most: float
) -> None:
    camera = rtsp.add("cam1", plain)
    getattr(camera, mode)(factor)
    with Client(camera.url) as client:
        pictures = client.take(21)
    assert numbers(pictures) == list(range(21))
    assert set(steps(pictures)) == {0.04}
    assert least < camera.sent[20].time - camera.sent[0].time < most  # 0.8 in real time


def test_a_storm_takes_and_drops(rtsp: RtspServer, plain: Video) -> None:
    camera = rtsp.add("cam1", plain)
    camera.storm(rate=20)
    start = time.monotonic()
    for _ in range(20):
        with Plain(camera, rtsp.port) as client:
            client.play()
            while client.link.recv(65536):
                pass
    assert 0.9 < time.monotonic() - start < 3
    assert (camera.connections, camera.requests["PLAY"]) == (20, 20)
    wait_until(lambda: not rtsp.live)


# the server itself


def test_cameras_do_not_see_each_other(rtsp: RtspServer, plain: Video, small: Video) -> None:
    one, two = rtsp.add("yard/one", plain, speed=2, ends=True), rtsp.add("yard/two", small, speed=4)
    with Client(two.url) as client:
        pictures = client.pictures()
        next(pictures)
        two.stall()
        assert numbers(play(one.url)) == list(range(60))
        frames_before = two.units_sent
        two.drop()
        rest = list(pictures)
    assert two.units_sent == frames_before == len(rest) + 1
    assert rtsp.camera("yard/one") is one
    with pytest.raises(ValueError, match="'yard/one' already"):
        rtsp.add("yard/one", plain)


def test_connections_requests_and_sockets_are_counted(rtsp: RtspServer, plain: Video) -> None:
    one, two = rtsp.add("one", plain, speed=4), rtsp.add("two", plain, speed=4)
    with Client(one.url), Client(one.url), Client(two.url):
        assert (one.live, two.live, rtsp.live) == (2, 1, 3)
    wait_until(lambda: not rtsp.live)
    assert (one.live, two.live) == (0, 0)
    assert (one.connections, two.connections, rtsp.connections) == (2, 1, 3)
    assert two.requests == {"OPTIONS": 1, "DESCRIBE": 1, "SETUP": 1, "PLAY": 1, "TEARDOWN": 1}
    assert rtsp.requests == one.requests + two.requests
    assert len(one.sent) == one.units_sent >= 2
    assert {sent.connection for sent in one.sent} == {1, 2}


def test_other_requests_are_answered(rtsp: RtspServer, plain: Video) -> None:
    camera = rtsp.add("cam1", plain)
    camera.stall()
    receiver_report = b"$\x01\x00\x08" + bytes(8)
    with Plain(camera, rtsp.port) as client:
        assert "GET_PARAMETER" in client.ask("OPTIONS")
        assert "sprop-parameter-sets=" in client.ask("DESCRIBE", "?channel=1")
        assert client.play().startswith("RTSP/1.0 200 OK\r\nCSeq: 4\r\n")
        assert client.ask("GET_PARAMETER", before=receiver_report * 3).startswith("RTSP/1.0 200")
        assert client.ask("RECORD").startswith("RTSP/1.0 405")
        assert client.ask("TEARDOWN").startswith("RTSP/1.0 200")
        assert client.link.recv(1) == b""
    assert camera.units_sent == 0


def test_close_leaves_no_thread_and_no_port(plain: Video, large: Video) -> None:
    before = threading.enumerate()
    with RtspServer() as server:
        flood = server.add("flood", large, speed=10_000)
        with Plain(flood, server.port) as deaf, Client(server.add("cam1", plain).url) as client:
            deaf.play()  # and read no more: the server blocks in sending
            wait_until(lambda: len(flood.sent) > 20 and time.monotonic() - flood.sent[-1].time > 0.2)
            start = time.monotonic()
            server.close()
            assert time.monotonic() - start < 2
            assert threading.enumerate() == before
            assert server.live == flood.live == 0
            assert len(list(client.pictures())) < 60
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.port))
        server.close()
    with RtspServer(port=server.port) as other:
        assert other.port == server.port


def test_a_closed_server_opens_again(rtsp: RtspServer, plain: Video) -> None:
    camera = rtsp.add("cam1", plain, speed=4)
    url = camera.url
    rtsp.close()
    with pytest.raises(av.error.ConnectionRefusedError, match="refused"):
        Client(url)
    rtsp.open()
    with Client(url) as client:
        assert numbers(client.take(3)) == [0, 1, 2]
    assert (camera.url, camera.connections) == (url, 1)
