"""Pictures decoded once: what is kept, when it is made anew, and that training does not notice."""

import errno
import os
import pickle
import shutil
import threading
from collections import namedtuple

import numpy as np
import pytest
import torch
from PIL import Image

import workbench
from tests.data.samples import encoded, pixels, write_folder, write_shards
from workbench.data.decode import BadSample
from workbench.data.load import load_pairs
from workbench.data.pairs import Pairs
from workbench.models.transform import ImageTransform, random_crop
from workbench.runs import checkpoint
from workbench.targets import decoded_cache
from workbench.training import trainer

SQUARE = ImageTransform((20, 20), resize_mode="squash")


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(decoded_cache, "BATCH", 4)


@pytest.fixture
def pictures(tmp_path):
    """Eleven pictures of 24 x 16 pixels with captions, the fifth of them damaged."""
    write_folder(tmp_path / "pictures", 11)
    (tmp_path / "pictures" / "004.jpg").write_bytes(encoded(4)[:-200])
    return tmp_path / "pictures"


def opened(source):
    return load_pairs(source, val_share=0.0, test_share=0.0)


@pytest.fixture
def kept(recipe):
    """Opens a source through the cache, with changes to the recipe."""

    def open_kept(source, rank=0, world=1, **changes):
        chosen = recipe(**{"data__decoded": 20, **changes})
        return decoded_cache.decoded_pairs(chosen, opened(source), rank=rank, world=world, say=None)

    return open_kept


@pytest.fixture
def decodes(monkeypatch):
    """The rows that are decoded, as they are."""
    seen, original = [], Pairs.image

    def image(self, row):
        if not isinstance(self._read, decoded_cache.DecodedReader):
            seen.append(row)
        return original(self, row)

    monkeypatch.setattr(Pairs, "image", image)
    return seen


def test_null_decodes_anew(recipe, pictures):
    pairs = opened(pictures)
    assert decoded_cache.decoded_pairs(recipe(), pairs) is pairs


@pytest.mark.parametrize("workers", [0, 3])
def test_a_picture_is_its_square(kept, pictures, workers):
    pairs, cached = opened(pictures), kept(pictures, data__workers=workers)
    assert cached.ids == pairs.ids and cached.all_captions == pairs.all_captions
    assert cached.max_failed == pairs.max_failed and cached.rejected == pairs.rejected
    for row in range(len(pairs)):
        if row != 4:
            image = cached.image(row)
            assert torch.equal(image, SQUARE(pairs.image(row)))
            assert image.permute(1, 2, 0).is_contiguous()


def test_a_picture_that_cannot_be_read_keeps_its_reason(kept, pictures):
    with pytest.raises(BadSample, match="truncated or damaged image"):
        opened(pictures).image(4)
    for cached in (kept(pictures), kept(pictures)):
        with pytest.raises(BadSample, match="truncated or damaged image"):
            cached.image(4)


def test_without_crops_a_picture_has_its_proportions(kept, pictures):
    pairs = opened(pictures)
    cached = kept(pictures, training__augmentation__crop_scale=[1.0, 1.0], data__decoded=16)
    assert cached.image(0).shape == (3, 16, 24)
    # The plain view cuts the middle out of it, as it does of the picture itself.
    view = ImageTransform((8, 8))
    gap = view(cached.image(0)).float() - view(pairs.image(0)).float()
    assert float(gap.abs().mean()) < 2
    # More pixels than the picture had are not given.
    assert kept(pictures, training__augmentation__crop_scale=[1.0, 1.0]).image(0).shape == (3, 16, 24)


def test_a_crop_shows_the_same_part(tmp_path, kept):
    """A smooth picture is much the same resized once or twice; another part of it is not."""
    write_folder(tmp_path / "smooth", 3)
    for row in range(3):
        Image.fromarray(pixels(row, (240, 160))).save(tmp_path / "smooth" / f"{row:03d}.jpg", quality=95)
    pairs, cached = opened(tmp_path / "smooth"), kept(tmp_path / "smooth", data__decoded=48)
    view = ImageTransform((32, 32))
    for row in range(3):
        crop = random_crop(0, 1, row, (0.3, 0.5))
        direct, twice = (view(source.image(row), crop).float() for source in (pairs, cached))
        other = view(pairs.image(row), random_crop(0, 2, row, (0.3, 0.5))).float()
        assert float((twice - direct).abs().mean()) < 1.5 < float((other - direct).abs().mean())


def test_workers_can_read_it(kept, pictures):
    cached = kept(pictures)
    assert torch.equal(pickle.loads(pickle.dumps(cached)).image(3), cached.image(3))


