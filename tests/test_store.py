"""The store, on SQLite and on a real PostgreSQL server: nothing lost, nothing twice, nothing out of order."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("sqlalchemy", reason="the store needs vadwatch[live]")

import sqlalchemy as sa

from streaming.messages import Event, Feedback, event_id
from streaming.store import Limits, Retention, Second, Store, StoreError, StoreFullError, schema

NOW = 1781258391.25
DAY = 86400.0
QUICK = Limits(busy_timeout=0.2, patience=0.1, first_delay=0.05, longest_delay=0.1)


def event(start=NOW, **changes):
    values = {"id": event_id(start), "camera": "dock", "severity": "detection", "start_time": start}
    values |= {"frame_time": start, "score": 0.7, "top_score": 0.7, "top_score_time": start}
    return Event.model_validate(values | changes)


def ended(one, after=5.0, why="normal"):
    return one.model_copy(update={"end_time": one.start_time + after, "end_reason": why})


def tell(store, one, kinds="nue", at=NOW):
    """Publish new, updates and end of one event without waiting."""
    kind = {"n": "new", "u": "update", "e": "end"}
    return [store.publish(kind[k], ended(one) if k == "e" else one, at=at) for k in kinds]


def everything(store):
    found = store.replay(0, limit=100_000)
    return [(entry.position, entry.message) for entry in found]


def check_life_cycles(messages, *, all_ended=True):
    """Per id: seq 1..n, new first, each before is the after that was told last, and exactly one end, the last."""
    told = {}
    for message in messages:
        told.setdefault(message.after.id, []).append(message)
    for life in told.values():
        assert [m.seq for m in life] == list(range(1, len(life) + 1))
        assert [m.before for m in life] == [None, *(m.after for m in life[:-1])]
        kinds = [m.type for m in life]
        assert kinds[0] == "new"
        assert kinds.count("new") == 1
        assert "end" not in kinds[:-1]
        assert not all_ended or kinds[-1] == "end"
    return told


def wait_for(condition, seconds=20.0):
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "did not come true in time"
        time.sleep(0.02)


# --- servers ---------------------------------------------------------------------------------------------------------


def program(name):
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(found[-1]) if found else shutil.which(name)


class Postgres:
    """A server of our own on a unix socket in a temporary folder."""

    def __init__(self, folder):
        self.folder, self.databases = folder, 0
        self.user = "postgres" if os.geteuid() == 0 else None  # it refuses to run as root
        if self.user:
            shutil.chown(folder, self.user)
        self.run("initdb", "-D", f"{folder}/data", "-U", "vad", "-A", "trust", "--no-sync")
        self.start()

    def run(self, name, *arguments):
        command = [program(name), *arguments]
        subprocess.run(command, check=True, user=self.user, cwd=self.folder, stdout=subprocess.DEVNULL, timeout=60)

    def start(self):
        options = f"-k {self.folder} -c listen_addresses='' -c fsync=off"
        self.run("pg_ctl", "-D", f"{self.folder}/data", "-l", f"{self.folder}/log", "-o", options, "-w", "start")

    def stop(self):
        self.run("pg_ctl", "-D", f"{self.folder}/data", "-m", "immediate", "-w", "stop")

    def database(self):
        self.databases += 1
        self.run("createdb", "-h", str(self.folder), "-U", "vad", f"store{self.databases}")
        return f"postgresql://vad@/store{self.databases}?host={self.folder}"


@pytest.fixture(scope="module")
def postgres():
    if not (program("pg_ctl") and program("initdb")):
        pytest.skip("no PostgreSQL server; on Debian: apt-get install postgresql")
    pytest.importorskip("psycopg", reason="PostgreSQL needs its driver: pip install 'vadwatch[postgres]'")
    with tempfile.TemporaryDirectory(prefix="vad-pg-") as folder:  # a short path: a socket's may have 107 characters
        server = Postgres(Path(folder))
        yield server
        server.stop()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'vad.db'}"
    return request.getfixturevalue("postgres").database()


@pytest.fixture
def file_url(tmp_path):
    return f"sqlite:///{tmp_path / 'vad.db'}"


@pytest.fixture
def opened():
    """Opens stores and closes them after the test."""
    with contextlib.ExitStack() as stack:

        def open_store(url, **options):
            store = Store.open(url, **options)
            stack.callback(store.close)
            return store

        yield open_store


@contextlib.contextmanager
def locked(url):
    """Another connection holds the database's write lock."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            connection.connection.dbapi_connection.isolation_level = None
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.execute(sa.text("LOCK TABLE writers, events, scores IN EXCLUSIVE MODE"))
        yield
        connection.rollback()


