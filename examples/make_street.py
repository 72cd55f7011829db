"""Make the two clips of ``make demo`` from OpenCV's sample clip ``vtest.avi``.

``street_normal.mp4`` is the last 48 seconds of the sample clip, made smaller. ``street_staged.mp4`` is the rest, with
one event that never took place: something dark is held before the camera, and most of the view is blocked. The event is
declared in the file's metadata, in ``street_staged.json`` and in ``NOTICE.md``; nothing is written into the picture.

    python examples/make_street.py vtest.avi examples
"""

from __future__ import annotations

import argparse
import json
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]

SIZE = (512, 384)
NORMAL, STAGED = slice(315, 795), slice(0, 315)  # frames of the sample clip
RATE = 10
EVENT = slice(240, 275)  # frames of the staged clip in which the view is blocked
WHAT = "staged: something dark is held before the camera and blocks most of the view"
SOURCE = "vtest.avi, sample clip of OpenCV (Debian package opencv-doc 4.6.0+dfsg), frames {0.start} to {1}"


def read(path: Path) -> list[Picture]:
    """All frames of a video, scaled to SIZE."""
    with av.open(str(path)) as container:
        scaled = (frame.reformat(*SIZE, format="rgb24") for frame in container.decode(video=0))
        return [cast(Picture, frame.to_ndarray()) for frame in scaled]


def blocked(picture: Picture, moment: float, random: np.random.Generator) -> Picture:
    """The picture with a dark, blurred thing in front of it; ``moment`` runs from 0 to 1 over the event."""
    height, width = picture.shape[:2]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    entered = min(1.0, moment / 0.15, (1 - moment) / 0.15)  # comes in and leaves from the left
    edge = width * (0.86 * entered + 0.01 * random.normal()) + 30 * np.sin(y / height * 3)
    cover = 1 / (1 + np.exp((x - edge) / 9))[..., None]  # out of focus: a soft edge
    glove = np.stack([46 + 14 * np.sin(x / 70 + y / 110), 40 + 11 * np.sin(x / 75), 38 + 9 * np.cos(y / 90)], axis=-1)
    seen = picture * (1 - cover) + glove * cover + random.normal(0, 1.5, picture.shape)
    return np.clip(seen, 0, 255).astype(np.uint8)


def write(path: Path, frames: list[Picture], *, title: str, comment: str) -> None:
    """H.264 in mp4 that starts to play before all of it is there."""
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        container.metadata.update({"title": title, "comment": comment})
        stream = container.add_stream("libx264", rate=RATE, options={"crf": "23", "preset": "slow"})
        stream.width, stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        for number, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def main() -> None:
    """Write both clips and the description of the event."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="vtest.avi")
    parser.add_argument("out", type=Path, help="folder for the clips")
    arguments = parser.parse_args()
    frames = read(arguments.source)
    normal, staged = frames[NORMAL], frames[STAGED]
    random = np.random.default_rng(0)
    for number in range(EVENT.start, EVENT.stop):
        moment = (number - EVENT.start + 0.5) / (EVENT.stop - EVENT.start)
        staged[number] = blocked(staged[number], moment, random)
    normal_source, staged_source = (SOURCE.format(part, part.stop - 1) for part in (NORMAL, STAGED))
    event: dict[str, Any] = {"start": EVENT.start / RATE, "end": EVENT.stop / RATE, "what": WHAT}
    comment = f"{WHAT}, {event['start']} s to {event['end']} s; source: {staged_source}"
    write(arguments.out / "street_normal.mp4", normal, title="street, normal", comment=normal_source)
    write(arguments.out / "street_staged.mp4", staged, title="street, with a STAGED event", comment=comment)
    text = json.dumps({"staged": True, "event": event, "source": staged_source}, indent=2)
    (arguments.out / "street_staged.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
