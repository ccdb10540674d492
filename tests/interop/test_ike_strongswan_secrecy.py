"""A peer may insist on perfect forward secrecy or do without: what we offer by default fits both."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from tests.support.ike_strongswan import Bench, Case

from locum.ike.engine import ChildEstablished
from locum.ike.operations import SharedSecretRequest
from locum.ike.policy import ChildPolicy

V1_PROPOSAL = "aes128-sha256-ecp256"


@pytest.mark.parametrize("initiator", [True, False], ids=["initiator", "responder"])
@pytest.mark.parametrize("we_ask", [True, False], ids=["we ask", "peer asks"])
@pytest.mark.parametrize("pfs", ["", "-x25519", "-ecp384"], ids=["without", "x25519", "ecp384"])
def test_child_of_ikev2_is_rekeyed_as_the_peer_wants_it(
    make_bench: Callable[..., Bench], pfs: str, we_ask: bool, initiator: bool
) -> None:
    bench = make_bench()
    device = bench.connect(Case(esp=f"aes256gcm16{pfs}"), initiator=initiator, child=ChildPolicy())
    sa, first = device.sa, device.sa.children[0]
    if we_ask:
        device.order(lambda: sa.rekey_child(first, now=time.monotonic()))
    else:
        bench.charon.rekey(child="net")
    second = device.wait_event(ChildEstablished, count=2).child
    bench.check_keys(device, second, initiator=we_ask)
    exchanges = [each for each in device.asked.requests if isinstance(each, SharedSecretRequest)]
    assert len(exchanges) == (1 if pfs else 0)


@pytest.mark.parametrize("initiator", [True, False], ids=["initiator", "responder"])
@pytest.mark.parametrize("pfs", ["", "-ecp256"], ids=["without", "ecp256"])
def test_quick_mode_is_done_as_the_peer_wants_it(
    make_bench: Callable[..., Bench], pfs: str, initiator: bool
) -> None:
    bench = make_bench()
    case = Case(version=1, ike=V1_PROPOSAL, esp=f"aes256gcm16{pfs}")
    device = bench.connect(case, initiator=initiator, child=ChildPolicy())
    bench.check_keys(device, device.sa.children[0], initiator=initiator)
    exchanges = [each for each in device.asked.requests if isinstance(each, SharedSecretRequest)]
    assert len(exchanges) == (1 if pfs else 0)
