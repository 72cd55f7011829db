"""ShanghaiTech Campus, 24 fps, under one of two splits that are not comparable.

Luo, Liu, Gao. "A Revisit of Sparse Coding Based Anomaly Detection in Stacked RNN Framework", ICCV 2017. The authors'
``test_frame_mask/01_0014.npy`` has one label per frame, 0 or 1, for each of the 107 test videos.

- ``one-class``: those 107 videos; training is on normal videos only.
- ``weak``: the 199 test videos of Zhong et al. (CVPR 2019, https://arxiv.org/abs/1903.07256), 44 of the 107 and 155
  of the original training videos. Their list is needed, in the folder or as the path with ``test_frame_mask`` beside
  it: ``SH_Test_NEW.txt`` of MIST (``01_001,0,764``), a list of RTFM (``…/01_0015_i3d.npy``), or names alone. A video
  without mask is normal, and needs a frame count, unless the list has it. The third number of MIST's lines is only used
  for normal videos: on abnormal lines it repeats the line before.

The list forms were checked against the files of MIST and RTFM; the masks as described in public loaders.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from vad.datasets.annotation import AnnotationError, Benchmark
from vad.datasets.assembly import Source, Written, assemble
from vad.datasets.conventions import Reading
from vad.datasets.files import array, list_of_tests, names, runs, whole

_MASKS = "test_frame_mask"


def read(name: str, path: Path, split: str | None, reading: Reading) -> Benchmark:
    """The test set of a split. Raises AnnotationError, FileNotFoundError."""
    if split not in ("one-class", "weak"):
        raise AnnotationError(
            f"{name} needs --split one-class (107 test videos) or weak (199): they test on different videos and train "
            f"on different labels, so their numbers are never compared; got {split!r}"
        )
    root = path.parent if path.is_file() else path
    masks = _masks(root)
    if split == "one-class":
        source = Source(name, "one-class split, a label per frame", unit="labels", fps=24, videos=107)
        return assemble(source, (_video(each, masks[each]) for each in sorted(masks)), reading)
    listed = path if path.is_file() else list_of_tests(root)
    if listed is None:
        raise FileNotFoundError(f"{root}: holds no test list (*test*.txt or .list), which --split weak needs")
    source = Source(name, "weak split, a label per frame", unit="labels", fps=24, videos=199, abnormal=44)
    return assemble(source, _weak(listed, masks), reading)


def _masks(root: Path) -> dict[str, Path]:
    for folder in (root / _MASKS, root / "testing" / _MASKS, root):
        if found := sorted(folder.glob("*.npy")):
            return {each.stem: each for each in found}
    raise FileNotFoundError(f"{root}: holds no {_MASKS} with a .npy per video")


def _video(name: str, path: Path) -> Written:
    labels = array(path)
    return Written(name, str(path), runs(labels, str(path)), frames=labels.size)


def _weak(path: Path, masks: dict[str, Path]) -> Iterator[Written]:
    for where, name, rest in names(path):
        if name in masks:
            yield _video(name, masks[name])
            continue
        if re.search(r"_\d{4}$", name) or rest[:1] == ["1"]:
            raise AnnotationError(f"{where}: {name} is a test video of the dataset, but {_MASKS} has no {name}.npy")
        yield Written(name, where, frames=whole(rest[1], where, "a frame count") if len(rest) > 1 else None)
