"""A token for the Ray that a command starts: without it, any user of the machine may give it work.

Its ports are on the loopback interface (`cluster.RayCluster`), which keeps other machines out, but
not the other users of this one. Ray reads the token when it is first imported; this module is
imported before.
"""

from __future__ import annotations

import os
import secrets
import sys

from textspot_ray.config import EngineConfig

_MODE = "RAY_AUTH_MODE"
_TOKEN = "RAY_AUTH_TOKEN"


def protect_own_ray(engine: EngineConfig) -> bool:
    """Give the Ray that this process will start a token of its own, in this process's environment.

    Only for programs of ours: it holds for every Ray that the process meets afterwards. A user's
    own setting is left alone, as is a cluster that is joined.

    Returns:
        Whether a token was made.
    """
    joins = engine.address or os.environ.get("RAY_ADDRESS", "local") != "local"
    if engine.kind != "ray" or joins or _MODE in os.environ or "ray" in sys.modules:
        return False
    os.environ[_MODE] = "token"
    os.environ[_TOKEN] = secrets.token_hex(32)
    return True
