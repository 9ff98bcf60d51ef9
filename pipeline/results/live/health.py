"""The container's health check: does the page at VEOBATCH_SERVE answer, where one is served?"""

from __future__ import annotations

import http.client
import os
import sys
from typing import Final

_TIMEOUT_S: Final = 4.0


def is_answering(bind: str) -> bool:
    """Return whether a server answers at the port of `bind`, `[HOST:]PORT`, on this machine.

    Any status counts: without the token the page refuses, and a server that refuses is alive.
    """
    connection = http.client.HTTPConnection("127.0.0.1", int(bind.rpartition(":")[2]), timeout=_TIMEOUT_S)
    try:
        connection.request("HEAD", "/")
        return connection.getresponse().status < 500
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    served_at = os.environ.get("VEOBATCH_SERVE", "")
    sys.exit(0 if not served_at or is_answering(served_at) else 1)
