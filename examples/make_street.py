"""Make the two clips of ``make demo`` from OpenCV's sample clip ``vtest.avi``.

``street_normal.mp4`` is the last 48 seconds of the sample clip, re-encoded and made smaller: in them people stroll over
the lawn, so that this is normal. ``street_staged.mp4`` is the rest, with one event that never took place: a
pedestrian, cut out of the other part, is pasted in and runs across the lawn and the road at about five times walking pace. The event is declared in the file's metadata, in
``street_staged.json`` and in ``NOTICE.md``; nothing is written into the picture.

    python examples/make_street.py vtest.avi examples

Every frame of both clips takes the same way through RGB and back, so that the pasted runner is all that sets the
frames of the event apart.
"""

import argparse
import json
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
Picture = NDArray[np.uint8]

SOURCE_FRAMES, SOURCE_WIDTH, SOURCE_HEIGHT = 795, 768, 576
NORMAL_PART, STAGED_PART = (315, 795), (0, 315)  # first frame, and one past the last
BACKGROUND_STEP = 12  # every so many frames one goes into the median background

# The ground as a plane, fitted to how tall people appear in each row, if they are 1.72 m tall on average.
HORIZON_Y = -76.0
PIXELS_PER_METRE = 0.142  # per row below the horizon
FOCAL_PX = 1144.0  # assumed: a horizontal field of view of 37 degrees
LAMP_POST_X, LAMP_POST_FOOT_Y = (427, 439), 392  # the one thing of the scene that stands in front of the runner

# The runner: one pedestrian in profile, over one walking cycle of the normal part, cut out of a box that follows him.
CYCLE_FRAMES = (390, 392, 394, 396, 398)
CYCLE_BOX = (610.0, 274.0, 692.0, 407.0)  # left, top, right, bottom in the first of them
CYCLE_DRIFT = (6.25, 1.7)  # pixels that the box moves per frame, across and down
DIFFERENCE_RANGE = (18.0, 44.0)  # difference to the background, from fully clear to fully solid
SHADOW_DIFFERENCE = 24.0  # what the shadow about the feet adds to it, in the lowest third of the box
LEAN = 0.10  # forward, as a runner does: pixels across per pixel of height

# The event: from beyond the left edge to beyond the right one, in a straight line over the ground.
EVENT_FRAME = 254
EVENT_FROM, EVENT_TO = (-14.0, 563.0), (786.0, 221.0)  # where the feet are
METRES_PER_FRAME = 0.6  # pedestrians of this clip make 0.10 to 0.17

SOURCE_TEXT = "vtest.avi, sample clip of OpenCV (Debian package opencv-doc 4.6.0+dfsg), frames {first} to {last}"
EVENT_TEXT = "staged: a pasted-in pedestrian runs across lawn and road at about five times walking pace"


class Cutout(NamedTuple):
    """One pose of the runner: colours times alpha, alpha, the point between the feet, pixels per metre."""

    colour: FloatArray
    alpha: FloatArray
    foot: tuple[float, float]
    scale: float


class Step(NamedTuple):
    """Where the runner's feet are in one frame, and how many pixels make a metre there."""

    foot: tuple[float, float]
    scale: float


def read_frames(path: Path) -> list[Picture]:
    """Decode the whole sample clip, and refuse any other file."""
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24").astype(np.uint8) for frame in container.decode(video=0)]
    if len(frames) != SOURCE_FRAMES or frames[0].shape != (SOURCE_HEIGHT, SOURCE_WIDTH, 3):
        raise SystemExit(f"{path}: not the {SOURCE_FRAMES} frames of vtest.avi")
    return frames


def read_rate(path: Path) -> Fraction:
    """Frames per second of the sample clip."""
    with av.open(str(path)) as container:
        return Fraction(container.streams.video[0].average_rate or 10)


def median_background(frames: list[Picture]) -> FloatArray:
    """The scene without its people: the median of every pixel over the clip."""
    return np.asarray(np.median(np.stack(frames[::BACKGROUND_STEP]), axis=0), dtype=np.float32)


def blurred(image_HW: FloatArray, radius: int) -> FloatArray:
    """Smooth with a triangle that reaches ``radius`` pixels either way."""
    weights = np.bartlett(2 * radius + 3)[1:-1]
    weights /= weights.sum()
    for axis in (0, 1):
        image_HW = np.apply_along_axis(np.convolve, axis, np.pad(image_HW, radius, mode="edge"), weights, "same")
        image_HW = image_HW[radius:-radius, radius:-radius]
    return np.asarray(image_HW, dtype=np.float32)


