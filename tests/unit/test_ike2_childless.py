"""IKE SAs of IKEv2 without a CHILD_SA (RFC 6023): what a responder says and does."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.ike_memory import Network, network

from locum.ike.configuration import Connection
from locum.ike.engine import ChildEstablished, ChildFailed, MessagePassed, State
from locum.ike.payloads2 import SecurityAssociation
from locum.ike.traffic_selectors import TrafficSelectorsInitiator, TrafficSelectorsResponder
from locum.ike.v2 import initiator

OF_A_CHILD = (SecurityAssociation, TrafficSelectorsInitiator, TrafficSelectorsResponder)


def responses(made: Network) -> list[str]:
    return [event.description for event in made.left.of(MessagePassed) if not event.outgoing]


@pytest.fixture
def _no_child_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The initiator leaves SAi2, TSi and TSr out, as section 3 allows it."""
    whole = initiator._auth_payloads

    def without_child(*arguments: Any) -> tuple[Any, ...]:
        return tuple(each for each in whole(*arguments) if not isinstance(each, OF_A_CHILD))

    monkeypatch.setattr(initiator, "_auth_payloads", without_child)


def test_a_responder_says_that_it_makes_ike_sas_without_a_child_and_an_initiator_does_not() -> None:
    made = network(Connection(), observed=True).connect()
    sent, received = [event.description for event in made.left.of(MessagePassed)][:2]
    assert "CHILDLESS_IKEV2_SUPPORTED" in received
    assert "CHILDLESS_IKEV2_SUPPORTED" not in sent


@pytest.mark.usefixtures("_no_child_wanted")
def test_an_initiator_that_asks_for_no_child_gets_an_ike_sa_alone() -> None:
    made = network(Connection(), observed=True).connect()
    assert made.right.sa.state is State.ESTABLISHED
    assert made.right.sa.children == ()
    assert not made.right.of(ChildEstablished)
    assert not made.right.of(ChildFailed)
    assert responses(made)[1] == "IKE_AUTH response: IDr, AUTH"


@pytest.mark.usefixtures("_no_child_wanted")
def test_a_child_can_be_made_later_under_an_ike_sa_without_one() -> None:
    made = network(Connection()).connect()
    made.left.sa.create_child(now=made.now)
    made.run()
    assert made.left.sa.children
    assert len(made.right.installed) == 1
