"""Ports for servers that start later than their port is named, or more than once."""

from __future__ import annotations

import random
import socket

PORT_RANGE = range(20_000, 32_768)
"""Below the ports from which Linux and others give to whoever asks for any (32768 or 49152 and above)."""


def free_port() -> int:
    """A port that nobody has, and that is given to nobody who asks for any: it stays free until it is used.

    One from the kernel would not: while its server is not there yet, or away, a test beside this one gets it.
    """
    rng = random.SystemRandom()  # not the shared one: Hypothesis gives every process the same seed
    while True:
        port = rng.choice(PORT_RANGE)
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
