"""Which videos a run is about, and what each is called in the store."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vad.video import SUFFIXES, VideoError

_LISTS = {".txt", ".lst", ".list"}


@dataclass(frozen=True, slots=True)
class Job:
    """One video to extract."""

    name: str  # in the store: the path below the folder that was given, without suffix
    path: Path


def find_jobs(inputs: Sequence[Path]) -> list[Job]:
    """Files as given; all videos below a folder; the lines of a list (a text file).

    A line of a list is a path, relative to the list's folder, optionally followed by a tab and a name. Raises
    VideoError and FileNotFoundError; two different files of one name are refused.
    """
    jobs: list[Job] = []
    for path in inputs:
        if path.is_dir():
            found = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
            if not found:
                raise VideoError(f"{path}: no video in this folder; looked for {', '.join(sorted(SUFFIXES))}")
            jobs += [Job(_name(video.relative_to(path)), video) for video in found]
        elif path.suffix.lower() in _LISTS:
            jobs += _listed(path)
        elif path.exists():
            jobs.append(Job(_name(Path(path.name)), path))
        else:
            raise FileNotFoundError(f"{path}: no such file or folder")
    return _unambiguous(jobs)


def shard(jobs: Sequence[Job], part: str) -> list[Job]:
    """The share ``i/n`` (from 1) of the jobs, decided by name alone, so that n runs on one store never meet."""
    index, slash, count = part.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise ValueError(f"--shard must be i/n with 1 <= i <= n, got {part!r}")
    return [job for job in jobs if _number(job.name) % int(count) == int(index) - 1]


def _listed(path: Path) -> list[Job]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as cause:
        raise FileNotFoundError(f"{path}: no such file or folder") from cause
    except UnicodeDecodeError as cause:
        raise VideoError(f"{path}: is not a text file; give a list of paths, one a line") from cause
    jobs = []
    for line in lines:
        file, _, name = line.strip().partition("\t")
        if file and not file.startswith("#"):
            jobs.append(Job(name.strip() or _name(_below(Path(file))), path.parent / file))
    if not jobs:
        raise VideoError(f"{path}: lists no video; write one path a line")
    return jobs


def _below(path: Path) -> Path:
    """A relative path as it is; of others the file's own name."""
    return Path(path.name) if path.is_absolute() or ".." in path.parts else path


def _name(path: Path) -> str:
    return path.with_suffix("").as_posix()


def _unambiguous(jobs: list[Job]) -> list[Job]:
    taken: dict[str, Job] = {}
    for job in jobs:
        other = taken.setdefault(job.name, job)
        if other.path != job.path:
            raise VideoError(
                f"{other.path} and {job.path} would both be called {job.name!r}; give the folder above both, so that "
                "names carry the subfolder, or a list with a name after a tab"
            )
    return list(taken.values())


def _number(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
