"""The runner's failure ladder, window and order, with acted workers."""

from __future__ import annotations

import time

import pytest

from tests.support.inprocess import Bench, ListReader, ListWriter
from textspot_ray.engine.slot import worker_pool
from textspot_ray.engine.slot.ports import Died, PageWork
from textspot_ray.errors import AbortedError, TextspotError
from textspot_ray.records import Encoded, ErrorKind, ImageError, Item, Shard, ShardId, Stage, Status

GOOD = "words=red,blue"
BOTH = pytest.mark.parametrize("split", [False, True], ids=["one worker", "two workers"])


def texts(result):
    return [word.text for word in result.words]


@BOTH
def test_words_none_and_errors_are_told_apart(split):
    results = Bench(split=split).run([GOOD, "words=", "do=bad", "do=raise", GOOD])
    assert [results[f"{n}.0"].status for n in range(5)] == [
        Status.WORDS,
        Status.EMPTY,
        Status.FAILED,
        Status.FAILED,
        Status.WORDS,
    ]
    assert texts(results["0.0"]) == ["red", "blue"]
    assert results["2.0"].error.kind is ErrorKind.CORRUPT
    assert results["3.0"].error.kind is ErrorKind.INTERNAL
    assert "scripted" in results["3.0"].error.message


@BOTH
@pytest.mark.parametrize("act", ["do=crash", "words=x;read_do=crash"])
def test_an_image_that_kills_is_found_among_those_in_flight(split, act):
    bench = Bench(split=split)
    results = bench.run([GOOD, GOOD, act, GOOD, GOOD, GOOD])
    failed = [name for name, r in results.items() if r.error is not None]
    assert failed == ["2.0"] and len(results) == 6
    error = results["2.0"].error
    assert error.kind is ErrorKind.CRASHED and error.attempts == 2
    assert error.stage is (Stage.RECOGNISE if "read_do" in act else Stage.DETECT)
    assert all(texts(r) == ["red", "blue"] for name, r in results.items() if name != "2.0")


@BOTH
@pytest.mark.parametrize("act", ["do=stall", "words=x;read_do=stall"])
def test_an_image_that_stalls_meets_the_deadline(split, act):
    began = time.monotonic()
    results = Bench(split=split).run([GOOD, GOOD, act, GOOD, GOOD])
    assert time.monotonic() - began < 5
    assert [name for name, r in results.items() if r.error] == ["2.0"]
    assert results["2.0"].error.kind is ErrorKind.STALLED
    assert "no answer within" in results["2.0"].error.message


def test_two_tries_alone_before_quarantine():
    bench = Bench()
    bench.run([GOOD, "do=crash", GOOD])
    # once in company, twice alone
    assert bench.workers[0].asked.count("1") == 3


def test_many_hostile_images_in_a_row_do_not_stop_the_job():
    results = Bench(in_flight=3, max_deaths=5).run(["do=crash"] * 12 + [GOOD] * 2)
    kinds = [r.error and r.error.kind for r in results.values()]
    assert kinds.count(ErrorKind.CRASHED) == 12 and kinds.count(None) == 2


def test_a_worker_that_dies_of_any_image_stops_the_job():
    bench = Bench(max_deaths=4)
    bench.workers[0].broken = "always"
    with pytest.raises(AbortedError, match=r"ended 4 times .* SIGSEGV"):
        bench.run([GOOD] * 6)


def test_a_worker_that_dies_while_loading_stops_the_job():
    bench = Bench(max_deaths=3)
    bench.workers[0].broken = "start"
    with pytest.raises(AbortedError, match="ended 3 times"):
        bench.run([GOOD])


def test_a_worker_that_never_loads_stops_the_job():
    bench = Bench(max_deaths=2, start_timeout_s=0.2)
    bench.workers[0].broken = "hang"
    with pytest.raises(AbortedError, match="did not load"):
        bench.run([GOOD])


