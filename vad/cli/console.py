"""How the command speaks: messages on stderr, exit codes, progress."""

from __future__ import annotations

import contextlib
import functools
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec

import typer

INPUT, WORLD = 2, 1  # exit codes: something about the input; something about the machine
Parameters = ParamSpec("Parameters")


def say(message: str) -> None:
    """One line for a person, on stderr."""
    print(message, file=sys.stderr)  # noqa: T201


def guarded(command: Callable[Parameters, int]) -> Callable[Parameters, None]:
    """Turn a command's result and its expected errors into an exit code and one clear sentence."""

    @functools.wraps(command)
    def run(*args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
        warnings.showwarning = _show_warning
        try:
            code = command(*args, **kwargs)
        except (OSError, ValueError, MemoryError) as error:
            code = report(error)
        except KeyboardInterrupt:
            say("vad: interrupted; finished results are kept")
            code = 130
        raise typer.Exit(code)

    return run


def report(error: BaseException) -> int:
    """Say what went wrong; the exit code for it."""
    if isinstance(error, OSError):
        if error.strerror and error.filename is not None:
            say(f"vad: {error.filename}: {error.strerror}{hint(error.errno)}")
        else:
            say(f"vad: {error}{hint(error.errno)}")
        # our own messages about missing input have no errno; the system's come from writing
        return INPUT if isinstance(error, FileNotFoundError) and error.errno is None else WORLD
    if isinstance(error, MemoryError):
        say("vad: out of memory; use a smaller extractor.size or head.fit_memory_mb")
        return WORLD
    for line in str(error).splitlines():
        say(f"vad: {line}")
    return INPUT


def hint(number: int | None) -> str:
    """What to do about an error of the system, to be put behind its message."""
    import errno

    return {
        errno.ENOSPC: "; free some space and run it again",
        errno.EFBIG: "; free some space and run it again",
        errno.EACCES: "; choose another folder or change its permissions",
        errno.EROFS: "; choose another folder",
        errno.ENOTDIR: "; choose another folder",
        errno.EEXIST: "; choose another folder",
    }.get(number or 0, "")


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    say(f"vad: {message}")


class Progress:
    """Frames read so far, frames per second and time left; silent when ``quiet`` or not on a terminal."""

    def __init__(self, total_frames: int, *, quiet: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("frames"),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=quiet,
            transient=True,
        )
        self._task = self._bar.add_task("", total=total_frames or None, rate="")

    def advance(self, name: str, frames: int) -> None:
        """``frames`` more of video ``name`` have been read."""
        speed = self._bar.tasks[0].speed
        self._bar.update(self._task, advance=frames, description=name, rate=f"{speed:.0f} frames/s" if speed else "")


@contextlib.contextmanager
def progress(total_frames: int, *, quiet: bool) -> Iterator[Progress]:
    """A progress bar for the length of a block."""
    bar = Progress(total_frames, quiet=quiet)
    with bar._bar:
        yield bar
