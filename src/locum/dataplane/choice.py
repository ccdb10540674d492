"""Which installer does the work here: the kernel's IPsec where there is one, else ours over a TUN device.

Knows how to find out and to say why, and nothing of associations.
"""

from __future__ import annotations

from collections.abc import Callable

from locum.dataplane.kernel import KernelInstaller
from locum.dataplane.userspace import UserspaceInstaller
from locum.errors import ConfigurationError, OperationError
from locum.ipsec.installer import Installer

AUTO, KERNEL, TUN = "auto", "kernel", "tun"
#: What a person may choose from.
CHOICES = (AUTO, KERNEL, TUN)


def _ignore(_: str) -> None:
    """What is told to those who do not listen."""


def choose_installer(kind: str = AUTO, *, explain: Callable[[str], None] = _ignore) -> Installer:
    """The installer of this kind, not started yet; with `auto` the kernel's where it works, else the one over TUN.

    Whether the kernel's works is tried out in the network namespace of the calling thread: an association is
    added and removed. `explain` is told in one line which one it is, and why.
    Raises: ConfigurationError for no such kind; for the kernel's alone, Unavailable and Refused when it does not
    work. What the one over TUN needs is seen when it is started.
    """
    if kind not in CHOICES:
        raise ConfigurationError(f"{kind!r} is not a data plane: choose from {', '.join(CHOICES)}")
    if kind == TUN:
        explain("data plane: tun, as asked for")
        return UserspaceInstaller()
    installer = KernelInstaller()
    try:
        installer.start()
    except OperationError as error:
        if kind == KERNEL:
            raise
        explain(f"data plane: tun, since the kernel does not do it: {error}")
        return UserspaceInstaller()
    installer.close()
    explain("data plane: kernel, as asked for" if kind == KERNEL else "data plane: kernel, since it has ESP")
    return installer
