"""Several processes on one database: nothing is lost, nothing is given twice, changes are seen in time."""

from __future__ import annotations

import time

from tests.support.stores import ACTOR, NODE_KEY, enroll, finish, start_process

from locum.store import Action, Store

pytest_plugins = ["tests.support.store_fixtures"]

WORK = """
kid, worker = bytes.fromhex(arguments[0]), arguments[1]
with Store.open(location, NODE_KEY) as store:
    for number in range(25):
        print(store.terminals.reserve(kid, 3))
        enroll(store, f"{worker}-{number}")
"""


def test_concurrent_writers_lose_nothing_and_share_no_sequence_number(store: Store, location: str) -> None:
    kid = enroll(store).kid
    before = store.generation()
    outputs = finish([start_process(WORK, location, kid.hex(), f"worker{number}") for number in range(4)])
    firsts = sorted(int(line) for output in outputs for line in output.split())
    assert firsts == list(range(0, 300, 3))
    terminals = store.terminals.all()
    assert len(terminals) == 101
    assert len({terminal.kid for terminal in terminals}) == 101
    assert store.generation() == before + 100
    assert len(store.audit.newest(1000)) == 101


def test_sequence_numbers_survive_a_process_that_is_killed(store: Store, location: str) -> None:
    kid = enroll(store).kid
    code = """
with Store.open(location, NODE_KEY) as store:
    print(store.terminals.reserve(bytes.fromhex(arguments[0]), 100), flush=True)
    sys.stdin.read()
"""
    process = start_process(code, location, kid.hex())
    assert process.stdout is not None
    assert process.stdout.readline() == "0\n"
    process.kill()
    process.communicate()
    assert store.terminals.reserve(kid, 1) == 100


def test_a_change_of_another_process_is_noticed_within_a_second(store: Store, location: str) -> None:
    code = """
from locum.store import Action
with Store.open(location, NODE_KEY) as store:
    sys.stdin.readline()
    store.policies.add("*", "*", Action.ALLOW, actor=ACTOR)
    print(time.time(), flush=True)
"""
    process = start_process("import time\n" + code, location)
    before = store.generation()
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    deadline = time.monotonic() + 30
    while store.generation() == before:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    noticed = time.time()
    [output] = finish([process])
    assert noticed - float(output) < 1.0
    assert [policy.action for policy in store.snapshot().policies] == [Action.ALLOW]


def test_a_reader_is_not_kept_waiting_by_a_change_under_way(store: Store, location: str) -> None:
    seen = []

    def look(channel: object) -> None:
        with Store.open(location, NODE_KEY) as other:
            seen.append((other.generation(), other.terminals.all(), other.policies.all()))

    before = store.generation()
    enroll(store, deliver=look)
    assert seen == [(before, [], [])]
    assert store.policies.add("*", "*", Action.DENY, actor=ACTOR)[1]
