"""A token for the Ray that a command starts: without it, any user of the machine could use it.

Its ports are on the loopback interface (`cluster.RayCluster`), which keeps out other machines but
not other users of this one. Ray reads the token when it is first imported; this module is imported
earlier.
"""

from __future__ import annotations

import os
import secrets
import sys

from textspot_ray.config import EngineConfig

_MODE = "RAY_AUTH_MODE"
_TOKEN = "RAY_AUTH_TOKEN"


def protect_own_ray(engine: EngineConfig) -> bool:
    """Set a token for the Ray that this process will start, in this process's environment.

    Only for our own commands: it applies to every Ray that the process uses afterwards. A user's
    own setting is left alone, and so is a cluster that is joined.

    Returns:
        Whether a token was made.
    """
    joins = engine.address or os.environ.get("RAY_ADDRESS", "local") != "local"
    if engine.kind != "ray" or joins or _MODE in os.environ or "ray" in sys.modules:
        return False
    os.environ[_MODE] = "token"
    os.environ[_TOKEN] = secrets.token_hex(32)
    return True
