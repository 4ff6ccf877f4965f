from __future__ import annotations

import dataclasses
import json
import math
import os
import random
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.insight_tables import MakeTable, Page, run_command, word
from tests.support.old_tables import make_version
from textspot_ray.cli import main
from textspot_ray.commands.search import parse_box
from textspot_ray.errors import ExitCode, UsageError
from textspot_ray.query.search import (
    CONFUSIONS,
    Combine,
    Hit,
    Mode,
    Region,
    SearchQuery,
    count_hits,
    fold_confusions,
    impossible_terms,
    ocr_distance,
    search,
    search_images,
)
from textspot_ray.query.views import TableViews, open_views
from textspot_ray.records import Word
from textspot_ray.storage.stores import open_store
from textspot_ray.tables.commit.ledger import open_ledger
from textspot_ray.tables.maintenance.compact import compact


@pytest.fixture
def table(make_table: MakeTable) -> str:
    return make_table(
        [
            Page("a.jpg", [word("fire", 10), word("exit", 55), word("exits", 300, 300)]),
            Page("b.jpg", [word("exit", 10, confidence=0.5), word("fire", 10, 200)]),
        ],
        [
            Page("c.jpg", [word("ex1t", 10), word("text", 600, 400)], source="s3://b/x.tar"),
            Page("d.jpg", [word("o'hara", 10), word("50%", 10, 100), word("r00m", 10, 200)]),
        ],
    )


def find(table: str, *terms: str, **settings: object) -> list[Hit]:
    with open_views(table) as tables:
        return search(tables, SearchQuery(terms, **settings))  # type: ignore[arg-type]


def texts(hits: list[Hit]) -> list[str]:
    return [f"{hit.image_id}:{hit.text}" for hit in hits]


def test_exact_is_the_word_alone_surest_first(table: str) -> None:
    hits = find(table, "EXIT")
    assert texts(hits) == ["a.jpg:exit", "b.jpg:exit"]
    assert hits[0].box == (55, 10, 95, 26)
    assert hits[0].confidence == pytest.approx(0.9)


def test_prefix_and_part_rank_by_what_is_left_over(table: str) -> None:
    assert texts(find(table, "exi", mode=Mode.PREFIX)) == [
        "a.jpg:exit",
        "b.jpg:exit",
        "a.jpg:exits",
    ]
    assert texts(find(table, "xt", mode=Mode.CONTAINS)) == ["c.jpg:text"]


def test_fuzzy_counts_edits(table: str) -> None:
    assert texts(find(table, "exit", mode=Mode.FUZZY, distance=1)) == [
        "a.jpg:exit",
        "b.jpg:exit",
        "a.jpg:exits",
        "c.jpg:ex1t",
    ]
    assert "c.jpg:text" in texts(find(table, "exit", mode=Mode.FUZZY, distance=2))
    assert find(table, "qqqqqqq", mode=Mode.FUZZY, distance=1) == []


def test_confusions_of_readers_cost_less(table: str) -> None:
    hits = find(table, "exit", mode=Mode.FUZZY, distance=1, ocr=True)
    assert [(hit.text, hit.cost) for hit in hits] == [
        ("exit", 0),
        ("exit", 0),
        ("ex1t", 0.5),
        ("exits", 1),
    ]
    assert texts(find(table, "room", mode=Mode.FUZZY, distance=1, ocr=True)) == ["d.jpg:r00m"]
    assert texts(find(table, "room", mode=Mode.FUZZY, distance=1)) == []


def test_patterns(table: str) -> None:
    assert texts(find(table, "^ex.t$", mode=Mode.REGEX)) == [
        "a.jpg:exit",
        "c.jpg:ex1t",
        "b.jpg:exit",
    ]
    for bad in ("(", "(?P<x>a)(?P=x)", "a(?=b)"):  # the last two are Python's, not RE2's
        with pytest.raises(UsageError):
            find(table, bad, mode=Mode.REGEX)


@pytest.mark.parametrize("term", ["o'hara", "50%", "o'hara' OR '1'='1", "%", "_", "\\", "'; --"])
@pytest.mark.parametrize("mode", [Mode.EXACT, Mode.PREFIX, Mode.CONTAINS, Mode.FUZZY])
def test_terms_are_taken_literally(table: str, term: str, mode: Mode) -> None:
    wanted = {"o'hara": "d.jpg:o'hara", "50%": "d.jpg:50%", "%": "d.jpg:50%"}
    hits = texts(find(table, term, mode=mode, distance=0))
    if term in ("o'hara", "50%") or (term == "%" and mode is Mode.CONTAINS):
        assert hits == [wanted[term]]
    else:
        assert hits == []


