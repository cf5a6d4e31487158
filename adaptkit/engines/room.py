"""Whether there is room for workers, and whether anybody listens at an address: asked before anything starts."""

from __future__ import annotations

import socket

from adaptkit.features.decoding import cores

STANDS = "must be that of a Ray cluster that stands"


def hold_cores(asked: float) -> None:
    """Refuse workers of this machine that want more cores than it has.

    Raises:
        ValueError: saying how many there are.
    """
    if asked > (there := cores()):
        raise ValueError(
            f"--workers times --cpus must be at most the cores of this machine, {there}; got {asked:g}; lower one of "
            "them, or name a cluster by --address"
        )


def reach(address: str) -> None:
    """Refuse HOST:PORT where nobody listens; Ray would try again without end. Other kinds of address are Ray's affair.

    Raises:
        ValueError: with what went wrong.
    """
    if ":" not in address or "://" in address:
        return
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except (OSError, ValueError) as error:
        raise ValueError(f"--address {STANDS}; got {address!r}: {error}") from error


def fits(node: dict[str, float], what: str, each: float) -> int:
    """How many workers that take so much of something have room on a machine; 10,000 where they take nothing."""
    return int(node.get(what, 0) / each + 1e-6) if each else 10_000
