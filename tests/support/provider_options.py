"""Storage options as the providers' drivers take them, with a marked value for every secret."""

from __future__ import annotations

import itertools
from typing import Any

MARK = "hunter2"


def marked_options() -> tuple[dict[str, Any], list[str]]:
    """Options by protocol, and the 40 values in them that nobody may see."""
    numbers = itertools.count()
    marks: list[str] = []

    def secret(form: str = "{}") -> str:
        marks.append(f"{MARK}-{next(numbers):02d}")
        return form.format(marks[-1])

    options: dict[str, Any] = {
        "s3": {
            "anon": False,
            "key": secret(),
            "secret": secret(),
            "token": secret(),
            "profile": secret(),
            "endpoint_url": secret("http://me:{}@127.0.0.1:9/minio"),
            "client_kwargs": {
                "region_name": "eu-central-1",
                "aws_session_token": secret(),
                "endpoint_url": secret("http://127.0.0.1:9/?sig={}"),
            },
            "config_kwargs": {
                "retries": {"max_attempts": 2},
                "proxies": {"https": secret("http://{}@proxy")},
            },
            "s3_additional_kwargs": {
                "ServerSideEncryption": "AES256",
                "SSECustomerKey": secret(),
            },
        },
        "gs": {
            "project": "archive",
            "token": {"private_key": secret(), "client_email": "a@b", "parts": [secret()]},
            "session_kwargs": {"headers": [("X-Goog", secret())]},
            "access": secret(" {} "),
        },
        "abfs": {
            "account_name": "archive",
            "account_key": secret(),
            "sas_token": secret("?sv=1&sig={}"),
            "credential": secret(),
            "client_secret": secret(),
            "connection_string": secret("AccountName=archive;AccountKey={};Suffix=core"),
            "account_host": secret("{}@host"),
        },
        "https": {
            "headers": {"Authorization": secret("Bearer {}"), "X-Api": [secret(), secret()]},
            "auth": ["me", secret()],
            "cookies": {"session": secret()},
            "client_kwargs": {
                "headers": {"Cookie": secret("a=b; s={}")},
                "auth": {"login": "me", "password": secret()},
                "trust_env": False,
            },
            "ssl": {"pem": secret()},
        },
        "sftp": {
            "host": "files.example",
            "port": 22,
            "username": secret(),
            "password": secret(),
            "passphrase": secret(),
            "pkey": secret(),
            "key_filename": secret(),
        },
        "ftp": {"pass": secret(), "passwd": secret(), "user": secret()},
        "webhdfs": {"delegation": secret(), "kerb_kwargs": {"principal": secret()}},
        "github": {"token": secret(), "pat": {"a": {"b": [{"c": secret()}]}}},
        "dropbox": {"access_token": secret()},
    }
    return options, marks