# --- events and their messages ---------------------------------------------------------------------------------------


def test_an_event_and_its_messages(url, opened):
    store = opened(url, node="site1-a", sinks=["mqtt"])
    one = event()
    first, second, last = (future.result() for future in tell(store, one))
    assert [e.message.type for e in (first, second, last)] == ["new", "update", "end"]
    assert [(e.position, e.seq, e.event_id, e.created) for e in (first, second, last)] == [
        (1, 1, one.id, NOW),
        (2, 2, one.id, NOW),
        (3, 3, one.id, NOW),
    ]
    assert store.replay(0) == [first, second, last]
    assert first.message.node == "site1-a"
    assert store.event(one.id) == last.message.after == ended(one)
    assert store.event("1.000000-aaaaaa") is None


def test_what_the_life_cycle_forbids_reaches_its_caller_and_nobody_else(url, opened):
    store = opened(url)
    one, other = event(), event()
    futures = [*tell(store, one, "nn"), *tell(store, other, "u"), *tell(store, one, "ee"), *tell(store, other, "n")]
    causes = [future.exception() for future in futures]
    assert [type(cause) for cause in causes] == [type(None), ValueError, ValueError, type(None), ValueError, type(None)]
    assert [(p, m.type) for p, m in everything(store)] == [(1, "new"), (2, "end"), (3, "new")]


def test_what_people_say_stays_and_is_told_while_the_event_is_open(url, opened):
    store = opened(url)
    one = event()
    tell(store, one, "n")
    said = Feedback(verdict="false_positive", note="a cat")
    store.amend(one.id, at=NOW, false_positive=True, feedback=said).result()
    tell(store, one, "ue")[-1].result()
    store.amend(one.id, at=NOW, retain_indefinitely=True, has_clip=True).result()
    assert [m.type for _, m in everything(store)] == ["new", "update", "update", "end"]
    found = store.event(one.id)
    assert (found.false_positive, found.feedback, found.retain_indefinitely, found.has_clip) == (True, said, True, True)
    with pytest.raises(LookupError, match=r"no event 1\.0"):
        store.amend("1.000000-aaaaaa", at=NOW, has_clip=True).result()