def test_a_worker_that_refuses_to_load_ends_the_run_with_its_own_message():
    bench = Bench()
    bench.workers[0].broken = "refuse"
    with pytest.raises(TextspotError, match="no such bundle") as caught:
        bench.run([GOOD])
    assert caught.value.exit_code == 2


def test_deaths_from_outside_blame_no_image_but_are_bounded():
    bench = Bench(max_deaths=5)
    results = bench.run([GOOD, "do=kill", GOOD])
    assert results["1.0"].error.kind is ErrorKind.CRASHED
    assert results["1.0"].error.attempts == 5
    assert bench.workers[0].asked.count("1") == 6


def test_a_single_death_from_outside_costs_nothing():
    bench = Bench()
    bench.offer([GOOD, GOOD, "words=late", GOOD])
    bench.runner.pump(0.0, more=False)
    bench.workers[0]._die("SIGKILL", system=True)
    bench.finish()
    assert [r.status for r in bench.writers[0].results].count(Status.WORDS) == 4
    bench.runner.close()


def test_a_lost_input_is_fetched_again_and_given_up_in_the_end():
    bench = Bench(max_deaths=3)
    results = bench.run([GOOD, "do=lost", GOOD])
    assert results["1.0"].error.kind is ErrorKind.INTERNAL
    assert bench.workers[0].asked.count("1") == 4
    assert bench.workers[0].starts == 1


def test_every_page_of_a_document_is_a_result_in_order():
    results = Bench().run([GOOD, "words=x;pages=4", GOOD])
    assert {"1.0", "1.1", "1.2", "1.3"} < set(results)
    assert texts(results["1.2"]) == ["xp2"]


def test_a_page_that_kills_costs_that_page_alone():
    results = Bench().run([GOOD, "words=x;pages=3;do=crash", "words=y;pages=2"])
    assert [name for name, r in results.items() if r.error] == ["1.0"]
    assert {"2.0", "2.1"} < set(results)


def test_pages_over_the_limit_are_one_error():
    results = Bench(max_pages=2).run(["words=x;pages=5"])
    assert list(results) == ["0.2", "0.0", "0.1"] or set(results) == {"0.0", "0.1", "0.2"}
    assert results["0.2"].error.kind is ErrorKind.TOO_LARGE
    assert "max_pages = 2" in results["0.2"].error.message


def test_an_item_without_data_is_one_error():
    class Reader(ListReader):
        def read(self, items):
            for item in items:
                error = ImageError(Stage.READ, ErrorKind.MISSING, "gone")
                yield Encoded(item, None, error)

    results = Bench(reader=Reader).run([GOOD] * 30)
    assert len(results) == 30
    assert all(r.error.kind is ErrorKind.MISSING for r in results.values())


def test_a_read_that_hangs_costs_one_image():
    class Reader(ListReader):
        def read(self, items):
            for encoded in super().read(items):
                if b"hang" in encoded.data:
                    time.sleep(30)
                yield encoded

    results = Bench(reader=Reader, min_deadline_s=0.1).run([GOOD, "hang=1", GOOD, GOOD])
    assert [name for name, r in results.items() if r.error] == ["1.0"]
    assert results["1.0"].error.kind is ErrorKind.TIMEOUT
    assert len(results) == 4


def test_reads_that_keep_hanging_stop_the_job():
    class Reader(ListReader):
        def read(self, items):
            time.sleep(30)
            yield from super().read(items)

    with pytest.raises(AbortedError, match="3 reads in a row stalled"):
        Bench(reader=Reader, min_deadline_s=0.05, max_deaths=3).run([GOOD] * 5)


def test_a_reader_that_raises_ends_the_run():
    class Reader(ListReader):
        def read(self, items):
            raise KeyError("a fault of ours")

    with pytest.raises(AbortedError, match="the reader failed: KeyError"):
        Bench(reader=Reader).run([GOOD])


