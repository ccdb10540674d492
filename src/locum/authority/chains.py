"""The certificate chains that a delegate has seen, so that terminals need only name them.

Knows chains as bytes with a digest; never looks into a certificate.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from locum.handshake import Request, Response, Verdict
from locum.tls.operations import AuthenticateRequest, PeerChain

#: Chains kept, and bytes of all of them: a chain of two P-256 certificates is about 1 KB.
MAX_CHAINS = 4096
MAX_BYTES = 16 * 1024 * 1024


class ChainCache:
    """Chains by their SHA-256, the least recently used ones forgotten first.

    Only chains of peers that turned out authentic are remembered, so that nobody can push them out with
    rubbish. What is found here is only bytes: it is validated like any other chain.
    """

    def __init__(self, *, maximum_chains: int = MAX_CHAINS, maximum_bytes: int = MAX_BYTES) -> None:
        self._chains: OrderedDict[bytes, PeerChain] = OrderedDict()
        self._maximum_chains = maximum_chains
        self._maximum_bytes = maximum_bytes
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._chains)

    def find(self, digest: bytes) -> PeerChain | None:
        """The chain with this digest, or None."""
        chain = self._chains.get(digest)
        if chain is not None:
            self._chains.move_to_end(digest)
        return chain

    def add(self, chain: PeerChain) -> None:
        """Remember a chain; one that alone is larger than the whole cache is not kept."""
        digest = chain.digest
        size = _size(chain)
        if digest in self._chains or size > self._maximum_bytes:
            return
        self._chains[digest] = chain
        self._bytes += size
        while len(self._chains) > self._maximum_chains or self._bytes > self._maximum_bytes:
            _, forgotten = self._chains.popitem(last=False)
            self._bytes -= _size(forgotten)

    def remember(self, requests: Sequence[Request], responses: Sequence[Response]) -> None:
        """Add the chain of every request that was answered with an authentic peer."""
        for request, response in zip(requests, responses, strict=False):
            if isinstance(request, AuthenticateRequest) and isinstance(response, Verdict) and response.authentic:
                self.add(request.chain)


def _size(chain: PeerChain) -> int:
    return len(chain.ocsp_response) + sum(map(len, chain.certificates))
