"""`locum terminal ipsec`: security associations with a peer, made with a delegate's help and kept until the end.

Loads the engine only when it runs. Imports no database, no X.509 and no public-key code: a device without them
runs this.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from locum.cli.steps import timed

#: Seconds after which a lifetime may end at the least: its successor needs time to be made.
SHORTEST_LIFETIME = 10.0


class Version(StrEnum):
    """Versions of IKE."""

    ONE = "1"
    TWO = "2"


class ModeWord(StrEnum):
    """Modes of IKEv1."""

    MAIN = "main"
    AGGRESSIVE = "aggressive"


class Plane(StrEnum):
    """Who protects the packets."""

    AUTO = "auto"
    KERNEL = "kernel"
    TUN = "tun"


def ipsec(
    credential: Annotated[
        Path,
        typer.Option("--credential", metavar="FILE", help="The credential file from `locum enroll terminal`."),
    ],
    peer: Annotated[str, typer.Option("--peer", metavar="ADDR", help="The peer's address, or its name in DNS.")],
    respond: Annotated[bool, typer.Option("--respond", help="Wait for the peer to begin.")] = False,
    ike: Annotated[Version, typer.Option("--ike", help="The version of IKE.")] = Version.TWO,
    mode: Annotated[ModeWord, typer.Option("--mode", help="IKEv1: how its first phase goes.")] = ModeWord.MAIN,
    auth: Annotated[
        str,
        typer.Option(
            "--auth",
            metavar="M,..",
            help="IKEv1: ways to authenticate: rsa, ecdsa, psk, rsa-encryption; else the first three.",
        ),
    ] = "",
    allow_aggressive_psk: Annotated[
        bool,
        typer.Option(
            "--allow-aggressive-psk",
            help="IKEv1: aggressive mode with a pre-shared key, which listeners can then try to guess.",
        ),
    ] = False,
    local_id: Annotated[
        str,
        typer.Option("--local-id", metavar="ID", help="Who to be, of what the delegate has for us."),
    ] = "",
    remote_id: Annotated[
        str, typer.Option("--remote-id", metavar="ID", help="Who the peer must prove to be; else anybody allowed.")
    ] = "",
    local_ts: Annotated[
        list[str] | None,
        typer.Option("--local-ts", metavar="NET", help="Traffic at this end, as 10.1.0.0/16; else the address."),
    ] = None,
    remote_ts: Annotated[
        list[str] | None,
        typer.Option("--remote-ts", metavar="NET", help="Traffic at the peer's end; several times for several."),
    ] = None,
    transport: Annotated[bool, typer.Option("--transport", help="Transport mode, without a tunnel.")] = False,
    proposal: Annotated[
        str,
        typer.Option("--proposal", metavar="P,..", help="Algorithms of IKE, as aes256gcm16-prfsha384-x25519."),
    ] = "",
    esp: Annotated[
        str, typer.Option("--esp", metavar="P,..", help="Algorithms of ESP, as aes256gcm16-x25519-esn.")
    ] = "",
    ah: Annotated[str, typer.Option("--ah", metavar="P,..", help="AH instead of ESP, as sha256-x25519.")] = "",
    lifetime: Annotated[
        float, typer.Option("--lifetime", metavar="SECONDS", min=SHORTEST_LIFETIME, help="Of the IKE SA.")
    ] = 14_400.0,
    child_lifetime: Annotated[
        float,
        typer.Option("--child-lifetime", metavar="SECONDS", min=SHORTEST_LIFETIME, help="Of the SAs for traffic."),
    ] = 3_600.0,
    dpd: Annotated[
        float,
        typer.Option("--dpd", metavar="SECONDS", min=0.0, help="Silence until the peer must show life; 0: never."),
    ] = 30.0,
    ppk: Annotated[
        bool, typer.Option("--ppk", help="IKEv2: a post-quantum pre-shared key where both have one.")
    ] = False,
    require_ppk: Annotated[bool, typer.Option("--require-ppk", help="IKEv2: no peer without such a key.")] = False,
    keys_from_delegate: Annotated[
        bool,
        typer.Option("--keys-from-delegate", help="IKEv2: the delegate derives the keys of the traffic too."),
    ] = False,
    force_encapsulation: Annotated[
        bool, typer.Option("--force-encapsulation", help="ESP in UDP even where there is no NAT.")
    ] = False,
    dataplane: Annotated[
        Plane, typer.Option("--dataplane", help="The kernel's IPsec or ours in user space; auto tries both.")
    ] = Plane.AUTO,
    local: Annotated[
        str, typer.Option("--local", metavar="ADDR", help="This end's address; else the one towards the peer.")
    ] = "",
    port: Annotated[
        int | None,
        typer.Option("--port", metavar="N", min=1, max=65535, help="One UDP port instead of 500 and 4500."),
    ] = None,
    peer_port: Annotated[
        int | None,
        typer.Option("--peer-port", metavar="N", min=1, max=65535, help="The peer's: 500, or 4500 with --port."),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", metavar="SECONDS", min=0.1, help="Give up without an SA by then; else never."),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show every step on standard error.")] = False,
) -> None:
    """Have IPsec SAs with a peer, and keep them until SIGINT or SIGTERM.

    Prints `ready ...` when it listens, and a line for every SA that is made, replaced or lost. An SA that is lost
    is made again, with growing pauses; with --respond the peer has to begin. At the end the SAs are deleted at
    both ends and everything that was installed is removed. Needs CAP_NET_ADMIN.
    """
    # Loaded here, because the other commands of a terminal need no engine of IKE.
    from locum.cli.terminal_ipsec_run import Running, run_ipsec
    from locum.terminal.ipsec_options import IpsecOptions

    options = IpsecOptions(
        version=ike,
        mode=mode,
        methods=auth,
        aggressive_psk=allow_aggressive_psk,
        local_identity=local_id,
        remote_identity=remote_id,
        local_traffic=local_ts or (),
        remote_traffic=remote_ts or (),
        transport=transport,
        proposal=proposal,
        esp=esp,
        ah=ah,
        lifetime=lifetime,
        child_lifetime=child_lifetime,
        liveness=dpd,
        force_encapsulation=force_encapsulation,
        keys_from_authority=keys_from_delegate,
        use_ppk=ppk,
        ppk_required=require_ppk,
    )
    running = Running(
        peer=peer,
        respond=respond,
        local=local,
        port=port,
        peer_port=peer_port,
        dataplane=dataplane,
        timeout=timeout,
        observer=timed() if verbose else None,
    )
    run_ipsec(credential, options, running)