@pytest.mark.parametrize(
    ("act", "kind"),
    [
        ("do=crash", ErrorKind.CRASHED),
        ("words=x;read_do=crash", ErrorKind.CRASHED),
        ("do=stall", ErrorKind.STALLED),
        ("do=raise", ErrorKind.INTERNAL),
    ],
)
def test_of_a_batch_only_the_culprit_is_blamed_and_nothing_is_lost(act, kind):
    bench = Bench(split=True, batch=8, min_deadline_s=0.3 if "stall" in act else 60.0)
    scripts = [GOOD] * 70
    scripts[50] = act
    results = bench.run(scripts)
    assert len(results) == len(bench.writers[0].results) == 70
    assert {name: r.error.kind for name, r in results.items() if r.error} == {"50.0": kind}
    assert all(texts(r) == ["red", "blue"] for r in results.values() if r.error is None)
    detector, recogniser = bench.workers
    assert 2 < max(detector.batches) <= 8 and 2 < max(recogniser.batches) <= 8
    again = [name for name in map(str, range(70)) if detector.asked.count(name) > 1]
    if kind is ErrorKind.INTERNAL:
        assert not again
    elif kind is ErrorKind.CRASHED:  # those that were in motion with it
        assert "50" in again and set(again) <= {str(n) for n in range(50 - 24, 50 + 24)}


def test_a_death_from_outside_with_a_batch_in_flight_costs_nothing():
    bench = Bench(split=True, batch=8)
    writer = bench.offer([GOOD] * 40 + ["do=stall_once"] + [GOOD] * 40)
    detector = bench.workers[0]
    for _ in range(100):
        bench.runner.pump(0.01, more=False)
        if "40" in detector.asked:
            break
    assert detector.batches[-1] > 1
    detector._die("SIGKILL", system=True)
    bench.finish()
    bench.runner.close()
    assert len(writer.results) == 81 and all(r.error is None for r in writer.results)


def test_no_batch_is_larger_than_its_bytes_and_a_large_page_goes_alone():
    def weigh(data):
        return PageWork(1.0, (40 if b"large" in data else 15) * 2**20)

    bench = Bench(split=True, batch=8, weigh=weigh, max_feature_bytes=2**40)
    results = bench.run(["words=a"] * 40 + ["words=large"] * 10)
    assert len(results) == 50 and all(r.error is None for r in results.values())
    sizes, first = bench.workers[0].batches, 0
    assert 1 < max(sizes) <= 4  # of 64 MiB
    for size in sizes:
        assert size == 1 or first + size <= 41, "two large ones went together"
        first += size


def test_slow_pages_go_one_by_one(monkeypatch):
    monkeypatch.setattr(worker_pool, "_SHORTEST_S", 0.2)  # what every page seems to take
    bench = Bench(split=True, batch=8)
    results = bench.run([GOOD] * 30)
    assert len(results) == 30 and set(bench.workers[0].batches) == {1}


def test_no_more_than_the_window_is_in_flight():
    bench = Bench(in_flight=3, min_deadline_s=60)
    bench.offer(["do=stall"] * 20)
    for _ in range(5):
        bench.runner.pump(0.05, more=False)
    assert len(bench.workers[0].asked) == 3
    bench.runner.close()
    assert bench.writers[0].ended == "discarded"


def test_the_feature_budget_limits_the_window():
    bench = Bench(in_flight=8, min_deadline_s=60, max_feature_bytes=45_000_000)
    bench.offer(["do=stall"] * 20)
    for _ in range(5):
        bench.runner.pump(0.05, more=False)
    assert len(bench.workers[0].asked) == 2  # 100 boxes of 200,704 bytes each
    bench.runner.close()


def test_an_image_over_the_whole_budget_still_goes_alone():
    results = Bench(max_feature_bytes=1).run([GOOD] * 5)
    assert len(results) == 5 and all(r.error is None for r in results.values())


