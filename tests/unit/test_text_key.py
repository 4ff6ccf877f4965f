from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textspot_ray.text_key import text_key


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("exit", "exit"),
        ("EXIT!", "exit"),
        ("Café-Bar", "cafebar"),
        ("Cafe\u0301", "cafe"),
        ("Straße", "strasse"),
        ("ＡＢＣ１２", "abc12"),
        ("ﬁn", "fin"),
        ("Ελλάς", "ελλασ"),
        ("Ёлка", "елка"),
        ("שָׁלוֹם", "שלום"),
        ("が", "が"),  # voicing is no accent
        ("각", "각"),
        ("हिन्दी", "हिन्दी"),  # nor are vowel signs
        ("ไม่", "ไม่"),
        ("☎\ufe0f", ""),
        ("&", ""),
        ("", ""),
    ],
)
def test_texts_fold(text, key):
    assert text_key(text) == unicodedata.normalize("NFC", key)


@given(st.text(max_size=12))
def test_the_key_of_a_key_is_itself(text):
    assert text_key(text_key(text)) == text_key(text)


@given(st.text(max_size=12))
def test_case_and_composition_make_no_difference(text):
    key = text_key(text)
    assert text_key(unicodedata.normalize("NFD", text)) == key
    assert text_key(text.casefold()) == key
