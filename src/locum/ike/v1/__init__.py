"""IKEv1: phase 1 in main and aggressive mode, quick mode, informational exchanges, and the ISAKMP SA they make.

RFC 2407, 2408 and 2409, with NAT traversal (RFC 3947), dead peer detection (RFC 3706) and fragments.
"""
