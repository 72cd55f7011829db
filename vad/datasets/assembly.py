"""From what a file says about its videos to a benchmark: lengths, cuts, official sizes, one place for all importers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from vad.datasets.annotation import AnnotatedVideo, AnnotationError, Benchmark, Ends, intervals
from vad.datasets.conventions import RATE, TAIL, Reading

Unit = Literal["frames", "labels", "shares", "seconds"]
"""What written pairs count: frames; frames found from one label per frame; shares of the video; seconds."""

_LISTED = 5  # names in a message; a long list says how many more there are
_ENDS_IN_WORDS = {"matlab": "[s - 1, e)", "half-open": "[s, e)", "inclusive": "[s, e + 1)"}


@dataclass(frozen=True, slots=True)
class Written:
    """One video as its annotation file has it."""

    name: str
    where: str  # file and line
    pairs: Sequence[tuple[float, float]] = ()
    categories: tuple[str, ...] = ()  # none: normal
    frames: int | None = None
    fps: float | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """What all videos of an annotation share."""

    name: str
    about: str  # which file, which split
    unit: Unit = "frames"
    ends: Ends | None = None  # how its pairs are read; None: they are no one's to re-read
    fps: float | None = None
    videos: int | None = None  # of the official test set
    abnormal: int | None = None


def assemble(source: Source, found: Iterable[Written], reading: Reading, notes: Sequence[str] = ()) -> Benchmark:
    """Give every video its length and its half-open intervals. Raises AnnotationError."""
    listed = list(found)
    _refuse(source.name, listed)
    if reading.ends is not None and source.ends is None:
        raise AnnotationError(
            f"{source.name}: {source.about} has no written ends to read in another way; leave {reading.ends}-ends out"
        )
    if reading.length == "30fps" and source.unit == "labels":
        raise AnnotationError(
            f"{source.name}: {source.about} labels every frame, so nothing is left to be read as at 30 fps"
        )
    ends: Ends = reading.ends or source.ends or "half-open"
    lengths, of_lengths = _lengths(source.name, listed, reading)
    videos: list[AnnotatedVideo] = []
    cut_notes: list[str] = []
    for each in listed:
        length = lengths[each.name]
        pairs, lost = _frames(each, source.unit, length, reading)
        try:
            kept, cut = intervals(
                pairs,
                ends=ends,
                num_frames=length,
                category=each.categories[0] if len(each.categories) == 1 else None,
            )
        except AnnotationError as cause:
            raise AnnotationError(f"{each.where}: {each.name}: {cause}") from cause
        cut_notes += [f"{each.name}: {text}" for text in (*lost, *cut)]
        videos.append(AnnotatedVideo(each.name, length, kept, each.categories, _rate(each, reading)))
    written = source.ends is not None
    how = f"pairs s e read as {_ENDS_IN_WORDS[ends]}" + (f" ({ends}-ends)" if reading.ends else "") if written else ""
    return Benchmark(
        name=source.name,
        protocol="; ".join(filter(None, [source.about, how, reading.in_words()])),
        videos=tuple(videos),
        fps=RATE if reading.length == "30fps" else source.fps,
        notes=(*notes, *_size(source, videos), *of_lengths, *cut_notes),
    )


def listing(names: Sequence[str]) -> str:
    """The first few of some names, and how many there are.

    >>> listing(["a", "b"])
    'a, b'
    """
    more = f" … ({len(names)} in all)" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def count(name: str, reading: Reading) -> tuple[int | None, float | None]:
    """Frame count and rate that were given for a video."""
    given = (reading.frames or {}).get(name)
    return (None, None) if given is None else (given.frames, given.fps)


def no_split(name: str, split: str | None) -> None:
    """Raises AnnotationError when a split is asked of a benchmark that has one test set."""
    if split is not None:
        raise AnnotationError(f"{name} has one test set; --split {split} has no meaning for it")


def _lengths(name: str, listed: Sequence[Written], reading: Reading) -> tuple[dict[str, int], list[str]]:
    """The length of every video in use, and what has to be said about them."""
    true: dict[str, int] = {}
    for each in listed:
        given, _ = count(each.name, reading)
        if (frames := given or each.frames) is not None:
            true[each.name] = frames
    if reading.length == "x16":
        # a video without rows has no scores either: the aligner reports it, whatever its length
        rows = {each.name: reading.rows[each.name] for each in listed if each.name in reading.rows}
        if not all(rows.values()):
            raise AnnotationError(f"{name}: x16: no feature rows: {listing([one for one, n in rows.items() if not n])}")
        true = {**true, **{one: number * (reading.hop or 1) for one, number in rows.items()}}
    if missing := [each.name for each in listed if each.name not in true]:
        remedy = (
            "give --frames CSV of video,frames[,fps]"
            if reading.frames is None
            else "the list of frame counts lacks them; add them"
        )
        raise AnnotationError(f"{name}: no frame count for {len(missing)} videos: {listing(missing)}; {remedy}")
    if reading.length == "dropped-tail":
        if short := [one for one, frames in true.items() if frames < TAIL]:
            raise AnnotationError(
                f"{name}: dropped-tail leaves nothing of videos under {TAIL} frames: {listing(short)}"
            )
        true = {one: TAIL * (frames // TAIL) for one, frames in true.items()}
    if reading.length == "30fps":
        rates = {each.name: count(each.name, reading)[1] or each.fps for each in listed}
        if unknown := [one for one, rate in rates.items() if rate is None]:
            raise AnnotationError(
                f"{name}: 30fps needs the true frame rate, unknown for {len(unknown)} videos: {listing(unknown)}; "
                "give --frames CSV of video,frames,fps"
            )
        true = {one: max(round(frames / (rates[one] or RATE) * RATE), 1) for one, frames in true.items()}
    return true, _about_counts(listed, reading)


def _about_counts(listed: Sequence[Written], reading: Reading) -> list[str]:
    if reading.length == "x16":
        return []
    notes = []
    given = {each.name: count(each.name, reading)[0] for each in listed}
    other = [
        f"{each.name} ({given[each.name]}, not {each.frames})"
        for each in listed
        if each.frames is not None and given[each.name] not in (None, each.frames)
    ]
    if other:
        notes.append(f"frame counts given differ from those of the annotation: {listing(other)}")
    of_file = [each for each in listed if given[each.name] is None]
    if reading.frames is not None and of_file:
        notes.append(f"frame counts of the annotation itself used: {listing([each.name for each in of_file])}")
    if reading.length == "true" and len(of_file) >= 20 and all((each.frames or 1) % TAIL == 0 for each in of_file):
        notes.append(
            f"every frame count of the annotation is a multiple of {TAIL}: it was made with the tails dropped; "
            "give true counts to measure whole videos"
        )
    return notes


def _frames(each: Written, unit: Unit, length: int, reading: Reading) -> tuple[list[tuple[int, int]], list[str]]:
    """Pairs as frame numbers, and those that vanish at this length."""
    if unit in ("frames", "labels"):
        return [(int(start), int(end)) for start, end in each.pairs], []
    if unit == "shares":
        scale = float(length)
    else:
        rate = RATE if reading.length == "30fps" else count(each.name, reading)[1] or each.fps
        if rate is None:
            raise AnnotationError(f"{each.where}: {each.name}: intervals in seconds need its fps")
        scale = rate
    kept, lost = [], []
    for start, end in each.pairs:
        pair = round(start * scale), round(end * scale)
        if pair[0] < pair[1]:
            kept.append(pair)
        else:
            lost.append(f"{start:g}-{end:g} covers no frame at this length: left out")
    return kept, lost


def _rate(each: Written, reading: Reading) -> float | None:
    return RATE if reading.length == "30fps" else count(each.name, reading)[1] or each.fps


def _size(source: Source, videos: Sequence[AnnotatedVideo]) -> list[str]:
    notes = []
    if source.videos not in (None, len(videos)):
        notes.append(f"{len(videos)} videos; the official test set has {source.videos}")
    abnormal = sum(video.abnormal for video in videos)
    if source.abnormal not in (None, abnormal):
        notes.append(f"{abnormal} abnormal videos; the official test set has {source.abnormal}")
    return notes


def _refuse(name: str, listed: Sequence[Written]) -> None:
    if not listed:
        raise AnnotationError(f"{name}: the annotation lists no video")
    seen: dict[str, str] = {}
    for each in listed:
        if not each.name:
            raise AnnotationError(f"{each.where}: names no video")
        if each.frames is not None and each.frames < 1:
            raise AnnotationError(f"{each.where}: {each.name}: a frame count must be at least 1, got {each.frames}")
        if each.name in seen:
            raise AnnotationError(f"{each.where}: {each.name} is annotated already, at {seen[each.name]}")
        seen[each.name] = each.where
