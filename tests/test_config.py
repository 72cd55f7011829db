"""Settings: each mistake in a YAML file becomes one line that says where, what and what instead."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import Field, ValidationError

from vad.config import Config, ConfigError, Document, available, cache_dir, load, settings_class, to_yaml


class Smoothing(Config):
    half_life: float = Field(1.0, gt=0)
    kind: Literal["ema", "none"] = "ema"


class Settings(Config):
    name: str
    hop: int = Field(16, ge=1)
    size: tuple[int, int] = (224, 224)
    smoothing: Smoothing = Smoothing()


def write(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(document: Document, settings: type[Config] = Settings) -> list[str]:
    """The lines of the message, without the folder."""
    with pytest.raises(ConfigError, match=r"config\.yaml:") as raised:
        document.validate(settings, document.data)
    return str(raised.value).replace(f"{Path(document.name).parent}/", "").splitlines()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a\nhopp: 8\n", 'config.yaml:2:1 hopp: unknown key, did you mean "hop"?'),
        ("name: a\nzzz: 8\n", "config.yaml:2:1 zzz: unknown key, known keys: name, hop, size, smoothing"),
        (
            "name: a\nsmoothing:\n    kind: ema\n    halflife: 2\n",
            'config.yaml:4:5 smoothing.halflife: unknown key, did you mean "half_life"?',
        ),
        ("name: a\nhop: 0\n", "config.yaml:2:1 hop: input should be greater than or equal to 1, got 0"),
        (
            "smoothing: {half_life: -2.0}\nname: a\n",
            "config.yaml:1:13 smoothing.half_life: input should be greater than 0, got -2.0",
        ),
        (
            "name: a\nsmoothing:\n  kind: box\n",
            "config.yaml:3:3 smoothing.kind: input should be 'ema' or 'none', got 'box'",
        ),
        (
            "name: a\nsize: [224, wide]\n",
            "config.yaml:2:1 size.1: input should be a valid integer, unable to parse string as an integer, got 'wide'",
        ),
        ("name: a\nsize: [224]\n", "config.yaml:2:1 size.1: this key is required"),
        ("hop: 8\n", "config.yaml: name: this key is required"),
    ],
)
def test_a_mistake_is_shown_with_its_place(text: str, message: str, tmp_path: Path) -> None:
    assert refusal(Document.read(write(tmp_path, text))) == [message]


def test_every_mistake_is_shown_at_once(tmp_path: Path) -> None:
    lines = refusal(Document.read(write(tmp_path, "hop: 0\nsmoothing:\n  half_life: x\n  span: 3\n")))
    assert [line.partition(" ")[0] for line in lines] == [
        "config.yaml:",
        "config.yaml:1:1",
        "config.yaml:3:3",
        "config.yaml:4:3",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: [1, 2\n", r"config\.yaml:3:1: not valid YAML: expected ',' or ']'"),
        ("a:\n  b: 1\n   c: 2\n", r"config\.yaml:3:5: not valid YAML: mapping values are not allowed"),
        ("a: 1\n\tb: 2\n", r"config\.yaml:2:1: not valid YAML: found character '\\t'"),
        ("hop: 8\nname: x\nhop: 16\n", r'config\.yaml:3:1: not valid YAML: found duplicate key "hop"'),
        ("a:\n  b: 1\n  b: 2\n", r'config\.yaml:3:3: not valid YAML: found duplicate key "b"'),
        ("a: *nowhere\n", r"config\.yaml:1:4: not valid YAML: found undefined alias 'nowhere'"),
        ("a: 1\n---\nb: 2\n", r"config\.yaml:2:1: not valid YAML: but found another document"),
        ("a: \x07\n", r"config\.yaml: not valid YAML: unacceptable character #x0007[^\n]*$"),
        ("a: " + "[" * 1000, r"config\.yaml: nested too deeply"),
        ("", r"config\.yaml: the top level must be a mapping of sections"),
        ("- 1\n- 2\n", r"config\.yaml: the top level must be a mapping of sections"),
    ],
)
def test_what_is_not_yaml_is_refused_with_its_place(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        Document.read(write(tmp_path, text))


def test_what_is_not_a_config_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder; give a YAML file"):
        Document.read(tmp_path)
    with pytest.raises(ConfigError, match=r"absent\.yaml: no such config file; shipped ones lie in .*configs"):
        Document.read(tmp_path / "absent.yaml")
    (tmp_path / "video.mp4").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(ConfigError, match=r"video\.mp4: not a text file"):
        Document.read(tmp_path / "video.mp4")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", "on"),
        ("off", "off"),
        ("yes", "yes"),
        ("no", "no"),
        ("true", True),
        ("&anchor false", False),
        ("010", 10),
        ("1e-3", 1e-3),
        ("29.97", 29.97),
        ("null", None),
        ("'8'", "8"),
        ("[1, {b: on}]", [1, {"b": "on"}]),
    ],
)
def test_yaml_values(text: str, value: Any, tmp_path: Path) -> None:
    found = Document.read(write(tmp_path, f"on: {text}\n")).data
    assert found == {"on": value}
    assert type(found["on"]) is type(value)
    assert Document("settings", {}, {}).override([f"on={text}"]).data == {"on": value}


def test_merged_sections_keep_the_place_that_is_known(tmp_path: Path) -> None:
    text = "name: a\nsmoothing: &s {half_life: 2.0}\nother:\n  <<: *s\n  kind: box\n"
    document = Document.read(write(tmp_path, text))
    assert document.data["other"] == {"kind": "box", "half_life": 2.0}
    assert document.place(["other", "kind"]).endswith("config.yaml:5:3 other.kind")
    assert document.place(["other", "half_life"]).endswith("config.yaml:3:1 other.half_life")


def test_overrides_are_read_as_yaml_and_leave_the_file_as_it_was(tmp_path: Path) -> None:
    document = Document.read(write(tmp_path, "name: a\nsize: [1, 2]\nsmoothing:\n  half_life: 1.0\n"))
    changed = document.override(["hop=4", "smoothing.half_life=2.5", "size=[320, 240]", "new.deep.key=off", "name="])
    assert changed.data == {
        "name": None,
        "size": [320, 240],
        "smoothing": {"half_life": 2.5},
        "hop": 4,
        "new": {"deep": {"key": "off"}},
    }
    assert document.data == {"name": "a", "size": [1, 2], "smoothing": {"half_life": 1.0}}


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("hop", "cannot read override 'hop'; write section.key=value"),
        ("=4", "cannot read override '=4'; write section.key=value"),
        ("a..b=4", "cannot read override 'a..b=4'; write section.key=value"),
        ("hop=[4", "cannot read the value of override 'hop=[4' as YAML"),
        ("name.first=x", "cannot set name.first: name is not a section"),
    ],
)
def test_overrides_that_cannot_be_read(assignment: str, message: str, tmp_path: Path) -> None:
    document = Document.read(write(tmp_path, "name: a\n"))
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        document.override([assignment])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "extractor:\n  kind: colur\n",
            r"config\.yaml:2:3 extractor\.kind: unknown extractors kind 'colur'; "
            r'available: .*colour.*, i3d.*; did you mean "colour"\?',
        ),
        ("extractor:\n  kind: zzz\n", r"unknown extractors kind 'zzz'; available: \w+(, \w+)+$"),
        ("extractor:\n  kind: _padding\n", "unknown extractors kind '_padding'; available: "),
        ("extractor:\n  kind: [i3d]\n", r"unknown extractors kind \['i3d'\]; available: "),
        ("extractor:\n  hop: 4\n", r"config\.yaml:1:1 extractor: needs a 'kind'; available: .*colour"),
        ("extractor: i3d\n", r"config\.yaml:1:1 extractor: needs a 'kind'; available: .*colour"),
        ("head:\n  kind: memory\n", r"config\.yaml: section 'extractor' is missing"),
        (
            "extractor:\n  kind: colour\n  clip_frame: 4\n",
            r'config\.yaml:3:3 extractor\.clip_frame: unknown key, did you mean "clip_frames"\?',
        ),
    ],
)
def test_components_are_chosen_by_kind(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        Document.read(write(tmp_path, text)).component("extractors", "extractor")


def test_a_component_takes_its_own_defaults(tmp_path: Path) -> None:
    document = Document.read(write(tmp_path, "extractor:\n  kind: colour\n  hop: 4\n"))
    settings = document.component("extractors", "extractor")
    assert settings == load("extractors", {"kind": "colour", "hop": 4})
    assert isinstance(settings, settings_class("extractors", "colour"))
    assert Document.read(write(tmp_path, "name: a\n")).component(
        "extractors", "extractor", default={"kind": "colour"}
    ) == load("extractors", {"kind": "colour"})


def test_available_kinds_are_the_public_files() -> None:
    kinds = available("extractors")
    assert {"colour", "efficientnet_lite", "i3d"} <= set(kinds)
    assert not any(kind.startswith("_") for kind in kinds)


def test_a_component_imports_its_own_file_only() -> None:
    code = (
        "import sys; from vad.config import load; load('extractors', {'kind': 'colour'})\n"
        "print(*(name for name in sys.modules if name.startswith('extractors.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["extractors.colour"]


def test_settings_are_frozen_and_their_defaults_checked() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Smoothing().half_life = 2.0  # type: ignore[misc]

    class Wrong(Config):
        hop: int = Field(0, ge=1)

    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        Wrong()


def test_yaml_survives_a_round_trip(tmp_path: Path) -> None:
    data = {"zeta": {"kind": "off", "values": [1, 2.5, None, True]}, "alpha": "29.97", "empty": {}}
    text = to_yaml(data)
    assert Document.read(write(tmp_path, text)).data == data
    assert text.index("zeta") < text.index("alpha")


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VAD_CACHE", str(tmp_path / "own"))
    assert cache_dir() == tmp_path / "own"
    monkeypatch.delenv("VAD_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "vadwatch"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_dir() == tmp_path / ".cache" / "vadwatch"
