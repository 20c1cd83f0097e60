"""DCGAN: training as in the paper, and sampling by seed."""

import pytest
import torch
from scipy.stats import kstest
from torch import nn

from genbench.core.batch import DataSpec, to_uint8
from genbench.core.capabilities import Encodes, HasLikelihood, Reconstructs, Samples
from genbench.core.errors import UserError
from genbench.data.loader import TrainLoader
from genbench.models import DCGAN
from tests.helpers.small import Each, RandomImages, run, same_weights

SPEC = DataSpec((1, 16, 16))


def small(**arguments):
    torch.manual_seed(0)
    return DCGAN(**{"spec": SPEC, "latent_dim": 6, "width": 4} | arguments)


def settings(**arguments):
    trainer = run(small(**arguments), images=8)
    return [(type(o), o.param_groups[0]["lr"], tuple(o.param_groups[0]["betas"])) for o in trainer.optimizers]


def test_both_optimizers_are_the_papers_adam():
    assert settings() == [(torch.optim.Adam, 2e-4, (0.5, 0.999))] * 2


def test_a_different_learning_rate_keeps_the_papers_momentum():
    assert settings(optimizer={"lr": 1e-3}) == [(torch.optim.Adam, 1e-3, (0.5, 0.999))] * 2
    generator, discriminator = settings(optimizers={"discriminator": {"lr": 4e-4}})
    assert generator[1:] == (2e-4, (0.5, 0.999)) and discriminator[1:] == (4e-4, (0.5, 0.999))


def test_the_papers_100_noise_dimensions_are_the_default():
    assert DCGAN(SPEC, width=2).latent_dim == 100


@pytest.mark.parametrize(("prior", "law"), [("uniform", ("uniform", (-1, 2))), ("normal", ("norm", (0, 1)))])
def test_noise_follows_the_prior_in_training_and_in_sampling(prior, law):
    module, seen = small(prior=prior), []
    module.generator.register_forward_pre_hook(lambda net, inputs: seen.append(inputs[0].detach()))
    run(module, images=800, batch_size=200)
    assert kstest(torch.cat(seen).flatten().numpy(), law[0], law[1]).pvalue > 0.01
    seen.clear()
    with torch.no_grad():
        module.eval().sample(torch.arange(800))
    (z,) = seen
    assert kstest(z.flatten().numpy(), law[0], law[1]).pvalue > 0.01
    if prior == "uniform":
        assert -1 <= z.min() < -0.99 and 0.99 < z.max() <= 1


def test_training_equals_the_loop_of_the_tutorials():
    # binary cross-entropy of sigmoid outputs with labels 1 and 0, discriminator first, one pass of the generator
    module, by_hand = small().double(), small().double()
    run(module, images=24, precision="64-true")
    g, d = (
        torch.optim.Adam(net.parameters(), lr=2e-4, betas=(0.5, 0.999))
        for net in (by_hand.generator, by_hand.discriminator)
    )
    data, loss, seen = RandomImages(SPEC), nn.BCELoss(), 0
    for batch, _ in zip(TrainLoader(data.train, 8, seed=0), range(3), strict=False):
        by_hand.draw.seed("train", 0, seen)
        fake = by_hand.generator(by_hand.draw(torch.randn, 8, 6, dtype=torch.float64))
        d.zero_grad()
        loss(torch.sigmoid(by_hand.discriminator(batch.image.double())), torch.ones(8, 1).double()).backward()
        loss(torch.sigmoid(by_hand.discriminator(fake.detach())), torch.zeros(8, 1).double()).backward()
        d.step()
        g.zero_grad()
        loss(torch.sigmoid(by_hand.discriminator(fake)), torch.ones(8, 1).double()).backward()
        g.step()
        seen += 8
    for name, value in by_hand.state_dict().items():
        torch.testing.assert_close(module.state_dict()[name], value, rtol=0, atol=1e-12)


