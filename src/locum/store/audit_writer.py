"""The way of audit entries from a role to the store: a bounded queue, and one thread that empties it.

Never knows what an entry says, and never makes a handshake wait: when the store cannot take entries they are
kept, and when the queue is full too they are counted.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from locum.errors import LocumError

log = logging.getLogger(__name__)

Entry = TypeVar("Entry")

#: Entries kept while the store takes none: about ten minutes of fifteen entries a second.
CAPACITY = 10_000
#: Entries written in one transaction.
BATCH = 500
#: Seconds between two writes, so that a busy role writes many entries at once.
INTERVAL = 0.25
#: Seconds between two attempts while the store takes none.
RETRY_INTERVAL = 2.0
#: Seconds that `close` gives the last write: more than a locked SQLite database takes to say so.
CLOSE_SECONDS = 6.0


class AuditWriter(Generic[Entry]):
    """Writes entries in batches from a thread of its own.

    `write` stores entries durably or raises a `LocumError` or an OSError, in which case it has stored none of
    them. A full queue drops the newest entry: what led to the outage is worth more than what followed it.
    """

    def __init__(
        self,
        write: Callable[[Sequence[Entry]], None],
        *,
        capacity: int = CAPACITY,
        interval: float = INTERVAL,
        retry_interval: float = RETRY_INTERVAL,
    ) -> None:
        self._write = write
        self._capacity = capacity
        self._interval = interval
        self._retry_interval = retry_interval
        self._queue: deque[Entry] = deque()
        self._dropped = 0  # changed by the caller of `put` only
        self._reported = 0  # of those, how many the log knows of; changed by the thread only
        self._failing = False
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, entry: Entry) -> None:
        """Queue one entry; never blocks. For one thread only."""
        if len(self._queue) < self._capacity:
            self._queue.append(entry)
        else:
            self._dropped += 1

    @property
    def waiting(self) -> int:
        """Entries queued and not yet written."""
        return len(self._queue)

    @property
    def dropped(self) -> int:
        """Entries lost so far because the queue was full."""
        return self._dropped

    @property
    def failing(self) -> bool:
        """True while the store takes no entries."""
        return self._failing

    def close(self) -> None:
        """Write what is queued, once, and end the thread; what cannot be written then is counted in the log."""
        self._ending.set()
        self._thread.join(CLOSE_SECONDS)
        lost = len(self._queue) + self._dropped - self._reported
        if lost:
            log.error("audit entries lost at the end", extra={"entries": lost})

    def _run(self) -> None:
        while not self._ending.wait(self._retry_interval if self._failing else self._interval):
            self.flush()
        self.flush()

    def flush(self) -> None:
        """Write what is queued until the queue is empty or the store refuses."""
        while self._queue:
            batch = [self._queue[index] for index in range(min(BATCH, len(self._queue)))]
            try:
                self._write(batch)
            except (LocumError, OSError) as error:
                self._note_failure(error)
                return
            for _ in batch:
                self._queue.popleft()
            self._note_success()

    def _note_failure(self, error: Exception) -> None:
        if not self._failing:
            self._failing = True
            log.error(
                "audit log cannot be written; handshakes go on, entries are kept until there are %d",
                self._capacity,
                extra={"error": str(error)},
            )

    def _note_success(self) -> None:
        recovered, self._failing = self._failing, False
        dropped = self._dropped - self._reported
        self._reported += dropped
        if recovered or dropped:
            log.warning("audit log is written again", extra={"dropped": dropped})
