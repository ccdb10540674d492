"""System A, the device: drives TLS and IKE with a delegate's answers and contains no public-key code.

`connect_tls`, `Terminal` and `IpsecTerminal` are for asyncio, `connect_tls_blocking` and `BlockingTerminal` for
everybody else.
What is not used is not loaded.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from locum.terminal.aio import Terminal, connect_tls
    from locum.terminal.blocking import BlockingTerminal, connect_tls_blocking
    from locum.terminal.credential import TerminalCredential, load_credential
    from locum.terminal.flow import Malfunction
    from locum.terminal.ipsec import IpsecTerminal
    from locum.terminal.steps import TerminalStep
    from locum.terminal.tls_socket import TlsSocket

__all__ = [
    "BlockingTerminal",
    "IpsecTerminal",
    "Malfunction",
    "Terminal",
    "TerminalCredential",
    "TerminalStep",
    "TlsSocket",
    "connect_tls",
    "connect_tls_blocking",
    "load_credential",
]

_HOMES = {
    "BlockingTerminal": "blocking",
    "IpsecTerminal": "ipsec",
    "Malfunction": "flow",
    "Terminal": "aio",
    "TerminalCredential": "credential",
    "TerminalStep": "steps",
    "TlsSocket": "tls_socket",
    "connect_tls": "aio",
    "connect_tls_blocking": "blocking",
    "load_credential": "credential",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