def test_listing(url, opened):
    store = opened(url)
    events = [
        event(
            NOW + i,
            camera="ab"[i % 2],
            severity=["detection", "alert"][i // 2 % 2],
            top_score=i / 10,
            label="xy"[i % 2],
        )
        for i in range(8)
    ]
    for one in events:
        tell(store, one, "n")[0].result()
    newest_first = events[::-1]
    assert store.events() == newest_first
    assert store.events(cameras=["a"]) == newest_first[1::2]
    assert store.events(cameras=[]) == []
    assert store.events(labels=["y"]) == newest_first[::2]
    assert store.events(severity="alert") == [e for e in newest_first if e.severity == "alert"]
    assert store.events(after=NOW + 2, before=NOW + 4) == newest_first[4:6]
    assert store.events(min_score=0.5) == newest_first[:3]
    assert store.events(has_clip=True) == []
    page = store.events(limit=3)
    assert page + store.events(limit=100, older_than=page[-1]) == newest_first


def test_open_events_end_where_they_were_last_seen(url, opened):
    store = opened(url)
    quiet, scored, other, over = event(camera="a"), event(camera="b"), event(camera="c"), event(camera="d")
    for one in (quiet, scored, other):
        tell(store, one, "n")
    tell(store, over)
    store.append_scores([Second("b", int(NOW) + i, 0.8, 0.6, 0.4) for i in range(90)])
    told = store.close_open_events("restart", at=NOW + 1000, cameras=["a", "b"]).result()
    ends = {e.message.after.camera: e.message.after for e in told}
    assert {c: (e.end_time, e.end_reason) for c, e in ends.items()} == {
        "a": (NOW, "restart"),
        "b": (int(NOW) + 90, "restart"),
    }
    (left,) = store.close_open_events("camera_offline", at=NOW + 1000).result()
    assert left.event_id == other.id
    assert store.close_open_events("restart", at=NOW + 1000).result() == []
    check_life_cycles([m for _, m in everything(store)])


STEPS = st.lists(st.sampled_from(["a", "b", "c", "end a", "end b", "end c", "deliver", "kill", "restart"]), max_size=30)


@settings(max_examples=25)
@given(steps=STEPS)
def test_any_life_of_the_daemon_keeps_the_order(steps):
    """A kill is a copy of the files: what SIGKILL leaves is what was written."""
    with tempfile.TemporaryDirectory() as root:
        lives, at, open_events, delivered = 0, NOW, {}, []
        store = Store.open(f"sqlite:///{root}/0/vad.db", sinks=["mqtt"])
        for step in [*steps, "restart", "deliver"]:
            at += 1
            if step == "deliver":
                got = store.outbox("mqtt").pending()
                delivered += [entry.message for entry in got]
                if got:
                    store.outbox("mqtt").acknowledge(got[-1].position)
            elif step in ("kill", "restart"):
                if step == "kill":
                    store.write(lambda _: None).result()  # nothing is half written while we copy
                    shutil.copytree(f"{root}/{lives}", f"{root}/{lives + 1}")
                    assert store.close() == 0
                    lives += 1
                else:
                    assert store.close() == 0
                store = Store.open(f"sqlite:///{root}/{lives}/vad.db", sinks=["mqtt"])
                store.close_open_events("restart", at=at).result()
                open_events.clear()
            else:
                camera = step[-1]
                if step.startswith("end"):
                    if camera in open_events:
                        store.publish("end", ended(open_events.pop(camera), 99.0), at=at)
                elif camera in open_events:
                    store.publish("update", open_events[camera], at=at)
                else:
                    open_events[camera] = event(at, camera=camera)
                    store.publish("new", open_events[camera], at=at)
        store.write(lambda _: None).result()
        positions, messages = zip(*told, strict=True) if (told := everything(store)) else ((), ())
        assert list(positions) == list(range(1, len(positions) + 1))
        check_life_cycles(messages)
        once = {(m.after.id, m.seq): m for m in delivered}
        late = [e.message for e in store.outbox("mqtt").pending()]
        assert [*once.values(), *late] == list(messages)
        store.close()


# --- the outbox ------------------------------------------------------------------------------------------------------


def test_every_sink_has_a_cursor_of_its_own(url, opened):
    store = opened(url, sinks=["mqtt", "hook"])
    tell(store, event(), at=NOW)
    tell(store, event(), at=NOW + 10)[-1].result()
    mqtt, hook = store.outbox("mqtt"), store.outbox("hook")
    assert [e.position for e in mqtt.pending(2)] == [1, 2]
    mqtt.acknowledge(4)
    assert [e.position for e in mqtt.pending()] == [5, 6]  # at once, before it is written
    assert (mqtt.depth(), hook.depth()) == (2, 6)
    assert (mqtt.oldest_age(NOW + 15), hook.oldest_age(NOW + 15)) == (5, 15)
    mqtt.acknowledge(6)
    mqtt.acknowledge(3)  # a late one takes nothing back
    assert (mqtt.pending(), mqtt.oldest_age(NOW + 15)) == ([], 0)
    with pytest.raises(ValueError, match="unknown sink 'fax'; available: hook, mqtt"):
        store.outbox("fax")


def test_what_is_not_acknowledged_comes_again_after_a_restart(url):
    store = Store.open(url, sinks=["mqtt", "hook"])
    tell(store, event())[-1].result()
    store.outbox("mqtt").acknowledge(2)
    assert store.close() == 0
    store = Store.open(url, sinks=["mqtt", "late"])
    tell(store, event(), "n")[-1].result()
    assert [e.position for e in store.outbox("mqtt").pending()] == [3, 4]
    assert [e.position for e in store.outbox("late").pending()] == [4]  # what was told since it is there
    store.close()
    store = Store.open(url, sinks=["hook"])
    assert store.outbox("hook").pending() == []  # it was forgotten in between
    store.close()


def test_a_client_that_comes_back_sees_what_it_missed(url, opened):
    store = opened(url)
    assert not store.wait(0, timeout=0.01)
    tell(store, event())
    assert store.wait(2, timeout=10)
    assert store.position == 3
    assert [e.position for e in store.replay(1)] == [2, 3]
    assert [e.position for e in store.replay(0, limit=1)] == [1]
    assert store.replay(3) == []


def test_delivered_messages_stay_for_replay_and_then_go(url, opened):
    store = opened(url, sinks=["mqtt", "hook"])
    tell(store, event(), at=NOW)[-1].result()
    store.outbox("mqtt").acknowledge(3)
    store.outbox("hook").acknowledge(2)
    keep = Retention(replay=60)
    assert store.prune(NOW + 50, keep).result().delivered == 0
    pruned = store.prune(NOW + 70, keep).result()
    assert (pruned.delivered, pruned.dropped) == (2, {})
    assert [e.position for e in store.replay(0)] == [3]


def test_beyond_the_limits_the_oldest_go_and_are_counted(url, opened):
    store = opened(url, sinks=["mqtt", "hook"])
    for i in range(5):
        tell(store, event(), "ne", at=NOW + i)[-1].result()
    store.outbox("mqtt").acknowledge(3)
    assert store.prune(NOW, Retention(outbox_events=6)).result().dropped == {"mqtt": 1, "hook": 4}
    assert store.outbox("hook").depth() == 6
    assert store.prune(NOW + 12.5, Retention(outbox_age=10)).result().dropped == {"mqtt": 2, "hook": 2}
    assert [e.position for e in store.outbox("mqtt").pending()] == [7, 8, 9, 10]
    assert (store.outbox("mqtt").dropped(), store.outbox("hook").dropped()) == (3, 6)
    assert store.prune(NOW + 99, Retention(outbox_age=10)).result().dropped == {"mqtt": 4, "hook": 4}
    assert store.replay(0) == []
    tell(store, event(), "n")[0].result()
    assert [e.position for e in store.outbox("mqtt").pending()] == [11]  # positions never start again


def test_a_leap_of_the_clock_drops_nothing_young(url, opened):
    store = opened(url, sinks=["mqtt"])
    for at in (NOW, 0.0, NOW + 1):  # the second was made before the time was known
        tell(store, event(), "n", at=at)[0].result()
    assert store.prune(NOW + 2, Retention(outbox_age=10)).result().dropped == {}
    assert store.outbox("mqtt").depth() == 3


def test_two_nodes_on_one_server_do_not_mix(postgres, opened):
    url = postgres.database()
    here, there = opened(url, node="here", sinks=["mqtt"]), opened(url, node="there", sinks=["mqtt"])
    one, other = event(), event()
    tell(here, one, "n")[0].result()
    tell(there, other, "n")[0].result()
    assert [(e.position, e.event_id) for e in there.outbox("mqtt").pending()] == [(1, other.id)]
    assert [e.event_id for e in here.close_open_events("restart", at=NOW).result()] == [one.id]
    assert here.event(other.id).end_time is None


# --- history and retention -------------------------------------------------------------------------------------------


def test_scores_of_a_camera(url, opened):
    store = opened(url)
    minute = 60 * (int(NOW) // 60)
    store.append_scores([Second("a", minute + i, i / 200, 0.6, 0.4) for i in range(0, 100, 2)])
    store.append_scores([Second("b", minute, 1.0, 0.6, 0.4)])
    store.append_scores([Second("a", minute + 4, 0.9, 0.7, 0.5), Second("a", minute + 6, 0.0, 0.7, 0.5)]).result()
    found = store.scores("a", minute, minute + 100, step=10)
    assert found.starts.tolist() == [minute + 10 * i for i in range(10)]
    expected = [0.9, *((10 * i + 8) / 200 for i in range(1, 10))]
    np.testing.assert_allclose(found.scores, expected, rtol=1e-6)
    assert found.on.tolist() == [0.7] * 6 + [0.6] * 4
    assert found.off.tolist() == [0.5] * 6 + [0.4] * 4
    assert store.scores("a", minute + 3, minute + 7).starts.tolist() == [minute + 4, minute + 6]
    assert store.scores("c", 0, NOW).starts.tolist() == []
    with pytest.raises(ValueError, match="at least 1 second, got 0"):
        store.scores("a", 0, 1, step=0)
    with pytest.raises(ValueError, match=r"score must lie in \[0, 1\], got 1.5"):
        Second("a", 0, 1.5, 0.6, 0.4)


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory):
    store = Store.open(f"sqlite:///{tmp_path_factory.mktemp('store') / 'vad.db'}")
    yield store
    store.close()


@settings(max_examples=50)
@given(
    scored=st.lists(st.lists(st.tuples(st.integers(0, 400), st.floats(0, 1, width=32)), max_size=20), max_size=5),
    span=st.tuples(st.floats(-10, 410), st.floats(-10, 410)),
    step=st.integers(1, 130),
)
def test_history_is_the_maximum_of_its_bucket(shared_store, scored, span, step):
    camera = event_id(0.0)
    for call in scored:
        shared_store.append_scores([Second(camera, second, score, 0.6, 0.4) for second, score in call]).result()
    expected = {}
    for second, score in (pair for call in scored for pair in call):
        if span[0] <= second < span[1]:
            start = second // step * step
            expected[start] = max(expected.get(start, 0.0), score)
    found = shared_store.scores(camera, *span, step=step)
    assert dict(zip(found.starts.tolist(), found.scores.tolist(), strict=True)) == expected


def test_retention(url, opened):
    store = opened(url)
    kinds = {
        "plain": {},
        "alert": {"severity": "alert"},
        "false": {"severity": "alert", "false_positive": True},
        "kept": {"retain_indefinitely": True},
        "open": {},
    }
    for camera, changes in kinds.items():
        tell(store, event(camera=camera, **changes), "n" if camera == "open" else "ne")
    store.append_scores([Second("a", int(NOW + day * DAY), 0.5, 0.6, 0.4) for day in (0, 1)]).result()
    keep = Retention(detections=1, alerts=2, false_positives=3, scores=1, outbox_age=4 * DAY)

    def left(days):
        pruned = store.prune(NOW + 120 + days * DAY, keep).result()
        return {e.camera for e in store.events()}, pruned.events, pruned.minutes

    assert left(0.5) == (set(kinds), 0, 0)
    assert left(1) == (set(kinds) - {"plain"}, 1, 1)
    assert left(2) == ({"false", "kept", "open"}, 1, 1)
    assert left(30) == ({"kept", "open"}, 1, 0)
    with pytest.raises(ValueError, match="alerts must not be negative, got -1"):
        Retention(alerts=-1)


def test_an_event_stays_until_it_is_delivered(url, opened):
    store = opened(url, sinks=["mqtt"])
    one = event()
    tell(store, one)[-1].result()
    keep = Retention(detections=1, outbox_age=100 * DAY)
    assert store.prune(NOW + 5 * DAY, keep).result().events == 0
    store.outbox("mqtt").acknowledge(3)
    assert store.prune(NOW + 5 * DAY, keep).result().events == 1
    assert store.event(one.id) is None


# --- faults ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("busy_timeout", [0.2, 30.0])  # one attempt fails and is repeated; one attempt waits it out
def test_a_locked_database_loses_nothing(url, opened, busy_timeout):
    store = opened(url, limits=Limits(busy_timeout=busy_timeout, patience=0.3, longest_delay=0.2), sinks=["mqtt"])
    before = event()
    tell(store, before)[-1].result()
    began = time.time()
    with locked(url):
        futures = [future for _ in range(20) for future in tell(store, event())]
        wait_for(lambda: store.health().status == "degraded")
        time.sleep(1.0)
        health = store.health()
        assert "lock" in health.reason
        assert began - 0.1 <= health.since <= time.time()
        assert health.queued == 60
        assert (health.retries > 0) == (busy_timeout < 1)
        assert not any(future.done() for future in futures)
        assert store.event(before.id) is not None  # reads go on
        assert store.outbox("mqtt").depth() == 3
        assert store.scores("dock", NOW, NOW + 60).starts.size == 0
    assert [future.result(timeout=20).position for future in futures] == list(range(4, 64))
    wait_for(lambda: store.health().status == "ok")
    told = check_life_cycles([m for _, m in everything(store)])
    assert len(told) == 21


def test_a_server_that_goes_and_comes_back(postgres, opened):
    store = opened(postgres.database(), limits=QUICK, sinks=["mqtt"])
    tell(store, event())[-1].result()
    postgres.stop()
    try:
        futures = tell(store, event())
        wait_for(lambda: store.health().status == "degraded")
        with pytest.raises(StoreError, match="cannot be read"):
            store.events()
    finally:
        postgres.start()
    assert [future.result(timeout=20).position for future in futures] == [4, 5, 6]
    assert store.health().status == "ok"
    assert len(store.events()) == 2


def test_scores_give_way_to_events_and_what_is_refused_is_counted(url, opened):
    store = opened(url, limits=Limits(queue=10, batch=1, busy_timeout=0.2, first_delay=0.05, longest_delay=0.1))
    with locked(url):
        held = store.append_scores([Second("a", 0, 0.1, 0.6, 0.4)])
        wait_for(lambda: store.health().retries)  # in hand, no longer in the queue
        scores = [store.append_scores([Second("a", i, 0.1, 0.6, 0.4)]) for i in range(1, 9)]
        events = [future for _ in range(3) for future in tell(store, event())]
        assert [isinstance(f.exception(), StoreFullError) for f in scores[5:]] == [True] * 3
        assert [isinstance(f.exception(), StoreFullError) for f in events[5:]] == [True] * 4
        assert store.health().refused == {"scores": 3, "events": 4}
    for future in [held, *scores[:5], *events[:5]]:
        future.result(timeout=20)
    assert store.scores("a", 0, 60).starts.tolist() == [0, 1, 2, 3, 4, 5]
    assert [p for p, _ in everything(store)] == [1, 2, 3, 4, 5]


def test_a_commit_whose_answer_was_lost_is_not_repeated(file_url, opened, monkeypatch):
    store = opened(file_url, limits=QUICK)
    dialect = store._database.writing.dialect
    commit, lost = dialect.do_commit, []

    def commit_and_lose_the_answer(connection):
        commit(connection)
        if not lost:
            lost.append(True)
            raise sqlite3.OperationalError("the answer was lost")

    monkeypatch.setattr(dialect, "do_commit", commit_and_lose_the_answer)
    assert [f.result(timeout=20).position for f in tell(store, event())] == [1, 2, 3]
    assert lost
    assert [p for p, _ in everything(store)] == [1, 2, 3]


def test_a_command_that_can_never_do_holds_nobody_up(file_url, opened):
    store = opened(file_url)
    bad = [
        store.write(lambda c: c.execute(schema.writers.update().values(batch=object()))),
        store.write(lambda c: c.execute(schema.writers.insert().values(node="local", batch="", position=0))),
        store.write(lambda _: 1 / 0),
    ]
    good = tell(store, event())
    assert [future.result(timeout=20).position for future in good] == [1, 2, 3]
    causes = [type(future.exception(timeout=0)).__name__ for future in bad]
    assert causes[1:] == ["IntegrityError", "ZeroDivisionError"]
    assert causes[0] in ("InterfaceError", "ProgrammingError")  # by the version of Python
    assert store.health().retries == 0


def test_numbers_of_numpy_are_numbers(url, opened):
    store = opened(url)
    tell(store, event(), "n", at=np.float64(NOW))[0].result(timeout=20)
    one = Second("a", np.int64(7), np.float32(0.5), np.float32(0.75), np.float64(0.5))
    store.append_scores([one]).result(timeout=20)
    assert store.scores("a", np.float64(0), np.int64(60)).on.tolist() == [0.75]


def test_a_dead_writer_is_noticed(file_url, opened):
    store = opened(file_url)
    with pytest.raises(StoreError, match="the writer died"):
        store.write(lambda _: sys.exit("a bug")).result(timeout=20)
    health = store.health()
    assert health.status == "failed"
    assert "SystemExit" in health.reason
    with pytest.raises(StoreError, match="takes no more writes: the writer died"):
        tell(store, event(), "n")[0].result(timeout=20)


def test_closing_drains(url):
    store = Store.open(url)
    futures = [future for _ in range(200) for future in tell(store, event())]
    assert store.close(timeout=60) == 0
    assert [future.result(timeout=0).position for future in futures] == list(range(1, 601))
    assert store.health().status == "failed"
    with pytest.raises(StoreError, match="takes no more writes: closed"):
        tell(store, event(), "n")[0].result(timeout=0)


def test_closing_a_locked_store_is_in_time_and_says_what_is_lost(url):
    store = Store.open(url, limits=QUICK)
    with locked(url):
        futures = tell(store, event())
        began = time.monotonic()
        assert store.close(timeout=0.5) == 3
        assert time.monotonic() - began < 2
        for future in futures:
            assert isinstance(future.exception(timeout=20), StoreError)


WRITER = """
    import sys
    from tests.test_store import NOW, Store, event, tell
    store = Store.open(sys.argv[1], sinks=["mqtt"])
    store.close_open_events("restart", at=NOW + 100)
    while True:
        futures = tell(store, event(camera="killed"), "nuuuuue")
        print(futures[3].result().position, flush=True)
"""


def run_script(script, *arguments, **options):
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(script), *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, **options)


