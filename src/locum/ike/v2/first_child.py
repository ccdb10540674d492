"""The CHILD_SA that IKE_AUTH makes along with the IKE SA, the same at both ends: its keys and its failure.

Never negotiates it. Its keys are made of the nonces of IKE_SA_INIT (RFC 7296 section 2.17), here or, in the other
form of A7, by the authority, which then keeps SK_d.
"""

from __future__ import annotations

from locum.errors import LocumError
from locum.ike.children import keys_from_material
from locum.ike.keying2 import child_keys
from locum.ike.operations import SaKeysRequest, SaKeysResponse
from locum.ike.suites import ChildKeys, Nonces
from locum.ike.v2.core import Core
from locum.ike.v2.negotiation import Agreement


def keys_requests(core: Core, agreement: Agreement | LocumError | None) -> tuple[SaKeysRequest, ...]:
    """Ask for SK_d, or for the CHILD_SA's keys; nothing where the authority keeps SK_d and there is no child."""
    if not core.connection.keys_from_authority:
        return (SaKeysRequest(),)
    if not isinstance(agreement, Agreement):
        return ()
    suite = agreement.suite
    return (SaKeysRequest(child_encryption=suite.encryption_length, child_integrity=suite.integrity_length),)


def make(
    core: Core, agreement: Agreement | LocumError | None, response: SaKeysResponse | None, nonces: Nonces
) -> None:
    """Put the CHILD_SA into force, or say why there is none; None where nobody asked for one."""
    if response is not None and not core.connection.keys_from_authority:
        core.sk_d = response.keys
    if isinstance(agreement, LocumError):
        core.child_failed(agreement)
    elif agreement is not None:
        assert response is not None
        core.add_child(agreement.terms, _keys(core, agreement, response, nonces))


def _keys(core: Core, agreement: Agreement, response: SaKeysResponse, nonces: Nonces) -> ChildKeys:
    if core.connection.keys_from_authority:
        return keys_from_material(agreement.suite, response.keys)
    return child_keys(core.negotiated.prf, agreement.suite, core.sk_d, nonces)
