from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
torch.set_num_threads(1)

from jobs.training.data import datasets
from jobs.training.detector import scores as detector_scores
from jobs.training.detector.crops import target_maps
from jobs.training.detector.network import (
    GAP,
    MAP_CHANNELS,
    DetectorTrunk,
    count_macs,
    detector_loss,
)
from jobs.training.detector.rotated_nms import rotated_nms
from jobs.training.detector.selection import candidates, corners, vote
from jobs.training.detector.thin import RANKS, column_and_row, ranks_of, thin
from jobs.training.detector.thin import main as thin_weights
from jobs.training.detector.weights import load_trunk, save_weights
from textspot_ray.errors import UsageError


def perfect_maps(words: list[datasets.PhotoWord], size: int) -> torch.Tensor:
    """Raw maps that say exactly what the targets want."""
    target = torch.from_numpy(target_maps(words, size))[None]
    maps = torch.zeros(1, MAP_CHANNELS, size // 4, size // 4)
    maps[:, 0] = target[:, 0] * 16 - 8
    maps[:, 1:5] = torch.log(target[:, 2:6].clamp(min=0.3) / 16)
    maps[:, 5:7] = target[:, 6:8]
    maps[:, GAP] = target[:, 9] * 16 - 8
    return maps


WORDS = [
    datasets.PhotoWord(datasets.rect_corners((70, 50), (90, 24), 12), "a"),
    datasets.PhotoWord(datasets.rect_corners((180, 60), (60, 14), -8), "b"),
    datasets.PhotoWord(datasets.rect_corners((60, 170), (100, 30), 90), "c"),
    datasets.PhotoWord(datasets.rect_corners((170, 180), (110, 40), 180), "d"),
]


def test_the_detector_is_within_its_compute_budget() -> None:
    image = torch.zeros(1, 3, 384, 640)  # a quarter of the input
    full = 2 * 4 * 25 / 16 * count_macs(DetectorTrunk().eval(), image)
    thinner = 2 * 4 * 25 / 16 * count_macs(thin(DetectorTrunk()).eval(), image)
    assert 10e9 < full <= 24e9
    assert thinner < 0.65 * full


@pytest.mark.parametrize("rank", [1, 96])
def test_a_column_and_a_row_stand_for_a_square(rank: int) -> None:
    torch.manual_seed(0)
    square = torch.nn.Conv2d(32, 48, 3, padding=1, bias=False)
    if rank == 1:  # of one product alone
        with torch.no_grad():
            column, row = torch.rand(32, 3), torch.rand(48, 3)
            square.weight.copy_(torch.einsum("iy,ox->oiyx", column, row))
    image = torch.rand(1, 32, 12, 20)
    with torch.no_grad():
        torch.testing.assert_close(
            column_and_row(square, rank)(image), square(image), atol=1e-3, rtol=1e-3
        )


def test_a_thin_trunk_is_made_stored_and_read_as_such(tmp_path: Path) -> None:
    torch.manual_seed(0)
    trunk = DetectorTrunk().eval()
    save_weights(trunk.state_dict(), tmp_path / "detector.npz")
    assert thin_weights([str(tmp_path / "detector.npz"), "--out", str(tmp_path / "thin.npz")]) == 0
    again = load_trunk(tmp_path / "thin.npz")
    assert ranks_of(again.state_dict()) == RANKS
    image = torch.rand(1, 3, 64, 64) * 255
    with torch.no_grad():
        torch.testing.assert_close(again(image), thin(trunk)(image), atol=0.05, rtol=0.05)
    with pytest.raises(UsageError, match="cheaper already"):
        thin_weights([str(tmp_path / "thin.npz"), "--out", str(tmp_path / "x.npz")])


def test_selection_recovers_the_words_that_made_the_targets() -> None:
    found = detector_scores.select(perfect_maps(WORDS, 256), 0.3, np.ones(2, np.float32))
    assert len(found.quads) == len(WORDS)
    for word in WORDS:
        error = np.abs(found.quads - word.quad).max((1, 2)).min()
        assert error < 0.5  # corner by corner: the reading direction is right too
    assert (found.scores > 0.99).all()


def test_no_text_gives_no_rows() -> None:
    found = detector_scores.select(perfect_maps([], 128), 0.3, np.ones(2, np.float32))
    assert found.quads.shape == (0, 4, 2)


def test_votes_pull_an_end_to_the_pixels_that_are_near_it() -> None:
    # one word 200 px wide; each pixel errs on the end that is far from it
    pixels = torch.linspace(-95, 95, 39)
    rows = []
    for x in pixels.tolist():
        left = -100 + (x + 100) * 0.2
        right = 100 - (100 - x) * 0.2
        rows.append([(left + right) / 2, 0, right - left, 30, 0, 0.9, x, 0])
    voters = torch.tensor(rows)
    kept = voters[19:20]
    refined = vote(kept, voters)
    assert float(kept[0, 2]) == pytest.approx(160, abs=1)
    assert float(refined[0, 2]) > 175
    assert float(refined[0, 0]) == pytest.approx(0, abs=1)


def test_voters_that_disagree_or_score_low_are_not_heard() -> None:
    kept = torch.tensor([[50.0, 50, 40, 10, 0, 0.9, 50, 50]])
    others = torch.tensor(
        [
            [50.0, 62, 40, 10, 0, 0.9, 50, 62],  # the line below
            [50.0, 50, 40, 10, 1.5, 0.9, 50, 50],  # across
            [52.0, 51, 48, 12, 0, 0.2, 50, 50],  # too faint
        ]
    )
    refined = vote(kept, torch.cat([kept, others]))
    torch.testing.assert_close(refined[0, :5], kept[0, :5], atol=1e-3, rtol=0)


def test_candidates_are_the_best_pixels_of_their_cells_and_sorted() -> None:
    maps = torch.full((1, MAP_CHANNELS, 64, 64), -6.0)
    maps[0, 0, 11, 21] = 3
    maps[0, 0, 10, 20] = 2  # same cell, weaker
    maps[0, 0, 40, 40] = 4
    found = candidates(maps)
    assert found[:3, 5].tolist() == sorted(found[:3, 5].tolist(), reverse=True)
    assert found[0, 6:].tolist() == [162, 162]
    assert found[1, 6:].tolist() == [86, 46]
    assert float(found[2, 5]) < 0.01


def test_huge_words_leave_room_for_small_and_fainter_ones() -> None:
    # a picture full of huge, surely found words: more cells than the list is long
    maps = torch.full((1, MAP_CHANNELS, 240, 400), -6.0)
    maps[0, 1:5] = float(np.log(85 / 16))
    maps[0, 5] = 1
    maps[0, 0, :200] = 8 + torch.rand(200, 400, generator=torch.Generator().manual_seed(0))
    maps[0, 0, 221, 301] = 3
    maps[0, 1:5, 221, 301] = 0
    found = candidates(maps)
    small = found[(found[:, 6] == 1206) & (found[:, 7] == 886)]
    assert small.shape[0] == 1
    # and of the huge ones the surest cells are left
    assert found[0, 5] == found[:, 5].max()
    assert float(found[0, 5]) == pytest.approx(float(torch.sigmoid(maps[0, 0].max())))


def test_the_loss_falls_to_nothing_at_the_truth_and_ignores_what_is_ignored() -> None:
    target = torch.from_numpy(target_maps(WORDS, 256))[None]
    right = detector_loss(perfect_maps(WORDS, 256), target)
    assert float(right.overlap) < 1e-3 and float(right.angle) < 1e-6
    assert float(right.score) < 0.02 and float(right.gap) < 0.2
    turned = perfect_maps(WORDS, 256)
    turned[:, 5:7] *= -1
    assert float(detector_loss(turned, target).angle) > 1.5
    noisy = perfect_maps(WORDS, 256)
    noisy[:, 0] = torch.where(target[:, 1] == 0, torch.tensor(8.0), noisy[:, 0])
    assert float(detector_loss(noisy, target).score) == pytest.approx(float(right.score), abs=1e-3)


def test_rotated_suppression_keeps_neighbours_and_drops_doubles() -> None:
    rects = np.array(
        [
            [100, 100, 80, 20, 0.5],
            [102, 101, 78, 21, 0.5],  # a double
            [100 - 24 * np.sin(0.5), 100 + 24 * np.cos(0.5), 80, 20, 0.5],  # the line below
            [400, 100, 50, 20, 0.0],  # too faint
        ]
    )
    kept = rotated_nms(rects, np.array([0.8, 0.9, 0.7, 0.2]), 0.3, 0.3, 10)
    assert kept.tolist() == [1, 2]
    assert rotated_nms(rects, np.array([0.8, 0.9, 0.7, 0.2]), 0.3, 0.3, 1).tolist() == [1]
    assert rotated_nms(rects[:0], np.zeros(0), 0.3, 0.3, 10).shape == (0,)


def test_detection_scores_follow_the_protocol() -> None:
    truth = [
        [
            datasets.PhotoWord(datasets.rect_corners((50, 20), (60, 20), 0), "hit"),
            datasets.PhotoWord(datasets.rect_corners((50, 80), (60, 20), 0), "missed"),
            datasets.PhotoWord(datasets.rect_corners((200, 20), (90, 40), 0), "###", False),
        ]
    ]
    quads = np.stack(
        [
            datasets.rect_corners((52, 21), (60, 20), 0),
            datasets.rect_corners((54, 22), (60, 20), 0),  # double: wrong
            datasets.rect_corners((200, 20), (30, 20), 0),  # in an ignored region: no matter
            datasets.rect_corners((50, 140), (60, 20), 0),  # below the threshold
        ]
    )
    found = [detector_scores.Found(quads, np.array([0.9, 0.8, 0.9, 0.4], np.float32))]
    (scores,) = detector_scores.score_detections(found, truth, [0.5])
    assert (scores.precision, scores.recall) == (0.5, 0.5)
    assert scores.f1 == 0.5


def test_corners_run_clockwise_from_the_top_left() -> None:
    rects = torch.tensor([[10.0, 20, 8, 4, 0]])
    assert corners(rects)[0].tolist() == [[6, 18], [14, 18], [14, 22], [6, 22]]