def test_a_killed_daemon_leaves_nothing_open_and_nothing_twice(file_url, opened):
    for confirmations in (1, 7):
        with run_script(WRITER, file_url) as daemon:
            confirmed = [int(daemon.stdout.readline()) for _ in range(confirmations)][-1]
            daemon.send_signal(signal.SIGKILL)
    store = opened(file_url, sinks=["mqtt"])
    store.close_open_events("restart", at=NOW + 100).result()
    told = everything(store)
    assert len(told) >= confirmed
    assert [p for p, _ in told] == list(range(1, len(told) + 1))
    lives = check_life_cycles([m for _, m in told])
    assert sum(life[-1].after.end_reason == "restart" for life in lives.values()) <= 2  # one per kill
    with contextlib.closing(sqlite3.connect(file_url.removeprefix("sqlite:///"))) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


FULL_DISK = """
    import resource, sys
    from tests.test_store import QUICK, Store, fill_and_recover
    store = Store.open(sys.argv[1], limits=QUICK, sinks=["mqtt"])
    fill_and_recover(
        store,
        full=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY)),
        freed=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)),
    )
"""


def fill_and_recover(store, *, full, freed):
    """Write until the disk is full, go on, free it: all is there, in order, and the file is sound."""
    zones = [f"zone{i}" for i in range(500)]
    futures = tell(store, event(), "n")
    futures[0].result()
    full()
    while store.health().status == "ok":
        futures += tell(store, event(zones=zones))
        time.sleep(0.01)
    assert "full" in store.health().reason or "I/O" in store.health().reason, store.health()
    futures += tell(store, event(zones=zones))
    assert store.replay(0, limit=1)
    freed()
    assert [future.result(timeout=20).position for future in futures] == list(range(1, len(futures) + 1))
    wait_for(lambda: store.health().status == "ok")
    check_life_cycles([m for _, m in everything(store)], all_ended=False)
    assert store.write(lambda c: c.exec_driver_sql("PRAGMA integrity_check").scalar()).result() == "ok"
    assert store.close() == 0