def test_a_phrase_is_words_in_order_on_one_line(table: str) -> None:
    hits = find(table, "fire", "exit")
    assert texts(hits) == ["a.jpg:fire exit"]
    assert hits[0].box == (10, 10, 95, 26)
    assert hits[0].confidence == pytest.approx(0.81)
    assert find(table, "exit", "fire") == []


def test_all_and_any(table: str) -> None:
    assert texts(find(table, "exit", "fire", combine=Combine.ALL)) == [
        "a.jpg:exit fire",
        "b.jpg:exit fire",
    ]
    assert texts(find(table, "text", "fire", combine=Combine.ANY)) == [
        "a.jpg:fire",
        "b.jpg:fire",
        "c.jpg:text",
    ]
    assert find(table, "text", "fire", combine=Combine.ALL) == []


def test_a_phrase_can_be_fuzzy(table: str) -> None:
    assert texts(find(table, "fira", "exat", mode=Mode.FUZZY)) == ["a.jpg:fire exit"]


def test_boxes_in_pixels_and_shares(table: str) -> None:
    assert texts(find(table, "exit", region=Region(0, 0, 40, 40, False))) == ["b.jpg:exit"]
    assert texts(find(table, region=Region(0.9, 0.8, 1, 1, True))) == ["c.jpg:text"]


def test_confidence_source_and_limit(table: str) -> None:
    assert texts(find(table, "exit", min_confidence=0.6)) == ["a.jpg:exit"]
    assert texts(find(table, source="s3://b/*")) == ["c.jpg:ex1t", "c.jpg:text"]
    assert texts(find(table, source="d.*", limit=1)) == ["d.jpg:o'hara"]


