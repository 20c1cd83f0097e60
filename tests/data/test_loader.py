"""The training set is read as one endless stream; the position in it is the number of images read."""

import itertools
import multiprocessing
import os
import pickle
import signal

import numpy as np
import pytest
import torch

from genbench.core.batch import Batch, from_uint8, to_uint8
from genbench.core.errors import UserError
from genbench.data.image_files import Fit
from genbench.data.loader import EvalLoader, MemorySource, TrainLoader, image_order, mirrored
from genbench.data.streams import Split, StreamSource

N, SEED = 11, 7
# picture i has i at the left and 100 + i at the right, so that a mirrored one can be told
PICTURES = np.stack([np.tile(np.array([i, 50, 60, 100 + i], dtype=np.uint8), (4, 1)) for i in range(N)])
MASKS = (PICTURES >= 100).astype(np.uint8)


class Pictures:
    def __call__(self, rows):
        return PICTURES[rows], MASKS[rows]


def in_memory():
    image, mask = torch.from_numpy(PICTURES)[:, None], torch.from_numpy(MASKS)
    return MemorySource(Batch(image=image, mask=mask, label=torch.arange(N)))


def streamed():
    return StreamSource(Split(N, Pictures(), label=torch.arange(N)), torch.arange(N), Fit(4, 1))


READERS = {"memory": (in_memory, 0), "stream": (streamed, 0), "workers": (streamed, 2)}


@pytest.fixture(params=READERS)
def reader(request):
    source, workers = READERS[request.param]
    return lambda batch_size=4, **kwargs: TrainLoader(
        source(), batch_size, seed=SEED, workers=workers, **{"hflip": True, **kwargs}
    )


def take(loader, batches):
    """The next batches joined: images, labels and masks."""
    taken = list(itertools.islice(iter(loader), batches))
    return tuple(torch.cat([getattr(batch, name) for batch in taken]) for name in ("image", "label", "mask"))


def equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def stream(images):
    """What an uninterrupted run sees, image by image."""
    return tuple(part[:images] for part in take(TrainLoader(in_memory(), 1, seed=SEED, hflip=True), images))


def test_each_epoch_is_a_permutation_and_batches_span_epochs(reader):
    _, labels, _ = take(reader(), 11)  # 44 images, four passes
    passes = labels.view(4, N)
    assert all(sorted(one.tolist()) == list(range(N)) for one in passes)
    assert len({tuple(one.tolist()) for one in passes}) == 4


def test_a_batch_larger_than_the_data_set_spans_epochs(reader):
    _, labels, _ = take(reader(batch_size=25), 1)
    assert labels.bincount().tolist() == stream(25)[1].bincount().tolist()


@pytest.mark.parametrize("position", [0, 1, 4, 9, 10, 11, 12, 22, 1000])
def test_a_run_resumed_at_any_image_sees_the_same_images_as_an_uninterrupted_run(position):
    expected = tuple(part[position:] for part in stream(position + 12))
    for source, workers in [READERS["memory"], READERS["stream"]]:
        loader = TrainLoader(source(), 4, seed=SEED, position=position, hflip=True, workers=workers)
        assert equal(take(loader, 3), expected)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR2, signal.SIGHUP])
def test_workers_ignore_signals_that_stop_training(signum):
    expected = stream(24)[1].tolist()
    batches = iter(TrainLoader(streamed(), 4, seed=SEED, workers=2))
    found = [next(batches), next(batches)]  # one of each worker: both have begun
    for worker in multiprocessing.active_children():
        os.kill(worker.pid, signum)
    found += [next(batches) for _ in range(4)]
    assert torch.cat([batch.label for batch in found]).tolist() == expected


@pytest.mark.parametrize("position", [3, 9])
def test_workers_resume_at_the_same_image(position):
    expected = tuple(part[position:] for part in stream(position + 12))
    assert equal(take(TrainLoader(streamed(), 4, seed=SEED, position=position, hflip=True, workers=2), 3), expected)


def test_a_loader_built_at_images_seen_continues_independent_of_images_decoded_in_advance(reader):
    loader = reader()
    batches = iter(loader)
    first = next(batches).image
    for _ in range(4):
        next(batches)
        assert loader.position == 0
    again = reader(position=4 * 5)
    assert torch.equal(next(batches).image, next(iter(again)).image)
    assert torch.equal(next(iter(loader)).image, first)


def test_two_ranks_together_see_the_same_images_as_one_rank(reader):
    both = [reader(rank=rank, world=2) for rank in range(2)]
    for one, *halves in itertools.islice(zip(reader(), *both, strict=False), 6):
        assert torch.equal(one.image, torch.cat([half.image for half in halves]))
        assert torch.equal(one.label, torch.cat([half.label for half in halves]))


