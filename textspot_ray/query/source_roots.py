"""Pictures that have moved since they were read: ``OLD=NEW`` in front of their URIs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from textspot_ray.errors import UsageError
from textspot_ray.sources.identity import canonical_base


@dataclass(frozen=True, slots=True)
class SourceRoots:
    """Where sources are now.

    Attributes:
        moves: Pairs of canonical prefixes that end in a slash, longest old one first.
    """

    moves: tuple[tuple[str, str], ...] = ()

    def move(self, source: str) -> str:
        """The canonical URI of a source today; archives move with the folder they lie in.

        >>> parse_roots(["/old photos=s3://b/new"]).move("file:///old%20photos/a.tar")
        's3://b/new/a.tar'
        """
        for old, new in self.moves:
            if source.startswith(old):
                return new + source.removeprefix(old)
            if source == old.rstrip("/"):  # the archive itself was renamed
                return new.rstrip("/")
        return source


def parse_roots(pairs: Sequence[str]) -> SourceRoots:
    """Read ``OLD=NEW`` pairs of paths or URIs; ``==`` stands for an equals sign in a name.

    Raises:
        UsageError: A pair has no equals sign, or an empty side.
    """
    moves = []
    for pair in pairs:
        old, sep, new = pair.replace("==", "\0").partition("=")
        bases = [canonical_base(side.replace("\0", "=")) for side in (old, new)]
        if not sep or bases[0] is None or bases[1] is None:
            raise UsageError(f"--source-root takes OLD=NEW, two paths or URIs, not {pair!r}")
        moves.append((bases[0], bases[1]))
    return SourceRoots(tuple(sorted(moves, key=lambda move: -len(move[0]))))
