"""A record has the network evaluations and the seconds of sampling per image."""

import itertools

import pytest
import torch
import torch.distributed as dist

from genbench.core.batch import DataSpec
from genbench.core.composition import described
from genbench.data import Digits, Ring
from genbench.evaluation import generation
from genbench.evaluation.evaluate import evaluate
from genbench.evaluation.generation import sampling_cost
from genbench.evaluation.images import TensorImages
from genbench.leaderboard.record import Record
from genbench.models import GAN, VAE, VQVAE, ConditionalGAN, LatentMixture, PixelCNN, VQPrior
from tests.helpers.abilities import SMALL, Diffusion, Giver
from tests.helpers.processes import two_processes

CLASSES = tuple("0123456789")
SPEC, SPEC16 = (DataSpec((1, size, size), "label", CLASSES) for size in (8, 16))
FID = SMALL.changed(metrics=("fid",))  # 70 images in blocks of 16
EVALUATIONS, SECONDS = "network_evaluations_per_image", "sampling_seconds_per_image"


def cost(model, protocol=FID, data=None, **given):
    return evaluate(model, data or Digits(), protocol, **given).cost


def on_codes(cls, part, **arguments):
    """A model of the codes of an untrained autoencoder."""
    return cls(SPEC, autoencoder=described(part), **arguments)


class LatentDiffusion(Diffusion):
    """Diffusion whose images pass through a decoder at the end."""

    def __init__(self, spec=None, **training):
        super().__init__(spec, **training)
        self.decoder = torch.nn.Identity()

    def sample(self, seeds, *, condition=None, steps=4):
        return self.decoder(super().sample(seeds, steps=steps))


class Uncounted(Diffusion):
    """Calls parts of its network alone."""

    def sample(self, seeds, *, condition=None):
        return self.net.linear(torch.zeros(len(seeds), 64)).view(-1, *self.spec.shape).clamp(-1, 1)


ONE = {"latent_dim": 3, "width": 4}
EXPECTED = {
    "GAN": (lambda: GAN(SPEC, latent_dim=3, hidden=[8]), {}, 1),
    "ConditionalGAN": (lambda: ConditionalGAN(SPEC16, **ONE), {}, 1),
    "VAE": (lambda: VAE(SPEC, latent_dim=3, network="mlp"), {}, 1),
    "LatentMixture": (lambda: on_codes(LatentMixture, VAE(SPEC, latent_dim=3, network="mlp")), {}, 1),
    "PixelCNN of a class": (lambda: PixelCNN(SPEC, width=4, layers=1, by_class=True), {}, 64),
    "PixelCNN of colors": (lambda: PixelCNN(DataSpec((3, 4, 4)), width=6, layers=1), {}, 48),
    "VQPrior": (lambda: on_codes(VQPrior, VQVAE(SPEC, 6, 3, width=8, blocks=1), width=4, layers=1), {}, 4),
    "Diffusion": (lambda: Diffusion(SPEC), {}, 4),
    "Diffusion of 9 steps": (lambda: Diffusion(SPEC), {"steps": 9}, 9),
    "Diffusion with guidance": (lambda: Diffusion(SPEC), {"steps": 9, "guidance": 2.0}, 18),
    "LatentDiffusion": (lambda: LatentDiffusion(SPEC), {"steps": 5}, 5),
    "LatentDiffusion of one step": (lambda: LatentDiffusion(SPEC), {"steps": 1}, 1),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_evaluations_per_image_are_exact(name):
    make, sampling, expected = EXPECTED[name]
    found = cost(make().eval(), sampling=sampling, batch_size=7)
    assert found[EVALUATIONS] == expected and found[SECONDS] > 0


def test_points_have_both():
    data = Ring(val_images=300, train_images=300, test_images=300)
    found = cost(Diffusion(data.spec), data=data, sampling={"steps": 3})
    assert found[EVALUATIONS] == 3 and found[SECONDS] > 0


def test_a_model_whose_passes_cannot_be_seen_has_a_blank():
    for model in (Uncounted(SPEC), Giver(SPEC).give(torch.zeros(3, 1, 8, 8))):
        found = cost(model)
        assert found[EVALUATIONS] is None and found[SECONDS] > 0


def test_images_and_the_baseline_have_none():
    images = TensorImages("noise", torch.randint(0, 256, (70, 1, 32, 32), dtype=torch.uint8))
    for subject in (images, None):
        found = cost(subject, FID.changed(generated=70))
        assert not {EVALUATIONS, SECONDS} & found.keys()


def test_the_first_block_of_each_process_is_not_timed_unless_it_is_the_only_one():
    assert sampling_cost([(320, [9.0, 1.0, 2.0])], 16) == {EVALUATIONS: 320 / 48, SECONDS: 1.5 / 16}
    assert sampling_cost([(320, [9.0, 1.0, 70.0, 1.5])], 16)[SECONDS] == 1.5 / 16  # 70: the machine paused
    assert sampling_cost([(96, [9.0])], 16) == {EVALUATIONS: 6, SECONDS: 9 / 16}
    # seconds of one device: twice the devices in the same time is twice the time
    assert sampling_cost([(64, [9.0, 1.0]), (64, [5.0, 3.0])], 16) == {EVALUATIONS: 2, SECONDS: 2 / 16}
    assert sampling_cost([(16, [2.0]), (0, [])], 16) == {EVALUATIONS: 1, SECONDS: 2 / 16}


def test_only_sampling_is_timed(monkeypatch):
    clock = itertools.count()  # each reading is one second after the previous one
    monkeypatch.setattr(generation, "_now", lambda device: float(next(clock)))
    # two batches in each block, the second of 6 images
    assert cost(GAN(SPEC, latent_dim=3, hidden=[8]), batch_size=10)[SECONDS] == 2 / 16


def worker(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    found = [cost(Diffusion(SPEC), FID.changed(generated=n), sampling={"steps": 3}) for n in (70, 9)]
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_find_what_one_finds(tmp_path):
    two_processes("tests.evaluation.test_sampling_cost", tmp_path)
    for rank in range(2):
        for found in torch.load(tmp_path / f"{rank}.pt"):
            assert found[EVALUATIONS] == 3 and found[SECONDS] > 0


def test_a_record_with_both_is_valid():
    record = evaluate(Diffusion(SPEC), Digits(), FID)
    assert Record.from_dict(record.to_dict()).cost[EVALUATIONS] == 4