def test_flips_depend_on_the_position_in_the_run_and_not_on_the_batch():
    wide, narrow = (take(TrainLoader(in_memory(), size, seed=SEED, hflip=True), 60 // size) for size in (6, 4))
    assert equal(wide, narrow)


def test_half_of_the_images_are_mirrored_and_their_masks_with_them():
    image, label, mask = take(TrainLoader(in_memory(), 50, seed=SEED, hflip=True), 20)
    pixels = to_uint8(image)[:, 0]
    flipped = pixels[:, 0, 0] == 100 + label
    assert 400 < flipped.sum() < 600
    assert torch.equal(torch.where(flipped[:, None, None], pixels.flip(-1), pixels), torch.from_numpy(PICTURES)[label])
    assert torch.equal(mask == 1, pixels >= 100)
    assert mask.dtype == torch.int64


def test_mirrored_is_the_splitmix_finalizer():
    from genbench.core.noise import mix

    def by_hand(seed, place):
        x = (place + (mix("flip", seed) >> 1)) % 2**64
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
        return (x ^ (x >> 31)) % 2 == 1

    assert mirrored(3, 100, 200).tolist() == [by_hand(3, place) for place in range(100, 300)]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_an_accelerator_the_batches_are_the_same():
    loader = TrainLoader(in_memory().to(torch.device("cuda")), 4, seed=SEED, hflip=True)
    image, label, mask = take(loader, 6)
    assert image.is_cuda
    expected = take(TrainLoader(in_memory(), 4, seed=SEED, hflip=True), 6)
    assert torch.equal(to_uint8(image).cpu(), to_uint8(expected[0]))
    assert equal((label.cpu(), mask.cpu()), expected[1:])


def test_a_different_seed_gives_a_different_order_and_different_flips():
    orders = [next(image_order(100, 100, seed=seed)).tolist() for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert mirrored(0, 0, 64).tolist() != mirrored(1, 0, 64).tolist()


def test_reading_does_not_change_the_global_random_state(reader):
    before = torch.get_rng_state()
    take(reader(), 3)
    assert torch.equal(before, torch.get_rng_state())


def test_images_arrive_as_floats_from_minus_one_to_one():
    levels = torch.arange(256).byte().view(256, 1, 1, 1)
    image = next(iter(EvalLoader(MemorySource(Batch(levels)), 256))).image
    assert image.dtype == torch.float32
    assert image.flatten()[[0, 51, 255]].tolist() == pytest.approx([-1.0, -0.6, 1.0])
    assert torch.equal(image, from_uint8(levels))
    assert torch.equal(to_uint8(image), levels)


@pytest.mark.parametrize("source", [in_memory, streamed])
def test_evaluation_reads_each_image_once_in_order_and_ranks_take_whole_blocks(source):
    whole = [batch.label.tolist() for batch in EvalLoader(source(), 3)]
    assert whole == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10]]
    ranks = [[batch.label.tolist() for batch in EvalLoader(source(), 3, rank=rank, world=2)] for rank in range(2)]
    assert ranks == [whole[::2], whole[1::2]]
    assert len(EvalLoader(source(), 3, rank=1, world=2)) == 2


KNOWN = torch.tensor([2, 3, 7])
OF_A_BATCH = ("image", "label", "mask", "known_image", "known_label")


def known_stream(images):
    """What an uninterrupted run sees beside the labeled images, image by image."""
    batches = itertools.islice(TrainLoader(in_memory(), 1, seed=SEED, hflip=True, known=KNOWN), images)
    return [torch.cat(parts) for parts in zip(*([getattr(b, f) for f in OF_A_BATCH] for b in batches), strict=True)]


def test_labeled_images_are_repeated_in_their_own_order(reader):
    batches = list(itertools.islice(reader(batch_size=6, known=KNOWN), 5))
    labels = torch.cat([batch.known_label for batch in batches]).view(-1, 3)  # a batch is two passes over the three
    assert all(sorted(one.tolist()) == KNOWN.tolist() for one in labels)
    assert len({tuple(one.tolist()) for one in labels}) > 1
    plain = list(itertools.islice(reader(batch_size=6), 5))
    for one, other in zip(batches, plain, strict=True):
        assert torch.equal(one.image, other.image) and torch.equal(one.mask, other.mask)
    pixels = to_uint8(torch.cat([batch.known_image for batch in batches]))[:, 0]
    flipped = pixels[:, 0, 0] >= 100
    assert 0 < flipped.sum() < 30
    expected = torch.from_numpy(PICTURES)[labels.flatten()]
    assert torch.equal(torch.where(flipped[:, None, None], pixels.flip(-1), pixels), expected)


@pytest.mark.parametrize("position", [0, 1, 9, 11, 100])
@pytest.mark.parametrize("kind", READERS)
def test_a_resumed_run_sees_the_labeled_images_of_the_uninterrupted_run(kind, position):
    source, workers = READERS[kind]
    loader = TrainLoader(source(), 4, seed=SEED, position=position, hflip=True, known=KNOWN, workers=workers)
    found = list(itertools.islice(loader, 3))
    for name, expected in zip(OF_A_BATCH, known_stream(position + 12), strict=True):
        assert torch.equal(torch.cat([getattr(batch, name) for batch in found]), expected[position:])


def test_two_ranks_together_see_the_same_labeled_images_as_one_rank(reader):
    both = [reader(rank=rank, world=2, known=KNOWN) for rank in range(2)]
    for one, *halves in itertools.islice(zip(reader(known=KNOWN), *both, strict=False), 6):
        for name in OF_A_BATCH:
            assert torch.equal(getattr(one, name), torch.cat([getattr(half, name) for half in halves]))


class Broken:
    def __call__(self, rows):
        raise UserError("cat.jpg cannot be read as an image. Replace it or remove it.")


def test_an_error_in_a_worker_has_the_same_message():
    source = StreamSource(Split(N, Broken()), torch.arange(N), Fit(4, 1))
    with pytest.raises(UserError, match=r"^cat.jpg cannot be read as an image. Replace it or remove it.$"):
        next(iter(TrainLoader(source, 4, seed=0, workers=1)))


def test_sources_can_be_sent_to_a_process_that_is_not_forked():
    rows = torch.tensor([3, 1])
    for source in (in_memory(), streamed()):
        assert torch.equal(pickle.loads(pickle.dumps(source)).batch(rows).image, source.batch(rows).image)
