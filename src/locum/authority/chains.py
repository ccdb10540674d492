"""The certificate chains that a delegate has seen, so that terminals need only name them.

Knows chains as bytes with a digest; never looks into a certificate.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from locum.handshake import PeerAuthentication, PeerChain, Request, Response, Verdict

#: Chains kept, and bytes of all of them: a chain of two P-256 certificates is about 1 KB.
MAX_CHAINS = 4096
MAX_BYTES = 16 * 1024 * 1024
#: Bytes of the chains that one terminal was the first to show.
MAX_SHARE = 1024 * 1024


class ChainCache:
    """Chains by their SHA-256, the least recently used ones forgotten first.

    Only chains of peers that turned out authentic are remembered. A terminal could still make any number of those
    by adding certificates to one, so each has a share of its own, and pushes out what it brought itself.
    What is found here is only bytes: it is validated like any other chain.
    """

    def __init__(
        self,
        *,
        maximum_chains: int = MAX_CHAINS,
        maximum_bytes: int = MAX_BYTES,
        maximum_share: int = MAX_SHARE,
    ) -> None:
        self._chains: OrderedDict[bytes, tuple[PeerChain, str]] = OrderedDict()
        #: By the terminal that brought them, the oldest first, with their sizes in bytes.
        self._shares: dict[str, dict[bytes, int]] = {}
        self._maximum_chains = maximum_chains
        self._maximum_bytes = maximum_bytes
        self._maximum_share = maximum_share
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._chains)

    def find(self, digest: bytes) -> PeerChain | None:
        """The chain with this digest, or None."""
        found = self._chains.get(digest)
        if found is None:
            return None
        self._chains.move_to_end(digest)
        return found[0]

    def add(self, chain: PeerChain, *, terminal: str = "") -> None:
        """Remember a chain that `terminal` showed; one that alone is larger than its share is not kept."""
        digest = chain.digest
        size = len(chain.ocsp_response) + sum(map(len, chain.certificates))
        if digest in self._chains or size > min(self._maximum_share, self._maximum_bytes):
            return
        share = self._shares.setdefault(terminal, {})
        self._chains[digest] = chain, terminal
        share[digest] = size
        self._bytes += size
        while sum(share.values()) > self._maximum_share:
            self._forget(next(iter(share)))
        while len(self._chains) > self._maximum_chains or self._bytes > self._maximum_bytes:
            self._forget(next(iter(self._chains)))

    def _forget(self, digest: bytes) -> None:
        _, terminal = self._chains.pop(digest)
        share = self._shares[terminal]
        self._bytes -= share.pop(digest)
        if not share:
            del self._shares[terminal]

    def remember(self, requests: Sequence[Request], responses: Sequence[Response], *, terminal: str = "") -> None:
        """Add the chain of every request of `terminal` that was answered with an authentic peer."""
        for request, response in zip(requests, responses, strict=False):
            if not isinstance(request, PeerAuthentication) or not request.chain.certificates:
                continue
            if isinstance(response, Verdict) and response.authentic:
                self.add(request.chain, terminal=terminal)
