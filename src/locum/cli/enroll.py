"""`locum enroll`: makes a terminal's channel key, here and in a credential file (A4, A12).

Never prints a key, and never leaves a terminal enrolled whose credential could not be written.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from locum.cli.options import DEFAULT_DATA, ConfigOption, DataOption, actor, new_app, open_store
from locum.cli.output import note, say, warn
from locum.crypto.symmetric import constant_time_equal
from locum.errors import ConfigurationError
from locum.files import write_private
from locum.link.oscore import AES_CCM_16_64_128, CHACHA20_POLY1305_NAME, Credential
from locum.names import DelegateAddress, HostPort
from locum.node import config
from locum.store import Action, Channel, Store
from locum.terminal.credential import (
    FILE_LIMIT,
    KEY_LENGTHS,
    SALT_LENGTH,
    DelegateCredential,
    TerminalCredential,
    load_credential,
    save_credential,
)

app = new_app("Make the credential of a new terminal or edge.")


class Algorithm(StrEnum):
    """The AEAD of a channel."""

    AES_CCM = AES_CCM_16_64_128
    CHACHA20 = CHACHA20_POLY1305_NAME


@dataclass(frozen=True, slots=True)
class _Before:
    """What a credential file had, and keeps when it is appended to; perhaps nothing but the name."""

    name: str
    delegates: tuple[DelegateCredential, ...]


@app.command("terminal")
def enroll_terminal(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="What the terminal is called, in policies and logs.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where to write the credential file (0600).")],
    data: DataOption = DEFAULT_DATA,
    config_file: ConfigOption = None,
    address: Annotated[
        list[str] | None,
        typer.Option(
            "--address",
            metavar="coap://HOST:PORT",
            help="Where the terminal reaches this delegate; several are tried in order. coap+tcp:// is TCP. "
            "From the configuration if not given.",
        ),
    ] = None,
    algorithm: Annotated[
        Algorithm, typer.Option("--algorithm", help="What protects the channel.")
    ] = Algorithm.AES_CCM,
    secure_path: Annotated[
        bool, typer.Option("--secure-path", help="The path is secure by itself: messages go plain.")
    ] = False,
    append: Annotated[
        bool, typer.Option("--append", help="Add this delegate to FILE, the terminal's credential at another one.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Give a terminal that is enrolled a new key; the old one ends.")
    ] = False,
) -> None:
    """Enroll a terminal: its identity, its channel key and this delegate's address go into FILE."""
    configuration = config.load(data, config_file)
    addresses = [DelegateAddress.parse(text) for text in address or []] or _configured(configuration, secure_path)
    before = _existing(out, name, append=append, replace=replace)
    with open_store(data, config_file, create=True) as store:
        shared = None if before is None else _shared_channel(store, before)
        if before is not None and shared is not None and not replace:
            # The credential has a key of this node already: only the ways to it are new.
            credential = _extended(before, _entries(shared, addresses, secure_path))
            save_credential(out, credential, replace=True)
            say(f"{out}: added {', '.join(map(str, addresses))} under the key that is there")
            return
        if before is not None and replace:
            before = _without(before, shared, addresses)
        _enroll(store, name, out, before, addresses, algorithm, secure_path=secure_path, replace=replace)
        _note_missing_policy(store, name)


def _enroll(
    store: Store,
    name: str,
    out: Path,
    before: _Before | None,
    addresses: list[DelegateAddress],
    algorithm: Algorithm,
    *,
    secure_path: bool,
    replace: bool,
) -> None:
    content = out.read_bytes() if out.exists() else None
    written = False

    def deliver(channel: Channel) -> None:
        nonlocal written
        entries = _entries(_protection(channel), addresses, secure_path)
        credential = (
            TerminalCredential(name=name, delegates=tuple(entries))
            if before is None
            else _extended(before, entries)
        )
        save_credential(out, credential, replace=content is not None)
        written = True

    try:
        channel = store.terminals.enroll(
            name,
            algorithm=str(algorithm),
            secret=os.urandom(KEY_LENGTHS[str(algorithm)]),
            salt=os.urandom(SALT_LENGTH),
            actor=actor(),
            replace=replace,
            deliver=deliver,
        )
    except BaseException:
        if written:
            _put_back(out, content)
        raise
    say(f"enrolled terminal {name} (kid {channel.kid.hex()}, {algorithm})")
    say(f"{out}: credential for {', '.join(map(str, addresses))}")
    if secure_path:
        warn("messages to this delegate go plain; it accepts them only at its secure_path_listen")