def turned(words: list[Word], degrees: float, x: float = 300, y: float = 300) -> list[Word]:
    """Words turned about a point, with the upright boxes around them."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    found = []
    for item in words:
        corners = [
            (x + (px - x) * c - (py - y) * s, y + (px - x) * s + (py - y) * c)
            for px, py in zip(item.polygon[0::2], item.polygon[1::2], strict=True)
        ]
        xs, ys = [p[0] for p in corners], [p[1] for p in corners]
        found.append(
            Word(
                item.text,
                item.text_confidence,
                item.char_confidences,
                item.detection_confidence,
                (min(xs), min(ys), max(xs), max(ys)),
                tuple(v for p in corners for v in p),
                degrees if degrees <= 180 else degrees - 360,
            )
        )
    return found


@pytest.mark.parametrize("degrees", range(0, 360, 15))
def test_phrases_are_found_at_any_angle(make_table: MakeTable, degrees: int) -> None:
    line = [word("no", 200, 300, 40, 20), word("smoking", 250, 300, 120, 20)]
    below = [word("area", 200, 330, 80, 20)]
    uri = make_table([Page("a.jpg", turned(line + below, degrees))], name=f"t{degrees}")
    assert texts(find(uri, "no", "smoking")) == ["a.jpg:no smoking"]
    assert find(uri, "smoking", "no") == []
    assert find(uri, "no", "area") == []


@pytest.mark.parametrize(
    ("second", "found"),
    [
        (word("exit", 55), True),
        (word("exit", 45), True),  # touching
        (word("exit", 90), False),  # 40 px gap, the line is 16 high
        (word("exit", 55, 30), False),  # below
        (word("exit", 55, 10, 100, 50), False),  # three times as high
        (word("exit", 12), False),  # on top of the first
    ],
)
def test_limits_of_a_line(make_table: MakeTable, second: Word, found: bool) -> None:
    uri = make_table([Page("a.jpg", [word("fire", 10), second])])
    assert bool(find(uri, "fire", "exit")) is found


def test_phrase_of_three_and_of_a_word_twice(make_table: MakeTable) -> None:
    uri = make_table(
        [Page("a.jpg", [word("duty", 10, 10, 40), word("duty", 55, 10, 40), word("free", 100)])]
    )
    assert texts(find(uri, "duty", "duty", "free")) == ["a.jpg:duty duty free"]
    assert texts(find(uri, "free", "duty")) == []


def test_bad_queries_are_refused() -> None:
    for bad in ({"terms": ("",)}, {"distance": 9}):
        with pytest.raises(UsageError):
            SearchQuery(**bad)  # type: ignore[arg-type]
    for box in ("1,2,3", "a,b,c,d", "5,5,1,1", "-1,0,5,5", "0,0,0,0"):
        with pytest.raises(UsageError, match="--box"):
            parse_box(box)
    assert parse_box("0,0,1,0.5").relative and not parse_box("0,0,2,1").relative


letters = st.text(alphabet="o0l1i5s8babcxyz", max_size=8)


@given(letters, letters)
def test_folding_is_a_lower_bound_of_the_readers_distance(a: str, b: str) -> None:
    plain = _levenshtein(a, b)
    assert _levenshtein(fold_confusions(a), fold_confusions(b)) <= ocr_distance(a, b) <= plain
    assert ocr_distance(a, b) == ocr_distance(b, a)


def test_confusion_groups_do_not_overlap() -> None:
    characters = "".join(CONFUSIONS)
    assert len(set(characters)) == len(characters)


def _levenshtein(a: str, b: str) -> int:
    previous = list(range(len(b) + 1))
    for i, ca in enumerate(a, start=1):
        current = [i]
        for j, cb in enumerate(b, start=1):
            current.append(min(previous[j] + 1, current[j - 1] + 1, previous[j - 1] + (ca != cb)))
        previous = current
    return previous[-1]


def test_command_prints_and_exits_as_grep_does(
    table: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command("search", [table, "fire", "exit"]) == ExitCode.OK
    assert "a.jpg  fire exit  10,10,95,26" in capsys.readouterr().out
    assert run_command("search", [table, "exit", "--json", "--limit", "1"]) == ExitCode.OK
    data = json.loads(capsys.readouterr().out)
    assert data["image_id"] == "a.jpg" and data["words"][0]["word_index"] == 1
    assert run_command("search", [table, "nothing"]) == ExitCode.NO_MATCH
    assert capsys.readouterr().out == ""
    with pytest.raises(UsageError, match="--ocr"):
        run_command("search", [table, "x", "--prefix", "--ocr"])


def test_regions_in_shares_hold_for_images_of_any_size(make_table: MakeTable) -> None:
    """The best candidates by the bound may all lie outside: then all words are looked at."""
    small = [Page(f"s{n}.jpg", [word("exit", 30, 30)], size=(100, 100)) for n in range(60)]
    large = [Page("l.jpg", [word("exit", 30, 30, confidence=0.2)], size=(4000, 4000))]
    uri = make_table(small + large)
    corner = Region(0, 0, 0.1, 0.1, True)
    assert texts(find(uri, "exit", region=corner, limit=1)) == ["l.jpg:exit"]
    assert texts(find(uri, "exit", region=corner, limit=None)) == ["l.jpg:exit"]
    assert texts(find(uri, region=corner)) == ["l.jpg:exit"]
    assert find(uri, "exit", "exit", region=corner, combine=Combine.ALL) != []


@pytest.mark.parametrize("region", [Region(0, 0, 300, 200, False), Region(0, 0, 0.5, 0.5, True)])
def test_a_limit_cuts_the_surest_words_of_a_box_and_changes_none(
    make_table: MakeTable, region: Region
) -> None:
    rng = random.Random(7)
    shares = (0.5, 0.7, 0.9)  # many words are equally sure
    pages = [
        Page(
            f"{n}.jpg",
            [
                word(f"w{k}", rng.randrange(500), rng.randrange(400), confidence=rng.choice(shares))
                for k in range(12)
            ],
        )
        for n in range(8)
    ]
    with open_views(make_table(pages)) as tables:
        whole = texts(search(tables, SearchQuery(region=region, limit=None)))
        assert 20 < len(whole) < 90
        for limit in (1, 2, 7, len(whole) - 1, len(whole), 500):
            found = search(tables, SearchQuery(region=region, limit=limit))
            assert texts(found) == whole[:limit]
        one = texts(search(tables, SearchQuery(("w3",), region=region, limit=1)))
    assert one == [text for text in whole if text.endswith(":w3")][:1] != []


@pytest.mark.parametrize(
    "arguments",
    [["fire exit"], ["fire  exit ", "--limit", "9" * 30], ["fire", "exit"]],
)
def test_a_phrase_in_quotes_is_its_words(
    table: str, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command("search", [table, *arguments, "--json"]) == ExitCode.OK
    (hit,) = capsys.readouterr().out.splitlines()
    assert json.loads(hit)["text"] == "fire exit"


def test_a_reader_that_has_seen_enough_is_no_fault(
    table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    stdout = os.fdopen(writer, "w")  # so little output waits in its buffer till the end
    monkeypatch.setattr(sys, "stdout", stdout)
    assert main(["search", table, "exit"]) == ExitCode.OK
    stdout.close()


@pytest.fixture
def bilingual(make_table: MakeTable) -> str:
    return make_table(
        [
            Page("a.jpg", [word("Café"), word("TOTAL:", 60), word("12.00", 120), word("&", 200)]),
            Page("b.jpg", [word("cafe"), word("total", 60), word("1200", 120)]),
        ],
        name="bilingual",
    )


@pytest.mark.parametrize(
    ("term", "found"),
    [
        ("Café", ["Café", "cafe"]),
        ("cafe", ["Café", "cafe"]),
        ("total:", ["TOTAL:", "total"]),
        ("12.00", ["12.00", "1200"]),
        ("&", ["&"]),
    ],
)
def test_terms_are_compared_without_case_accents_and_punctuation(
    bilingual: str, term: str, found: list[str]
) -> None:
    assert [hit.text for hit in find(bilingual, term)] == found
    compact(open_ledger(open_store(bilingual), create=False))
    assert [hit.text for hit in find(bilingual, term)] == found


def test_exact_case_compares_letter_for_letter(bilingual: str) -> None:
    assert texts(find(bilingual, "Café", exact_case=True)) == ["a.jpg:Café"]
    assert texts(find(bilingual, "caf", exact_case=True, mode=Mode.PREFIX)) == ["b.jpg:cafe"]
    assert find(bilingual, "CAFE", exact_case=True) == []
    assert texts(find(bilingual, "total:", "12.00")) == ["a.jpg:TOTAL: 12.00", "b.jpg:total 1200"]


def test_tables_of_version_1_are_searched_too(bilingual: str) -> None:
    make_version(open_store(bilingual), 1)
    assert [hit.text for hit in find(bilingual, "Café")] == ["Café", "cafe"]
    assert [hit.text for hit in find(bilingual, "12.00")] == ["12.00", "1200"]


def test_what_a_list_leaves_out_is_told(table: str, capsys: pytest.CaptureFixture[str]) -> None:
    def said(*arguments: str) -> str:
        run_command("search", [table, *arguments])
        return capsys.readouterr().err

    assert said("exit", "--limit", "1") == "1 of 2 hits in 2 images (--limit 0 for all)\n"
    assert said("--limit", "3") == "3 of 10 hits in 4 images (--limit 0 for all)\n"
    assert said("exit", "--limit", "0") == said("exit") == ""
    assert said("nothing") == "no hits\n"
    assert said("exit", "--min-confidence", "0.99") == (
        "no hits; 2 below the least confidence (--min-confidence 0)\n"
    )
    assert said("exit", "--images", "--limit", "1") == "1 of 2 images (--limit 0 for all)\n"


def test_images_are_counted(table: str, capsys: pytest.CaptureFixture[str]) -> None:
    run_command("search", [table, "ex", "--prefix", "--images", "--json"])
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["image_id"], row["hits"]) for row in found] == [
        ("a.jpg", 2),
        ("c.jpg", 1),
        ("b.jpg", 1),
    ]
    with open_views(table) as tables:
        query = SearchQuery(("ex",), mode=Mode.PREFIX, limit=1)
        assert count_hits(tables, query) == (4, 3)
        assert [image.hits for image in search_images(tables, query)] == [2]


def test_terms_that_cannot_occur_are_told(make_table: MakeTable) -> None:
    uri = make_table([Page("a.jpg", [word("cafe")])], name="letters")
    with open_views(uri) as tables:
        alphabet = {"alphabet": "abcdefghijklmnopqrstuvwxyz0123456789"}
        files = dataclasses.replace(tables.files, fingerprint=alphabet)
    with TableViews(files) as tables:

        def missing(*terms: str, **settings: object) -> dict[str, str]:
            return impossible_terms(tables, SearchQuery(terms, **settings))  # type: ignore[arg-type]

        assert missing("Café", "total:", "12.00") == {}
        assert missing("кафе", "cafe") == {"кафе": "кафе"}
        assert missing("Café", exact_case=True) == {"Café": "Cé"}
        assert missing("naïve&") == {} and missing("&") == {"&": "&"}
