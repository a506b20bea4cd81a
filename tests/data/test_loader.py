"""Batches: order, captions and shares depend on seed, epoch and row alone; failed pairs are left out."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from workbench.data.decode import BadSample
from workbench.data.false_captions import FalseCaption, FalseCaptions, HardNegatives
from workbench.data.loader import batches, epoch_order
from workbench.data.pairs import Pairs

CAPTIONS = [[f"{row} a", f"{row} b", f"{row} c"][: 1 + row % 3] for row in range(20)]


def read(row):
    if row in (4, 11):
        raise BadSample("empty file")
    return torch.full((3, 2, 2), row, dtype=torch.uint8)


def tokenize(captions):
    return torch.tensor(
        [[int(caption.split()[0]), ord(caption[-1])] if caption else [0, 0] for caption in captions]
    )


def view(image, epoch, row):
    return image + 100 * (epoch % 2)


@pytest.fixture
def pairs():
    table = pa.table({"id": [f"p{row}" for row in range(20)], "captions": CAPTIONS})
    return Pairs(table, read, name="numbers", split="train")


def epoch_of(pairs, epoch=0, start=0, **changes):
    steps = range(3 * epoch + start, 3 * epoch + 3)
    return list(batches(pairs, view, tokenize, **{"batch": 6, "seed": 1, "steps": steps, **changes}))


def test_a_batch_holds_together(pairs):
    for batch in epoch_of(pairs, epoch=1):
        for image, tokens, row, caption in zip(
            batch.images, batch.tokens, batch.rows, batch.caption, strict=True
        ):
            assert image.unique().tolist() == [row + 100]
            text = pairs.all_captions[caption]
            assert pairs.image_of_caption[caption] == row and tokens.tolist() == [row, ord(text[-1])]


def test_hard_negatives_bring_their_true_and_false_captions(pairs):
    false = FalseCaptions.__new__(FalseCaptions)
    false.first = pairs.first_caption
    false.caption = np.flatnonzero([text.endswith("b") for text in pairs.all_captions])
    false.captions = [
        FalseCaption(f"{pairs.all_captions[at].split()[0]} z", "word", None) for at in false.caption
    ]
    false.of_caption = np.full(len(pairs.all_captions), -1)
    false.of_caption[false.caption] = np.arange(len(false.caption))
    result = epoch_of(pairs, hard=HardNegatives(false, 1.0, seed=1))
    assert any((batch.false >= 0).any() and (batch.false < 0).any() for batch in result)
    for batch in result:
        for row, caption, number, tokens, wrong in zip(
            batch.rows, batch.caption, batch.false, batch.tokens, batch.false_tokens, strict=True
        ):
            assert pairs.image_of_caption[caption] == row
            assert (number >= 0) == (row % 3 > 0)  # the others have one caption, and no false one
            if number >= 0:
                assert tokens.tolist() == [row, ord("b")] and wrong.tolist() == [row, ord("z")]


def test_an_epoch_visits_everything_once_and_drops_what_does_not_fill_a_batch(pairs):
    result = epoch_of(pairs)
    assert len(result) == 3
    rows = [row for batch in result for row in batch.rows]
    failed = [name for batch in result for name, _ in batch.failed]
    assert len(set(rows)) == len(rows) and len(rows) + len(failed) == 18
    assert set(failed) <= {"p4", "p11"}
    assert all(reason == "empty file" for batch in result for _, reason in batch.failed)
    assert sorted(epoch_order(20, 1, 0)) == list(range(20))


def test_excluded_rows_are_not_visited(pairs):
    result = epoch_of(pairs, exclude=np.array([4, 11]))
    assert len(result) == 3 and all(len(batch) == 6 and not batch.failed for batch in result)


@pytest.mark.parametrize("workers", [0, 2])
def test_starting_in_the_middle_gives_the_rest_of_the_epoch(pairs, workers):
    whole, rest = epoch_of(pairs), epoch_of(pairs, start=1, workers=workers)
    assert len(rest) == 2
    for expected, batch in zip(whole[1:], rest, strict=True):
        assert torch.equal(expected.images, batch.images) and torch.equal(expected.tokens, batch.tokens)
        assert expected.failed == batch.failed


def test_two_processes_share_each_batch(pairs):
    whole = epoch_of(pairs, exclude=np.array([4, 11]))
    shares = [epoch_of(pairs, exclude=np.array([4, 11]), rank=rank, world=2) for rank in range(2)]
    for batch, *parts in zip(whole, *shares, strict=True):
        assert batch.rows.tolist() == [*parts[0].rows, *parts[1].rows]


def test_order_depends_on_seed_and_epoch():
    orders = {tuple(epoch_order(50, seed, epoch)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


@pytest.mark.parametrize("workers", [0, 2])
def test_one_stream_of_batches_crosses_the_ends_of_epochs(pairs, workers):
    whole = [*epoch_of(pairs, epoch=0), *epoch_of(pairs, epoch=1), *epoch_of(pairs, epoch=2)]
    stream = list(epoch_of(pairs, steps=range(2, 8), workers=workers))
    assert len(stream) == 6
    for expected, batch in zip(whole[2:8], stream, strict=True):
        assert torch.equal(expected.images, batch.images) and expected.rows.tolist() == batch.rows.tolist()
        assert batch.waited > 0


def test_shards_are_read_a_few_at_a_time_from_start_to_end():
    shard = np.repeat(np.random.default_rng(0).permutation(30), 50)
    orders = [epoch_order(1500, seed, epoch, shard) for seed in range(2) for epoch in range(2)]
    for order in orders:
        assert sorted(order) == list(range(1500))
        for number in range(30):
            rows = order[shard[order] == number]
            assert (np.diff(rows) > 0).all()  # in the order of the file
        for start in range(0, 1500, 8 * 50):
            assert len(np.unique(shard[order[start : start + 8 * 50]])) == min(8, (1500 - start) // 50)
        # Within a group the shards alternate: a batch is not of one shard.
        assert all(len(np.unique(shard[order[start : start + 32]])) > 4 for start in range(0, 1150, 50))
    assert len({tuple(order) for order in orders}) == 4
    assert (epoch_order(1500, 1, 1, shard) == orders[3]).all()