def test_a_file_that_may_not_grow(file_url):
    with run_script(FULL_DISK, file_url) as child:
        assert child.wait(timeout=120) == 0


def test_a_full_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], stderr=subprocess.DEVNULL)
    if mounted.returncode:
        pytest.skip("needs root, to mount a small disk")
    try:
        store = Store.open(f"sqlite:///{disk / 'vad.db'}", limits=QUICK, sinks=["mqtt"])
        filler = disk / "filler"

        def full():
            free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
            filler.write_bytes(bytes(free - 200_000))

        fill_and_recover(store, full=full, freed=filler.unlink)
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


# --- opening and migrations ------------------------------------------------------------------------------------------


def add_colour(connection):
    connection.execute(sa.text("ALTER TABLE events ADD COLUMN colour TEXT"))


def break_off(connection):
    connection.execute(sa.text("ALTER TABLE events ADD COLUMN smell TEXT"))
    connection.execute(sa.text("ALTER TABLE no_such_table ADD COLUMN smell TEXT"))


def columns(url, table="events"):
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    return {column["name"] for column in sa.inspect(engine).get_columns(table)}


def test_what_migrations_make_is_what_the_code_uses(url, opened):
    opened(url)
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    assert set(sa.inspect(engine).get_table_names()) == set(schema.metadata.tables)
    for table in schema.metadata.tables.values():
        made = {column["name"]: column["nullable"] for column in sa.inspect(engine).get_columns(table.name)}
        wanted = {column.name: bool(column.nullable) for column in table.columns}
        assert made.keys() == wanted.keys()
        keys = [column.name for column in table.primary_key]
        assert sa.inspect(engine).get_pk_constraint(table.name)["constrained_columns"] == keys