def shifted_extreme(image_HW: FloatArray, *, largest: bool) -> FloatArray:
    """The largest (or smallest) value of each 3x3 neighbourhood."""
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(image_HW, 1, mode="edge"), (3, 3))
    return np.asarray(windows.max(axis=(2, 3)) if largest else windows.min(axis=(2, 3)), dtype=np.float32)


def closed(image_HW: FloatArray, times: int) -> FloatArray:
    """Fill holes and gaps up to twice ``times`` pixels wide."""
    for largest in (True, False):
        for _ in range(times):
            image_HW = shifted_extreme(image_HW, largest=largest)
    return image_HW


def reached_from(seed_HW: NDArray[np.bool_], solid_HW: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The part of ``solid_HW`` connected with the seed: what belongs to the person and not to the noise around."""
    reached = seed_HW & solid_HW
    while True:
        grown = shifted_extreme(reached.astype(np.float32), largest=True).astype(bool) & solid_HW
        if np.array_equal(grown, reached):
            return reached
        reached = grown


def pixels_per_metre(foot_y: float) -> float:
    """How many pixels make a metre where something stands on row ``foot_y``."""
    return PIXELS_PER_METRE * (foot_y - HORIZON_Y)


def cut_out(frame: Picture, background: FloatArray, box: tuple[float, float, float, float]) -> Cutout:
    """Cut the person in a box out of a frame, with a soft edge."""
    left, top, right, bottom = (round(edge) for edge in box)
    colour_HWC = frame[top:bottom, left:right].astype(np.float32)
    difference_HW = np.abs(colour_HWC - background[top:bottom, left:right]).max(axis=2)
    low, high = DIFFERENCE_RANGE
    difference_HW[-len(difference_HW) // 3 :] -= SHADOW_DIFFERENCE
    alpha_HW = closed(np.clip((blurred(difference_HW, 1) - low) / (high - low), 0.0, 1.0), 1)
    seed_HW = np.zeros(alpha_HW.shape, dtype=bool)
    seed_HW[alpha_HW.shape[0] // 2, alpha_HW.shape[1] // 4 : -alpha_HW.shape[1] // 4] = True
    person_HW = reached_from(seed_HW, alpha_HW > 0.3)
    alpha_HW = blurred(shifted_extreme(alpha_HW * person_HW, largest=False), 1)
    rows, columns = np.nonzero(person_HW)
    trunk = columns[rows < rows.min() + 0.5 * np.ptp(rows)]
    foot = (float(trunk.mean()), float(rows.max()))
    return Cutout(colour_HWC * alpha_HW[..., None], alpha_HW, foot, pixels_per_metre(top + foot[1]))


def walking_cycle(frames: list[Picture], background: FloatArray) -> list[Cutout]:
    """The poses of the runner, in order."""
    poses = []
    for index in CYCLE_FRAMES:
        across, down = ((index - CYCLE_FRAMES[0]) * drift for drift in CYCLE_DRIFT)
        left, top, right, bottom = CYCLE_BOX
        poses.append(cut_out(frames[index], background, (left + across, top + down, right + across, bottom + down)))
    return poses


def on_ground(foot: tuple[float, float]) -> NDArray[np.float64]:
    """The place on the ground, in metres across and away, of a point of the picture."""
    scale = pixels_per_metre(foot[1])
    return np.array([(foot[0] - SOURCE_WIDTH / 2) / scale, FOCAL_PX / scale])


def in_picture(place: NDArray[np.float64]) -> Step:
    """The point of the picture where a place on the ground is seen, and its scale."""
    scale = FOCAL_PX / float(place[1])
    return Step((SOURCE_WIDTH / 2 + float(place[0]) * scale, HORIZON_Y + scale / PIXELS_PER_METRE), scale)


def event_path() -> list[Step]:
    """One step per frame of the event, at a constant pace over the ground."""
    start, end = on_ground(EVENT_FROM), on_ground(EVENT_TO)
    steps = int(np.hypot(*(end - start)) / METRES_PER_FRAME)
    return [in_picture(start + (end - start) * index / steps) for index in range(steps)]


def sampled(image: FloatArray, x_HW: FloatArray, y_HW: FloatArray) -> FloatArray:
    """Read an image between its pixels, zero outside."""
    padded = np.pad(image, ((1, 2), (1, 2)) + ((0, 0),) * (image.ndim - 2))
    x_HW = np.clip(x_HW + 1, 0, padded.shape[1] - 2)
    y_HW = np.clip(y_HW + 1, 0, padded.shape[0] - 2)
    left, top = x_HW.astype(int), y_HW.astype(int)
    across, down = x_HW - left, y_HW - top
    if image.ndim == 3:
        across, down = across[..., None], down[..., None]
    upper = padded[top, left] * (1 - across) + padded[top, left + 1] * across
    lower = padded[top + 1, left] * (1 - across) + padded[top + 1, left + 1] * across
    return np.asarray(upper * (1 - down) + lower * down, dtype=np.float32)


def pasted(frame: Picture, pose: Cutout, step: Step) -> Picture:
    """A frame with the runner in it, at the size that a person has at that place."""
    zoom = step.scale / pose.scale
    y_HW, x_HW = np.mgrid[0:SOURCE_HEIGHT, 0:SOURCE_WIDTH].astype(np.float32)
    source_y_HW = (y_HW - step.foot[1]) / zoom + pose.foot[1]
    source_x_HW = (x_HW - step.foot[0]) / zoom + pose.foot[0] - LEAN * (pose.foot[1] - source_y_HW)
    visible_HW1 = np.ones((SOURCE_HEIGHT, SOURCE_WIDTH, 1), dtype=np.float32)
    if step.foot[1] < LAMP_POST_FOOT_Y:
        visible_HW1[:LAMP_POST_FOOT_Y, slice(*LAMP_POST_X)] = 0.0
    alpha_HW1 = sampled(pose.alpha, source_x_HW, source_y_HW)[..., None] * visible_HW1
    colour_HWC = sampled(pose.colour, source_x_HW, source_y_HW) * visible_HW1
    return np.asarray(np.clip(np.rint(frame * (1 - alpha_HW1) + colour_HWC), 0, 255), dtype=np.uint8)


def staged_frames(frames: list[Picture], path: list[Step]) -> Iterator[Picture]:
    """The second part of the clip, the runner pasted in."""
    poses = walking_cycle(frames, median_background(frames))
    for index in range(*STAGED_PART):
        since = index - EVENT_FRAME
        inside = 0 <= since < len(path)
        yield pasted(frames[index], poses[since % len(poses)], path[since]) if inside else frames[index]


def encode(path: Path, frames: Iterable[Picture], rate: Fraction, width: int, crf: int, tags: dict[str, str]) -> None:
    """Write an H.264 file that starts to play before it is read to its end."""
    options = {"movflags": "+faststart", "fflags": "+bitexact"}
    with av.open(str(path), "w", format="mp4", options=options) as container:
        container.metadata.update(tags)
        stream: Any = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, width * SOURCE_HEIGHT // SOURCE_WIDTH, "yuv420p"
        stream.options = {"crf": str(crf), "preset": "veryslow", "threads": "1", "g": "100"}
        for index, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame = frame.reformat(stream.width, stream.height, "yuv420p", interpolation="AREA")
            frame.pts, frame.time_base = index, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def write_sidecar(path: Path, event: tuple[Fraction, Fraction], source: str) -> None:
    """Say in JSON what was staged and when: seconds of the file, the end excluded."""
    start, end = (round(float(edge), 3) for edge in event)
    content = {"staged": True, "event": {"start": start, "end": end, "what": EVENT_TEXT}, "source": source}
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def make(source: Path, out: Path, width: int, crf: int) -> None:
    """Write both clips and the sidecar."""
    frames, rate, path = read_frames(source), read_rate(source), event_path()
    normal_source, staged_source = (
        SOURCE_TEXT.format(first=first, last=stop - 1) for first, stop in (NORMAL_PART, STAGED_PART)
    )
    since = EVENT_FRAME - STAGED_PART[0]
    event = since / rate, (since + len(path)) / rate
    out.mkdir(parents=True, exist_ok=True)
    encode(
        out / "street_normal.mp4", frames[slice(*NORMAL_PART)], rate, width, crf,
        {"title": "Street, normal", "comment": f"{normal_source}; re-encoded, nothing added"},
    )  # fmt: skip
    encode(
        out / "street_staged.mp4", staged_frames(frames, path), rate, width, crf,
        {
            "title": "Street, with one STAGED event",
            "comment": f"{EVENT_TEXT}, {float(event[0]):g} s to {float(event[1]):g} s; {staged_source}",
        },
    )  # fmt: skip
    write_sidecar(out / "street_staged.json", event, staged_source)


def main() -> None:
    """Read the command line and make the clips."""
    parser = argparse.ArgumentParser(description="Make the demo's two clips from OpenCV's sample clip vtest.avi.")
    parser.add_argument("source", type=Path, help="path of vtest.avi")
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("--width", type=int, default=512, help="width of the clips in pixels (default: 512)")
    parser.add_argument("--crf", type=int, default=22, help="x264's constant rate factor (default: 22)")
    arguments = parser.parse_args()
    make(arguments.source, arguments.out, arguments.width, arguments.crf)


if __name__ == "__main__":
    main()
