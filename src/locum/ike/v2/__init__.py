"""IKEv2: the exchanges as generators, and the IKE SA that runs them.

RFC 7296, with fragments (RFC 7383), signatures of RFC 7427, IKE_INTERMEDIATE (RFC 9242), additional key exchanges
(RFC 9370) and post-quantum pre-shared keys (RFC 8784).
"""