def test_a_migration_keeps_what_is_there(url, monkeypatch):
    store = Store.open(url, sinks=["mqtt"])
    one = event()
    tell(store, one)[-1].result()
    store.close()
    monkeypatch.setattr(schema, "MIGRATIONS", [*schema.MIGRATIONS, add_colour])
    store = Store.open(url, sinks=["mqtt"])
    assert store.event(one.id) == ended(one)
    assert store.outbox("mqtt").depth() == 3
    store.close()
    assert "colour" in columns(url)


def test_a_copy_is_made_before_a_migration_and_old_copies_go(file_url, tmp_path, monkeypatch):
    Store.open(file_url).close()
    assert not list(tmp_path.glob("*.bak"))
    for version in range(2, 6):
        monkeypatch.setattr(schema, "MIGRATIONS", [*schema.MIGRATIONS, add_colour if version == 2 else lambda _: None])
        store = Store.open(file_url, backups=2, clock=lambda version=version: 60.0 * version)
        tell(store, event(), "n")[0].result()
        store.close()
    copies = sorted(tmp_path.glob("*.bak"))
    assert [c.name for c in copies] == ["vad.db.19700101T000400Z.v3.bak", "vad.db.19700101T000500Z.v4.bak"]
    monkeypatch.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:4])
    store = Store.open(f"sqlite:///{copies[-1]}")  # a copy is a database
    assert len(store.events()) == 3
    store.close()


