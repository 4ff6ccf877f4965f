"""What is shown of options and URLs: only what is known to be harmless."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.support.provider_options import MARK, marked_options
from textspot_ray.config import config_from_dict, config_to_dict, dump_config, unsafe_keys
from textspot_ray.errors import ConfigError
from textspot_ray.redaction import REDACTED, Redactor, redact_options, redact_text


def test_no_marked_value_is_shown_and_the_harmless_ones_are() -> None:
    options, marks = marked_options()
    assert len(marks) == 40
    shown = redact_options(options)
    assert MARK not in repr(shown)
    assert shown["s3"]["anon"] is False
    assert shown["s3"]["endpoint_url"] == "http://***@127.0.0.1:9/minio"
    assert shown["s3"]["client_kwargs"]["region_name"] == "eu-central-1"
    assert shown["s3"]["config_kwargs"]["retries"] == {"max_attempts": 2}
    assert shown["s3"]["s3_additional_kwargs"]["ServerSideEncryption"] == "AES256"
    assert shown["gs"]["project"] == "archive"
    assert shown["sftp"]["port"] == 22


@pytest.mark.parametrize(
    "options",
    [
        {"connection_string": "AccountKey=x"},  # not nested by protocol
        {"s3": ["x"]},
        {"s3": {"anon": "x"}},  # a switch that is none
        {"s3": {"endpoint_url": "x y"}},  # no URL
        {"s3": {"client_kwargs": "x"}},
        {"s3": {"weird": {"anon": True}}},  # a harmless name in an unknown place
        {"s3": {"pin": 1234}},
    ],
)
def test_a_harmless_name_alone_is_not_enough(options: dict[str, Any]) -> None:
    shown = redact_options(options)
    assert shown != options
    assert REDACTED in repr(shown)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:pw@h.example/a", "https://***@h.example/a"),
        ("https://TOKEN@h.example", "https://***@h.example"),
        ("https://me:p/w?x@h.example/a", "https://***@h.example/a"),
        ("at https://h/x?sig=1&page=2#p.", "at https://h/x?sig=***&page=2#p."),
        ("(https://h/x?X-Amz-Signature=9f)", "(https://h/x?X-Amz-Signature=***)"),
        ("https://h:8080/x@y", "https://h:8080/x@y"),
        ("s3://bucket/what?.jpg", "s3://bucket/what?.jpg"),
        ("abfs://photos@account.dfs.core.windows.net/a", None),
        ("file:///a/b@c?d", None),
        ("no URL: a@b?c=d", None),
    ],
)
def test_urls_in_any_text(text: str, shown: str | None) -> None:
    assert redact_text(text) == (text if shown is None else shown)


def test_texts_of_drivers_are_rid_of_what_the_configuration_hides() -> None:
    options, marks = marked_options()
    uri = "https://me:pa%20ss@h.example/list?token=abcd1234"
    redactor = Redactor([options], [uri])
    for mark in marks:
        assert mark not in redactor(f"403 for key={mark}, {mark!r}")
    said = redactor("login me:pa ss refused, token abcd1234; account archive, region eu-central-1")
    assert said == "login *** refused, token ***; account archive, region eu-central-1"
    error = ValueError(f"bad {marks[0]}", 3)
    redactor.scrub(error)
    assert error.args == ("bad ***", 3)


def test_the_configuration_is_shown_without_them() -> None:
    options, marks = marked_options()
    before = copy.deepcopy(options)
    config = config_from_dict(
        {
            "source": {
                "uris": [f"https://me:{MARK}@h/a.csv", f"https://h/?sig={MARK}", "s3://b/c"],
                "base": f"https://{MARK}@h/",
                "storage_options": options,
            },
            "output": {"uri": f"ftp://me:{MARK}@h/out", "storage_options": options},
        }
    )
    assert MARK not in dump_config(config)
    assert options == before
    assert config_to_dict(config)["source"]["uris"][2] == "s3://b/c"
    unsafe = unsafe_keys(config)
    assert len([key for key in unsafe if key.startswith("output.storage_options")]) <= len(marks)
    assert {"source.uris[0]", "source.uris[1]", "source.base", "output.uri"} <= set(unsafe)


@pytest.mark.parametrize(
    "data",
    [
        {"source": {"storage_options": f"AccountKey={MARK}"}},
        {"source": f"https://me:{MARK}@h"},
        {"source": {"limit": f"https://me:{MARK}@h"}},
    ],
)
def test_errors_about_wrong_values_do_not_repeat_secrets(data: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        config_from_dict(data)
    assert MARK not in str(caught.value)