def test_an_update_leaves_the_other_networks_gradients_and_weights_untouched():
    module = small(adversarial={"r1": 1.0})
    nets = {name: getattr(module, name) for name in module.players}
    original, checked = module.turn, []

    class Watched:
        def __init__(self, optimizer):
            (self.other,) = set(nets) - {optimizer}
            self.turn = original(optimizer)

        def __enter__(self):
            self.before = [p.detach().clone() for p in nets[self.other].parameters()]
            self.gradients = [None if p.grad is None else p.grad.clone() for p in nets[self.other].parameters()]
            return self.turn.__enter__()

        def __exit__(self, *error):
            after = list(nets[self.other].parameters())
            for p, gradient in zip(after, self.gradients, strict=True):
                assert p.grad is None if gradient is None else torch.equal(p.grad, gradient)
            assert all(torch.equal(p, q) for p, q in zip(self.before, after, strict=True))
            checked.append(self.other)
            return self.turn.__exit__(*error)

    module.turn = Watched
    run(module, images=16)
    assert checked == ["generator", "discriminator"] * 2


def test_both_updates_use_one_pass_of_the_generator():
    module = small()
    run(module, images=40)
    counts = {name: value.item() for name, value in module.state_dict().items() if name.endswith("batches_tracked")}
    assert {n for name, n in counts.items() if name.startswith("generator")} == {5}
    assert {n for name, n in counts.items() if name.startswith("discriminator")} == {15}  # real, fake, fake again


def test_the_penalty_is_a_term_of_the_discriminator_only_where_it_is_set():
    for gamma, expected in [(0.0, {"real", "fake"}), (10.0, {"real", "fake", "r1"})]:
        terms = Each("on_train_batch_end", lambda trainer, module: module.read_terms())
        run(small(adversarial={"r1": gamma}), images=8, callbacks=[terms])
        costs = {n.split("/")[1] for n in terms.values[0] if n.startswith("discriminator/")}
        assert costs - {"d_real", "d_fake", "real_accuracy", "fake_accuracy"} == expected


@pytest.mark.parametrize("channels", [1, 3])
def test_samples_are_images_in_range(channels):
    images = small(spec=DataSpec((channels, 16, 16))).eval().sample(torch.arange(5))
    assert images.shape == (5, channels, 16, 16) and images.dtype == torch.float32
    assert -1 <= images.min() < images.max() <= 1


def test_a_seed_is_the_same_image_at_any_batch_size_and_order():
    module, seen = small().eval().requires_grad_(False), []
    for parameter in module.generator.parameters():
        parameter.mul_(8)  # images of an untrained generator are almost the same gray
    module.generator.register_forward_pre_hook(lambda net, inputs: seen.append(inputs[0]))
    seeds = torch.tensor([3, 2**40, 0, 17, 5])
    together = module.sample(seeds)
    alone = torch.cat([module.sample(seeds[k : k + 1]) for k in range(5)])
    assert torch.equal(seen[0], torch.cat(seen[1:]))
    assert (to_uint8(together).int() - to_uint8(alone).int()).abs().max() <= 1
    assert len(to_uint8(together).flatten(1).unique(dim=0)) == 5


def test_sampling_does_not_use_the_global_generator():
    module = small().eval()
    before = torch.get_rng_state()
    module.sample(torch.arange(3))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_condition_is_rejected():
    with pytest.raises(UserError, match="trained without labels"):
        small().sample(torch.arange(2), condition=torch.arange(2))


def test_it_can_sample_and_nothing_else():
    module = small()
    assert isinstance(module, Samples) and not module.conditional
    assert not any(isinstance(module, protocol) for protocol in (Reconstructs, Encodes, HasLikelihood))


def test_a_size_that_it_cannot_make_is_rejected():
    with pytest.raises(UserError, match="16, 32, 64, 128, 256"):
        small(spec=DataSpec((1, 28, 28)))


def test_the_same_seed_gives_the_same_first_weights():
    assert same_weights(small(), small())


def test_five_critic_steps_to_one_of_the_generator():
    adversarial = {"objective": "wasserstein", "clip": 0.01, "discriminator_steps": 5}
    module = small(adversarial=adversarial)
    run(module, images=8 * 11)
    assert module.updates == {"generator": 2, "discriminator": 11}
    assert all(p.abs().max() <= 0.01 for p in module.discriminator.parameters())
