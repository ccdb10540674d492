"""Every error that locum raises on purpose, sorted by who is at fault.

Each carries one line that a person can act on, and never a secret.
"""


class LocumError(Exception):
    """The base of all: whatever comes from a network, a file or a person ends in one of these."""


class DecodeError(LocumError):
    """Bytes that do not follow their format: truncated, overlong, trailing, out of range."""


class PeerError(LocumError):
    """The other end of a handshake is at fault."""


class Misbehaved(PeerError):
    """The peer broke the protocol: a message out of turn, a bad MAC, an illegal value."""


class Incompatible(PeerError):
    """The peer is correct, but shares no version, algorithm or method with us."""


class Unauthenticated(PeerError):
    """The peer did not prove who it is, or may not talk to this terminal."""


class OperationError(LocumError):
    """An operation asked of an authority or a private key was not performed."""


class Refused(OperationError):
    """The answerer understood and will not do it."""


class Unavailable(OperationError):
    """The answerer cannot be reached or cannot do it now; another one, or a later try, may."""


class TimedOut(OperationError):
    """No answer within the time allowed."""


class ConfigurationError(LocumError):
    """Something that the user wrote, or forgot to write, must change first."""