def _configured(configuration: config.Configuration, secure_path: bool) -> list[DelegateAddress]:
    """Where terminals reach the delegate, as far as the configuration says so."""
    delegate = configuration.delegate
    if secure_path:
        if delegate.secure_path_listen is None:
            raise ConfigurationError(
                "the delegate has no secure path; fix: set secure_path_listen in [delegate] of locum.toml"
            )
        return [_reachable(delegate.secure_path_listen)]
    return list(delegate.addresses) or [_reachable(delegate.listen)]


def _reachable(endpoint: HostPort) -> DelegateAddress:
    if not endpoint.reachable:
        raise ConfigurationError(
            f"terminals cannot reach a delegate at {endpoint}; say where with --address coap://HOST:PORT, "
            "or with addresses in [delegate] of locum.toml"
        )
    return DelegateAddress("udp", endpoint)


def _existing(out: Path, name: str, *, append: bool, replace: bool) -> _Before | None:
    """The credential to extend, or None to begin a new one. Raises: ConfigurationError when FILE is in the way."""
    if not out.exists():
        if append:
            raise ConfigurationError(f"{out}: no such credential file to append to")
        return None
    if not append and not replace:
        raise ConfigurationError(f"{out} exists already; --append adds this delegate to it")
    credential = load_credential(out)
    if credential.name != name:
        raise ConfigurationError(f"{out} is the credential of {credential.name!r}, not of {name!r}")
    if not append and len({delegate.channel for delegate in credential.delegates}) > 1:
        raise ConfigurationError(f"{out} has keys of other delegates too; --append with --replace keeps those")
    return _Before(credential.name, credential.delegates) if append else None


def _shared_channel(store: Store, credential: _Before) -> Credential | None:
    """The channel in `credential` that this node shares, if there is one."""
    for delegate in credential.delegates:
        channel = delegate.channel and store.terminals.find_channel(delegate.channel.kid)
        if delegate.channel and channel and constant_time_equal(channel.secret, delegate.channel.secret):
            return delegate.channel
    return None


def _protection(channel: Channel) -> Credential:
    return Credential(
        kid=channel.kid,
        peer_id=channel.delegate_id,
        secret=channel.secret,
        salt=channel.salt,
        algorithm=channel.algorithm,
    )


def _entries(channel: Credential, addresses: list[DelegateAddress], secure_path: bool) -> list[DelegateCredential]:
    return [DelegateCredential(address=address, secure_path=secure_path, channel=channel) for address in addresses]


def _extended(before: _Before, entries: list[DelegateCredential]) -> TerminalCredential:
    """`before` with `entries` at its end. Raises: ConfigurationError when an address is there already."""
    known = {delegate.address for delegate in before.delegates} & {entry.address for entry in entries}
    if known:
        raise ConfigurationError(
            f"the credential has {min(map(str, known))} already; --replace makes a new key for it"
        )
    return TerminalCredential(name=before.name, delegates=(*before.delegates, *entries))


def _without(before: _Before, channel: Credential | None, addresses: list[DelegateAddress]) -> _Before:
    """What is left of `before` without the entries of a key that ends, and those at `addresses`."""
    return _Before(
        before.name,
        tuple(
            delegate
            for delegate in before.delegates
            if delegate.address not in addresses and (channel is None or delegate.channel != channel)
        ),
    )


def _put_back(out: Path, content: bytes | None) -> None:
    """Undo the writing of the credential after the database did not take the enrolment."""
    if content is None:
        out.unlink(missing_ok=True)
    else:
        write_private(out, content[:FILE_LIMIT], what="credential file", replace=True)


def _note_missing_policy(store: Store, name: str) -> None:
    rules = store.policies.all()
    if not any(rule.action is Action.ALLOW and rule.terminal in ("*", name) for rule in rules):
        note(
            f"no policy allows {name} to reach a peer yet; "
            f"see: locum policy add --terminal {name} --peer dns:NAME --action allow"
        )
