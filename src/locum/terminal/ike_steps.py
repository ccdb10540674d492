"""What is told of the operations of IKE: one line each, of either version, for observers and logs.

Never shows a secret; an identity that the delegate names is shown as it came.
"""

from __future__ import annotations

from locum.handshake import Request, Response
from locum.ike import operations
from locum.ike.algorithms import GROUPS
from locum.ike.operations import Exchange
from locum.ike.registry import AuthenticationMethod1, AuthenticationMethod2, KeyExchangeId, name_of

_EXCHANGES = {
    Exchange.IKE_2: "IKEv2",
    Exchange.MAIN: "IKEv1 main mode",
    Exchange.AGGRESSIVE: "IKEv1 aggressive mode",
    Exchange.FURTHER: "a further key exchange under the SA",
}

_METHODS_1 = {
    AuthenticationMethod1.PRE_SHARED_KEY: "pre-shared key",
    AuthenticationMethod1.RSA_SIGNATURE: "RSA signature",
    AuthenticationMethod1.RSA_ENCRYPTION: "public key encryption",
    AuthenticationMethod1.ECDSA_256: "ECDSA P-256 signature",
    AuthenticationMethod1.ECDSA_384: "ECDSA P-384 signature",
    AuthenticationMethod1.ECDSA_521: "ECDSA P-521 signature",
}
_METHODS_2 = {
    AuthenticationMethod2.RSA_SIGNATURE: "RSA signature",
    AuthenticationMethod2.SHARED_KEY: "pre-shared key",
    AuthenticationMethod2.ECDSA_256: "ECDSA P-256 signature",
    AuthenticationMethod2.ECDSA_384: "ECDSA P-384 signature",
    AuthenticationMethod2.ECDSA_521: "ECDSA P-521 signature",
    AuthenticationMethod2.DIGITAL_SIGNATURE: "digital signature",
}


def group_name(code: int) -> str:
    """``x25519``, ``modp2048``, or the registry's name or number of what is not implemented."""
    return GROUPS[code].name if code in GROUPS else name_of(KeyExchangeId, code)


def describe(request: Request, response: Response) -> str:
    """One line, without secrets, on what was asked and what came back; empty for what is no operation of IKE."""
    match request, response:
        case operations.IkeStartRequest(), operations.IkeStartResponse():
            return _describe_start(request, response)
        case operations.PublicValueRequest(), operations.PublicValueResponse():
            nonce = " and nonce" if response.nonce else ""
            return f"our public value{nonce}, {group_name(request.group)}"
        case operations.KeyExchangeRequest(), _:
            return f"keys of the handshake, {group_name(request.group)}"
        case operations.AdditionalKeyExchangeRequest(), _:
            return f"keys after an additional key exchange, {group_name(request.group)}"
        case operations.SharedSecretRequest(), _:
            return f"shared secret, {group_name(request.group)}"
        case operations.IntroduceRequest(), _:
            return "our identification"
        case operations.ProveRequest(), operations.ProveResponse():
            return f"our proof: {_method(request, response)}{_certificates(len(response.certificates))}"
        case operations.EncryptedIntroductionRequest(), _:
            return "our identification and nonce, encrypted to the peer"
        case operations.DisclosureRequest(), _:
            return "the peer's identification and nonce, decrypted"
        case operations.SaKeysRequest(), operations.SaKeysResponse():
            return _describe_keys(request, response)
    return ""


def _describe_start(request: operations.IkeStartRequest, response: operations.IkeStartResponse) -> str:
    if response.other_group_wanted:
        return f"the peer is to come again with {group_name(response.group)}"
    role = "initiator" if request.initiator else "responder"
    group = f"; {group_name(response.group)}" if response.group else ""
    return f"{_EXCHANGES[request.exchange]} as {role}{group}"


def _describe_keys(request: operations.SaKeysRequest, response: operations.SaKeysResponse) -> str:
    of_child = request.child_encryption or request.child_integrity
    what = "keys of the CHILD_SA, derived there" if of_child else "keys of the SA"
    return what + (", with a post-quantum pre-shared key" if response.ppk_used else "")


def _method(request: operations.ProveRequest, response: operations.ProveResponse) -> str:
    # Only IKEv2 covers a message of its own by the proof.
    names = _METHODS_2 if request.message else _METHODS_1
    return next((name for code, name in names.items() if code == response.method), f"method {response.method}")


def _certificates(count: int) -> str:
    return f", {count} certificate{'s' * (count > 1)}" if count else ""
