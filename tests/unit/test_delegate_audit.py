"""The audit queue: batches, an outage of the store, and what is lost only when there is no other way."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

import pytest

from locum.errors import Unavailable
from locum.store.audit_writer import BATCH, AuditWriter


class Store:
    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.failing = False
        self.threads: set[str] = set()

    def write(self, entries: Sequence[int]) -> None:
        self.threads.add(threading.current_thread().name)
        if self.failing:
            raise Unavailable("the database is read-only")
        self.batches.append(list(entries))

    @property
    def written(self) -> list[int]:
        return [entry for batch in self.batches for entry in batch]


def test_entries_are_written_in_order_and_in_batches() -> None:
    store = Store()
    writer = AuditWriter[int](store.write)
    for number in range(BATCH + 10):
        writer.put(number)
    writer.flush()
    assert [len(batch) for batch in store.batches] == [BATCH, 10]
    assert store.written == list(range(BATCH + 10))
    assert writer.waiting == 0


def test_an_outage_keeps_the_oldest_entries_and_counts_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    store = Store()
    writer = AuditWriter[int](store.write, capacity=5)
    store.failing = True
    for number in range(8):
        writer.put(number)
    with caplog.at_level(logging.WARNING):
        writer.flush()
        writer.flush()
        assert writer.failing
        assert (writer.waiting, writer.dropped) == (5, 3)
        assert len(caplog.records) == 1, "an outage is logged once"
        store.failing = False
        writer.flush()
    assert store.written == [0, 1, 2, 3, 4]
    assert not writer.failing
    assert [getattr(record, "dropped", None) for record in caplog.records] == [None, 3]
    writer.put(9)
    writer.flush()
    assert len(caplog.records) == 2, "what was lost is reported once"


def test_the_thread_writes_without_being_told_and_close_writes_the_rest() -> None:
    store = Store()
    writer = AuditWriter[int](store.write, interval=0.01)
    writer.start()
    writer.put(1)
    deadline = time.monotonic() + 5.0
    while not store.batches and time.monotonic() < deadline:
        time.sleep(0.005)
    assert store.written == [1]
    writer.put(2)
    writer.close()
    assert store.written == [1, 2]
    assert store.threads == {"audit"}


def test_what_cannot_be_written_at_the_end_is_counted_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    store = Store()
    store.failing = True
    writer = AuditWriter[int](store.write, interval=60.0)
    writer.start()
    writer.put(1)
    writer.put(2)
    with caplog.at_level(logging.ERROR):
        writer.close()
    assert [getattr(record, "entries", None) for record in caplog.records] == [None, 2]
