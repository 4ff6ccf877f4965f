"""Which images a glob selects: people write plain names, tables hold encoded ones.

A glob may match the id or URI as in the table (``s3://b/x.tar#*``), the same decoded
(``*my photos*``, ``*日本*``), or only the name of a file or an archive (``img_1.jpg``, ``img_4*``,
``scans.zip``).
"""

from __future__ import annotations

import re

from textspot_ray.sources.identity import encode

# one character as it may stand in an id: plain, or as the percent-encoded bytes of its UTF-8
_ANY_ENCODED = (
    "(?:%[0-7][0-9A-F]|%[CD][0-9A-F]%[89AB][0-9A-F]|%E[0-9A-F](?:%[89AB][0-9A-F]){2}"
    "|%F[0-7](?:%[89AB][0-9A-F]){3}|[^%]|%)"
)


def source_condition(glob: str) -> tuple[str, dict[str, str]]:
    """SQL condition on ``images`` for the images a glob selects, with its named parameters.

    >>> source_condition("s3://b/*")[0]
    '(source GLOB $glob0 OR image_id GLOB $glob0)'
    """
    parameters = {"glob0": glob}
    conditions = ["source GLOB $glob0", "image_id GLOB $glob0"]
    if set(glob) & set("?["):
        parameters["regex0"] = _regex(glob, ".*")
        conditions += [f"regexp_full_match({c}, $regex0, 's')" for c in ("source", "image_id")]
    elif (encoded := "*".join(encode(part) for part in glob.split("*"))) != glob:
        parameters["glob1"] = encoded
        conditions += ["source GLOB $glob1", "image_id GLOB $glob1"]
    if "/" not in glob and "#" not in glob:
        parameters["regex1"] = f"(?:.*[/#])?{_regex(glob, '[^/#]*')}(?:#page=[0-9]+)?"
        conditions += [f"regexp_full_match({c}, $regex1, 's')" for c in ("image_id", "source")]
    return f"({' OR '.join(conditions)})", parameters


def _regex(glob: str, star: str) -> str:
    """The glob as an RE2 pattern that matches encoded and plain names."""
    parts = []
    at = 0
    while at < len(glob):
        character = glob[at]
        at += 1
        end = glob.find("]", at + 1) if character == "[" else -1
        if character == "*":
            parts.append(star)
        elif character == "?":
            parts.append(_ANY_ENCODED)
        elif end > 0:
            parts.append(_class(glob[at:end]))
            at = end + 1
        else:
            parts.append(_either(character))
    return "".join(parts)


def _either(character: str) -> str:
    encoded = encode(character)
    plain = re.escape(character)
    return plain if encoded == character else f"(?:{plain}|{re.escape(encoded)})"


def _class(inside: str) -> str:
    """``[abc]``, ``[!a-c]``: plain sets stay sets; characters that are encoded become choices."""
    negated = inside[:1] in ("!", "^")
    body = inside[1:] if negated else inside
    if negated or "-" in body or encode(body) == body:
        safe = re.sub(r"([\\\]\[^])", r"\\\1", body)
        return f"[{'^' if negated else ''}{safe}]"
    return "(?:" + "|".join(_either(character) for character in body) + ")"
