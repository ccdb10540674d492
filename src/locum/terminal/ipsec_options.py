"""What a person may choose for an IPsec connection, in words, and how it becomes the engine's `Connection`.

Opens nothing and looks nothing up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from locum.errors import ConfigurationError
from locum.ike import proposal_names
from locum.ike.configuration import Connection, Mode, Timing
from locum.ike.policy import ChildPolicy, IkePolicy, Phase1Policy
from locum.ike.registry import AuthenticationMethod1, EncapsulationMode, ProtocolId, TrafficSelectorType, Version
from locum.ike.traffic_selectors import TrafficSelector
from locum.ipsec.selectors import Address, parse_selectors
from locum.patterns import normalize_identity
from locum.values import dataclass

DEFAULT_TIMING = Timing()

_VERSIONS = {"1": Version.IKE_1, "2": Version.IKE_2}

#: Ways to prove oneself in IKEv1, by the words for them, in the order of preference.
METHODS: dict[str, tuple[AuthenticationMethod1, ...]] = {
    "rsa": (AuthenticationMethod1.RSA_SIGNATURE,),
    "ecdsa": (
        AuthenticationMethod1.ECDSA_256,
        AuthenticationMethod1.ECDSA_384,
        AuthenticationMethod1.ECDSA_521,
    ),
    "psk": (AuthenticationMethod1.PRE_SHARED_KEY,),
    "rsa-encryption": (AuthenticationMethod1.RSA_ENCRYPTION,),
}
#: What is offered unless it is said otherwise. Public key encryption needs the peer's certificate beforehand.
DEFAULT_METHODS = "rsa,ecdsa,psk"

_IDENTITY_KINDS = ("dns:", "ip:", "email:", "dn:", "keyid:")


@dataclass(frozen=True, slots=True, kw_only=True)
class IpsecOptions:
    """The words for one connection; an empty one leaves the default. Times are in seconds.

    `version` is ``1`` or ``2``, `mode` ``main`` or ``aggressive``. `methods` are those of `METHODS`, for IKEv1.
    Proposals are in the words of `proposal_names`; one of `esp` and `ah`. `aggressive_psk` allows aggressive mode
    with a pre-shared key, which shows whoever listens what guesses can be tried on (RFC 2409 section 5.4).
    The rest is as in `Connection` and `Timing`.
    """

    version: str = "2"
    mode: str = Mode.MAIN.value
    methods: str = ""
    aggressive_psk: bool = False
    local_identity: str = ""
    remote_identity: str = ""
    local_traffic: Sequence[str] = ()
    remote_traffic: Sequence[str] = ()
    transport: bool = False
    proposal: str = ""
    esp: str = ""
    ah: str = ""
    lifetime: float = DEFAULT_TIMING.ike_lifetime
    child_lifetime: float = DEFAULT_TIMING.child_lifetime
    liveness: float = DEFAULT_TIMING.liveness
    force_encapsulation: bool = False
    keys_from_authority: bool = False
    use_ppk: bool = False
    ppk_required: bool = False

    @property
    def withholds_psk(self) -> bool:
        """True when pre-shared keys take no part because of aggressive mode alone."""
        aggressive = self.version == "1" and self.mode == Mode.AGGRESSIVE
        return aggressive and not self.aggressive_psk and not self.methods


def connection(options: IpsecOptions, remote: Address | None) -> Connection:
    """The connection with `remote` that `options` speak of. Raises: ConfigurationError, with what to change."""
    if options.version not in _VERSIONS:
        raise ConfigurationError(f"{options.version!r} is not a version of IKE: give 1 or 2")
    version = _VERSIONS[options.version]
    mode = _mode(options, version)
    ike, phase1 = _first_phase(options, version, mode)
    timing = Timing(
        ike_lifetime=options.lifetime, child_lifetime=options.child_lifetime, liveness=options.liveness
    )
    return Connection(
        version=version,
        mode=mode,
        remote=remote,
        local_identity=identity(options.local_identity),
        remote_identity=identity(options.remote_identity),
        ike=ike,
        phase1=phase1,
        child=_child(options),
        local_traffic=_traffic(options.local_traffic, remote),
        remote_traffic=_traffic(options.remote_traffic, remote),
        transport=options.transport,
        timing=timing,
        use_ppk=options.use_ppk or options.ppk_required,
        ppk_required=options.ppk_required,
        keys_from_authority=options.keys_from_authority,
        force_encapsulation=options.force_encapsulation,
    )


def _mode(options: IpsecOptions, version: Version) -> Mode:
    if options.mode not in tuple(Mode):
        raise ConfigurationError(f"{options.mode!r} is not a mode of IKEv1: give main or aggressive")
    mode = Mode(options.mode)
    if version == Version.IKE_2 and (mode is not Mode.MAIN or options.methods or options.aggressive_psk):
        raise ConfigurationError("modes and methods are for IKEv1; IKEv2 has one mode and takes what the peer has")
    return mode


def _first_phase(options: IpsecOptions, version: Version, mode: Mode) -> tuple[IkePolicy, Phase1Policy]:
    methods = _methods(options, mode)
    lifetime = int(options.lifetime)
    if version == Version.IKE_2:
        ike = proposal_names.parse_ike_proposals(options.proposal) if options.proposal else IkePolicy()
        return ike, Phase1Policy(methods=methods, lifetime=lifetime)
    if not options.proposal:
        return IkePolicy(), Phase1Policy(methods=methods, lifetime=lifetime)
    return IkePolicy(), proposal_names.parse_phase1_proposals(options.proposal, methods=methods, lifetime=lifetime)


def _methods(options: IpsecOptions, mode: Mode) -> tuple[AuthenticationMethod1, ...]:
    words = [word.strip() for word in (options.methods or DEFAULT_METHODS).split(",")]
    unknown = next((word for word in words if word not in METHODS), None)
    if unknown is not None:
        raise ConfigurationError(f"{unknown!r} is not a way to authenticate: known are {', '.join(METHODS)}")
    methods = tuple(dict.fromkeys(method for word in words for method in METHODS[word]))
    if mode is not Mode.AGGRESSIVE or options.aggressive_psk:
        return methods
    safe = tuple(method for method in methods if method is not AuthenticationMethod1.PRE_SHARED_KEY)
    if not safe or (options.methods and safe != methods):
        raise ConfigurationError(
            "aggressive mode shows a pre-shared key to whoever can guess it: take main mode or IKEv2, "
            "or say --allow-aggressive-psk"
        )
    return safe


def _child(options: IpsecOptions) -> ChildPolicy:
    if options.esp and options.ah:
        raise ConfigurationError("either ESP or AH protects the traffic, not both")
    modes = (EncapsulationMode.TRANSPORT,) if options.transport else (EncapsulationMode.TUNNEL,)
    lifetime = int(options.child_lifetime)
    text = options.esp or options.ah
    if not text:
        return replace(ChildPolicy(), modes=modes, lifetime=lifetime)
    protocol = ProtocolId.AH if options.ah else ProtocolId.ESP
    return proposal_names.parse_child_proposals(text, protocol=protocol, modes=modes, lifetime=lifetime)


def _traffic(texts: Sequence[str], remote: Address | None) -> tuple[TrafficSelector, ...]:
    """Selectors as IKE has them; `any` is every address of the peer's version of IP."""
    found = []
    for text in texts:
        selectors = parse_selectors(text)
        if len(selectors) > 1 and remote is not None:
            selectors = tuple(each for each in selectors if each.start.version == remote.version)
        for each in selectors:
            four = each.start.version == 4
            found.append(
                TrafficSelector(
                    ts_type=TrafficSelectorType.IPV4_ADDR_RANGE if four else TrafficSelectorType.IPV6_ADDR_RANGE,
                    protocol=each.protocol,
                    start_port=each.first_port,
                    end_port=each.last_port,
                    start=each.start.packed,
                    end=each.end.packed,
                )
            )
    return tuple(found)


def identity(text: str) -> str:
    """An identity in the form of a verdict: ``dns:``, ``ip:``, ``email:``, ``dn:`` or ``keyid:`` and what follows.

    Without such a word it is told by its looks, as other programs do. Raises: ConfigurationError.
    """
    if not text:
        return ""
    if "=" in text and not text.startswith(_IDENTITY_KINDS):
        text = f"dn:{text}"
    return normalize_identity(text)