def test_reading_ahead_is_bounded():
    served = []

    class Reader(ListReader):
        def read(self, items):
            for encoded in super().read(items):
                served.append(encoded.item)
                yield encoded

    bench = Bench(reader=Reader, in_flight=1, min_deadline_s=60)
    bench.offer(["do=stall"] * 50)
    for _ in range(5):
        bench.runner.pump(0.05, more=False)
    assert len(served) <= 9  # max_items of the bench, and one being handed over
    bench.runner.close()


def test_shards_overlap_and_each_is_committed():
    bench = Bench()
    writers = [bench.offer([GOOD] * 4) for _ in range(3)]
    assert not bench.runner.idle
    settled = bench.finish()
    assert [w.ended for w in writers] == ["committed"] * 3
    assert sum(s.counts.images for s in settled) == 12
    bench.runner.close()


def test_an_empty_shard_is_committed():
    assert Bench().run([]) == {}


def test_a_commit_that_fails_ends_the_run():
    bench = Bench()
    writer = bench.offer([GOOD])

    def full():
        raise OSError(28, "No space left on device")

    writer.commit = full
    with pytest.raises(AbortedError, match="could not be committed: OSError"):
        for _ in range(20):
            bench.runner.pump(0.2, more=False)
    bench.runner.close()


def test_draining_commits_what_is_whole_and_drops_the_rest():
    bench = Bench(in_flight=2, min_deadline_s=60)
    whole = bench.offer([GOOD] * 2)
    part = bench.offer(["do=stall"] * 6)
    while whole.ended != "committed":
        bench.runner.pump(0.05, more=False)
    bench.runner.drain()
    bench.runner.pump(0.2, more=False)
    assert bench.runner.idle and part.ended == "discarded"
    assert not bench.runner.wants_shard
    bench.runner.close()


def test_draining_lets_images_in_flight_finish():
    bench = Bench(in_flight=4, min_deadline_s=60)
    writer = bench.offer([GOOD, "do=stall"])
    bench.runner.pump(0.3, more=False)
    bench.runner.drain()
    bench.runner.pump(0.1, more=False)
    assert not bench.runner.idle and writer.ended == ""  # its last image is still being detected
    bench.runner.close()
    assert writer.ended == "discarded"


def test_a_worker_grown_too_large_is_recycled_between_images():
    bench = Bench(max_uss_bytes=100)
    bench.workers[0].uss_bytes = 200
    results = bench.run([GOOD] * 100)
    assert all(r.error is None for r in results.values()) and len(results) == 100
    # not before 20 answers of a process, or a limit set too low would stop the work
    assert 5 <= bench.workers[0].starts <= 11
    # that it happens is no news; that it happens again and again is
    told = [event.message for event in bench.runner.take_slot_events()]
    assert len(told) == (bench.workers[0].starts - 1) // 3 and "3 times by now" in told[0]


def test_fifty_internal_errors_in_a_row_stop_the_job():
    with pytest.raises(AbortedError, match="50 images in a row"):
        Bench().run(["do=raise"] * 60)


def test_late_answers_of_a_killed_worker_are_void():
    bench = Bench(in_flight=1)
    bench.offer([GOOD, GOOD])
    worker = bench.workers[0]
    bench.runner.pump(0.0, more=False)
    generation = worker._generation
    worker._die("SIGKILL", system=True)
    bench.runner.pump(0.05, more=False)
    bench.events.put(Died("spotter", generation, "again"))
    bench.finish()
    told = [event.message for event in bench.runner.take_slot_events()]
    assert sum("ended" in message for message in told) == 1
    bench.runner.close()


def test_an_item_known_to_be_broken_keeps_its_listing_error():
    bench = Bench()
    error = ImageError(Stage.LIST, ErrorKind.BROKEN_ARCHIVE, "cut in the middle")
    shard = Shard(ShardId(9, 9), (Item("mem://x", "mem://x", error=error),))
    writer = ListWriter()
    bench.runner.offer(shard, writer)
    bench.finish()
    assert writer.results[0].error == error
    bench.runner.close()
