"""The game of Goodfellow et al. on logits, and the R1 penalty with its second derivatives."""

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from genbench.objectives.adversarial import NonSaturating, r1_penalty

GAME = NonSaturating()


def test_where_the_discriminator_cannot_tell_every_term_is_log_2():
    undecided = torch.zeros(5, 1, dtype=torch.float64)
    terms = GAME.discriminator(undecided, undecided) | GAME.generator(undecided)
    assert terms.keys() == {"real", "fake", "adversarial"}
    assert all(term.item() == pytest.approx(math.log(2), rel=1e-15) for term in terms.values())


def test_the_discriminators_terms_are_minus_the_log_likelihood_of_its_verdicts():
    real, fake = 4 * torch.randn(2, 9, 1, dtype=torch.float64)
    terms = GAME.discriminator(real, fake)
    torch.testing.assert_close(terms["real"], -torch.log(torch.sigmoid(real)).mean(), rtol=1e-12, atol=0)
    torch.testing.assert_close(terms["fake"], -torch.log(1 - torch.sigmoid(fake)).mean(), rtol=1e-12, atol=0)


def test_the_terms_equal_cross_entropy_with_the_labels_real_and_fake():
    real, fake = 4 * torch.randn(2, 9, 1, dtype=torch.float64)
    terms = GAME.discriminator(real, fake) | GAME.generator(fake)
    for name, logits, label in [("real", real, 1.0), ("fake", fake, 0.0), ("adversarial", fake, 1.0)]:
        expected = cross_entropy(logits, torch.full_like(logits, label))
        torch.testing.assert_close(terms[name], expected, rtol=1e-14, atol=0)


def test_the_generator_still_learns_where_the_discriminator_rejects_it():
    logits = torch.full((4, 1), -30.0, requires_grad=True)
    (ours,) = torch.autograd.grad(GAME.generator(logits)["adversarial"], logits)
    (saturating,) = torch.autograd.grad(-GAME.discriminator(logits, logits)["fake"], logits)
    assert torch.equal(ours, torch.full((4, 1), -1 / 4))
    assert saturating.abs().max() < 1e-13  # the original minimax objective has stopped there


def test_terms_of_extreme_logits_are_finite():
    far = torch.tensor([[1e4], [-1e4]])
    terms = GAME.discriminator(far, far) | GAME.generator(far)
    assert [term.item() for term in terms.values()] == [5000] * 3


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_terms_of_half_precision_logits_are_computed_in_float32(half):
    logits = torch.randn(100, 1).to(half)
    for term in (*GAME.discriminator(logits, logits).values(), *GAME.generator(logits).values()):
        assert term.dtype == torch.float32
    assert GAME.generator(logits)["adversarial"] == GAME.generator(logits.float())["adversarial"]


def test_r1_of_a_linear_critic_is_half_its_squared_weights():
    critic = nn.Sequential(nn.Flatten(), nn.Linear(12, 1)).double()
    weight = critic[1].weight
    penalty = r1_penalty(critic, torch.randn(5, 3, 2, 2, dtype=torch.float64))
    torch.testing.assert_close(penalty, weight.square().sum() / 2, rtol=1e-14, atol=0)
    penalty.backward()
    torch.testing.assert_close(weight.grad, weight, rtol=1e-14, atol=0)


def test_r1_is_the_mean_over_the_images_of_half_the_squared_gradient():
    class Quadratic(nn.Module):  # D(x) = x'Ax/2, so that its gradient is (A + A')x/2
        def __init__(self):
            super().__init__()
            self.a = nn.Parameter(torch.randn(6, 6, dtype=torch.float64))

        def forward(self, x):
            return ((x @ self.a) * x).sum(1) / 2

    critic, x = Quadratic(), torch.randn(7, 6, dtype=torch.float64)
    expected = ((x @ (critic.a + critic.a.T) / 2) ** 2).sum(1).mean() / 2
    torch.testing.assert_close(r1_penalty(critic, x), expected, rtol=1e-13, atol=0)
    r1_penalty(critic, x).backward()
    (by_hand,) = torch.autograd.grad(expected, critic.a)
    torch.testing.assert_close(critic.a.grad, by_hand, rtol=1e-12, atol=1e-12)


def critic():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 4, 2, 1), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 1)
    )


def test_r1_leaves_the_images_as_they_were():
    x = torch.randn(3, 1, 8, 8)
    r1_penalty(critic(), x)
    assert not x.requires_grad and x.grad is None


def test_r1_is_computed_in_float32_under_autocast():
    net, x = critic(), torch.randn(3, 1, 8, 8)
    gradient = torch.autograd.functional.jacobian(lambda x: net(x).sum(), x)
    expected = gradient.square().sum((1, 2, 3)).mean() / 2
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert net(x).dtype == torch.bfloat16
        penalty = r1_penalty(net, x)
        of_half = r1_penalty(net, x.bfloat16())
    assert penalty.dtype == of_half.dtype == torch.float32
    torch.testing.assert_close(penalty, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_r1_of_a_compiled_critic_has_the_gradients_of_the_plain_one(backend):
    plain, compiled, x = critic(), critic(), torch.randn(3, 1, 8, 8)
    torch.compiler.reset()
    compiled.compile(backend=backend)
    for net in (plain, compiled):
        (net(x).mean() + r1_penalty(net, x)).backward()
    for p, q in zip(plain.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(q.grad, p.grad, rtol=0, atol=1e-7)


def test_a_compiled_forward_still_has_no_second_derivative():
    # the reason why the penalty goes round it; should this pass one day, the detour can go
    net, x = critic(), torch.randn(3, 1, 8, 8, requires_grad=True)
    torch.compiler.reset()  # after many compilations of one kind of network it would fall back to the plain forward
    net.compile(backend="aot_eager")
    with pytest.raises(RuntimeError, match="double backward"):
        torch.autograd.grad(net(x).sum(), x, create_graph=True)[0].square().sum().backward()