@pytest.mark.parametrize("source", ["folder", "shards", "scenes"])
def test_it_is_made_once(recipe, tmp_path, decodes, source):
    if source == "folder":
        write_folder(tmp_path / "data", 6)
    elif source == "shards":
        write_shards(tmp_path / "data")

    def run():
        pairs = load_pairs("scenes", scenes=6) if source == "scenes" else opened(tmp_path / "data")
        decoded_cache.decoded_pairs(recipe(data__decoded=20), pairs, say=None)
        seen = list(decodes)
        decodes.clear()
        return seen, len(pairs)

    seen, count = run()
    assert seen == list(range(count))
    assert run() == ([], count)


def test_it_is_made_anew_for_whatever_changes_a_picture(kept, pictures, decodes, monkeypatch):
    def seen(**changes):
        decodes.clear()
        kept(pictures, **changes)
        return sorted(decodes)

    everything = list(range(11))
    assert seen() == everything and seen() == []
    assert seen(data__decoded=24) == everything
    assert seen(data__max_pixels=1000) == everything
    assert seen(training__augmentation__crop_scale=[1.0, 1.0], training__batch=4) == []
    status = (pictures / "002.jpg").stat()
    os.utime(pictures / "002.jpg", ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert seen() == []  # the same bytes
    (pictures / "002.jpg").write_bytes(encoded(99))
    assert seen() == everything and seen() == []
    (pictures / "011.jpg").write_bytes(encoded(11))
    (pictures / "011.txt").write_text("one more\n")
    assert seen() == list(range(12))
    monkeypatch.setattr(decoded_cache.metadata, "version", lambda package: "0")
    assert seen() == list(range(12))


def test_killed_it_goes_on_where_it_stopped(kept, pictures, decodes, monkeypatch):
    whole = [kept(pictures, data__decoded=20).image(row) for row in range(11) if row != 4]
    shutil.rmtree(os.environ["WORKBENCH_CACHE"])
    watched = Pairs.image

    def killed(self, row):
        if row == 9:
            raise KeyboardInterrupt
        return watched(self, row)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Pairs, "image", killed)
        kept(pictures)
    decodes.clear()
    cached = kept(pictures)
    assert decodes == [8, 9, 10]
    for result, expected in zip((cached.image(row) for row in range(11) if row != 4), whole, strict=True):
        assert torch.equal(result, expected)


def test_several_processes_share_it(kept, pictures, decodes):
    """Threads stand in for processes: they share nothing but the files."""
    result = {}
    threads = [
        threading.Thread(target=lambda rank=rank: result.update({rank: kept(pictures, rank=rank, world=2)}))
        for rank in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(decodes) == list(range(11))
    assert torch.equal(result[0].image(10), result[1].image(10))


def test_a_full_disk_says_what_to_do(kept, pictures, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 1000, 1000))
    with pytest.raises(OSError, match=r"data\.decoded = 20: .*0\.00 GB.*WORKBENCH_CACHE.*null") as raised:
        kept(pictures)
    assert raised.value.errno == errno.ENOSPC


def test_pairs_must_say_which_files_they_are_read_from(recipe, pictures):
    pairs = Pairs(
        opened(pictures).table.drop_columns("digest"),
        lambda row: torch.zeros(3, 8, 8, dtype=torch.uint8),
        name="n",
        split="s",
    )
    with pytest.raises(ValueError, match="does not know the files"):
        decoded_cache.decoded_pairs(recipe(data__decoded=20), pairs)


def weights(run):
    return checkpoint.load_latest(run.path / "checkpoints").tensors


def identical(run, other):
    return all(torch.equal(value, weights(other)[name]) for name, value in weights(run).items())


def test_training_from_it_is_deterministic_and_resumes_to_the_same_weights(recipe, tmp_path, monkeypatch):
    chosen = recipe(data__decoded=40)
    straight = workbench.train(chosen, tmp_path / "a")
    assert identical(workbench.train(recipe(data__decoded=40, data__workers=2), tmp_path / "b"), straight)
    assert not identical(workbench.train(recipe(), tmp_path / "c"), straight)
    original, calls = trainer.backward, []

    def interrupting(*arguments, **keywords):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return original(*arguments, **keywords)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(trainer, "backward", interrupting)
        workbench.train(chosen, tmp_path / "d")
    assert identical(workbench.train(chosen, tmp_path / "d"), straight)


def test_training_counts_what_cannot_be_read(recipe, pictures, tmp_path):
    settings = {
        "data__source": str(pictures), "data__train_split": "train", "data__validation_split": "val",
        "data__max_failed": 0.5, "training__batch": 4, "training__steps": 4, "objectives__crd": 0.0,
        "objectives__fd": 0.0, "objectives__icl": 0.0, "teacher": None,
    }  # fmt: skip
    (pictures / load_pairs(pictures).ids[0]).write_bytes(b"<html>")
    runs = [
        workbench.train(recipe(**settings, data__decoded=size), tmp_path / str(size)) for size in (None, 40)
    ]
    assert runs[0].status["rejected"] == runs[1].status["rejected"]
    assert runs[1].status["rejected"]["not an image (looks like HTML)"] == 1
    assert np.isfinite(runs[1].metrics["loss"]).all()