def test_a_migration_that_fails_changes_nothing(url, monkeypatch):
    Store.open(url).close()
    was = columns(url)
    with monkeypatch.context() as newer:
        newer.setattr(schema, "MIGRATIONS", [*schema.MIGRATIONS, break_off])
        with pytest.raises(StoreError, match=r"from schema 1 to 2 and was left as it is: .*no_such_table"):
            Store.open(url)
    assert columns(url) == was
    Store.open(url).close()


def test_a_database_of_a_newer_version_is_refused_and_left_alone(url, monkeypatch):
    with monkeypatch.context() as newer:
        newer.setattr(schema, "MIGRATIONS", [*schema.MIGRATIONS, add_colour])
        Store.open(url).close()
    with pytest.raises(StoreError, match=r"newer vadwatch \(schema 2, this one knows up to 1\); install that version"):
        Store.open(url)


def test_a_second_daemon_is_refused(file_url):
    first = Store.open(file_url)
    with pytest.raises(StoreError, match="in use by another daemon"):
        Store.open(file_url)
    first.close()
    Store.open(file_url).close()


def test_a_file_keeps_its_events_when_the_node_is_renamed(file_url):
    store = Store.open(file_url, node="old", sinks=["mqtt"])
    tell(store, event(), "n")[0].result()
    store.close()
    store = Store.open(file_url, node="new", sinks=["mqtt"])
    assert len(store.close_open_events("restart", at=NOW).result()) == 1
    assert [e.position for e in store.outbox("mqtt").pending()] == [1, 2]
    store.close()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sqlite://", "needs a file"),
        ("sqlite:///:memory:", "needs a file"),
        ("mysql://u:S3cr3t@host/db", "mysql: no such store"),
        ("S3cr3t", "not a database URL"),
        ("postgresql+fax://u:S3cr3t@host/db", "no such driver"),
    ],
)
def test_what_is_no_store(url, message):
    with pytest.raises(StoreError, match=message) as refused:
        Store.open(url)
    assert "S3cr3t" not in str(refused.value)


def test_a_file_that_is_no_database_is_refused(tmp_path):
    (tmp_path / "vad.db").write_bytes(b"not a database, but long enough to be looked at as one" * 100)
    with pytest.raises(StoreError, match="file is not a database"):
        Store.open(f"sqlite:///{tmp_path / 'vad.db'}")


@pytest.mark.parametrize("limits", [{"queue": 1}, {"batch": 0}, {"first_delay": 9}])
def test_limits_that_make_no_sense(limits):
    with pytest.raises(ValueError, match="must"):
        Limits(**limits)


def test_the_pragmas_are_those_we_mean(file_url, opened):
    store = opened(file_url)

    def ask(connection):
        names = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        return [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names]

    assert store.write(ask).result() == ["wal", 2, 1, 30_000]
    with store._database.read() as connection, pytest.raises(sa.exc.OperationalError, match="readonly"):
        connection.execute(sa.text("DELETE FROM events"))
