"""Objectives on logits, and penalties with their second derivatives, against closed forms."""

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from genbench.objectives.adversarial import (
    Hinge,
    LeastSquares,
    Minimax,
    NonSaturating,
    Wasserstein,
    alikeness,
    gradient_penalty,
    r1_penalty,
)
from genbench.objectives.adversarial_settings import AdversarialSettings

SETTINGS = AdversarialSettings()


def test_every_term_is_log_2_where_the_discriminator_is_undecided():
    undecided = torch.zeros(5, 1, dtype=torch.float64)
    terms = SETTINGS.discriminator_loss(undecided, undecided) | SETTINGS.generator_loss(undecided)
    assert terms.keys() == {"real", "fake", "adversarial"}
    assert all(term.item() == pytest.approx(math.log(2), rel=1e-15) for term in terms.values())


def test_the_discriminators_terms_are_minus_the_log_likelihood_of_its_predictions():
    real, fake = 4 * torch.randn(2, 9, 1, dtype=torch.float64)
    terms = SETTINGS.discriminator_loss(real, fake)
    torch.testing.assert_close(terms["real"], -torch.log(torch.sigmoid(real)).mean(), rtol=1e-12, atol=0)
    torch.testing.assert_close(terms["fake"], -torch.log(1 - torch.sigmoid(fake)).mean(), rtol=1e-12, atol=0)


def test_the_terms_equal_cross_entropy_with_the_labels_real_and_fake():
    real, fake = 4 * torch.randn(2, 9, 1, dtype=torch.float64)
    terms = SETTINGS.discriminator_loss(real, fake) | SETTINGS.generator_loss(fake)
    for name, logits, label in [("real", real, 1.0), ("fake", fake, 0.0), ("adversarial", fake, 1.0)]:
        expected = cross_entropy(logits, torch.full_like(logits, label))
        torch.testing.assert_close(terms[name], expected, rtol=1e-14, atol=0)


def test_the_generator_still_learns_where_the_discriminator_rejects_it():
    logits = torch.full((4, 1), -30.0, requires_grad=True)
    (ours,) = torch.autograd.grad(SETTINGS.generator_loss(logits)["adversarial"], logits)
    (saturating,) = torch.autograd.grad(-SETTINGS.discriminator_loss(logits, logits)["fake"], logits)
    assert torch.equal(ours, torch.full((4, 1), -1 / 4))
    assert saturating.abs().max() < 1e-13  # the original minimax objective has stopped there


def test_terms_of_extreme_logits_are_finite():
    far = torch.tensor([[1e4], [-1e4]])
    terms = SETTINGS.discriminator_loss(far, far) | SETTINGS.generator_loss(far)
    assert [term.item() for term in terms.values()] == [5000] * 3


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_terms_of_half_precision_logits_are_computed_in_float32(half):
    logits = torch.randn(100, 1).to(half)
    for term in (*SETTINGS.discriminator_loss(logits, logits).values(), *SETTINGS.generator_loss(logits).values()):
        assert term.dtype == torch.float32
    assert SETTINGS.generator_loss(logits)["adversarial"] == SETTINGS.generator_loss(logits.float())["adversarial"]


def test_the_minimax_value_of_an_undecided_discriminator_is_minus_log_4():
    undecided = torch.zeros(5, 1, dtype=torch.float64)
    objective = Minimax()
    value = -(objective.real(undecided) + objective.fake(undecided))  # E log D(x) + E log(1 - D(G(z))): equation 1
    assert value.item() == pytest.approx(-math.log(4), rel=1e-15)


def test_the_saturating_gradient_vanishes_where_the_non_saturating_does_not():
    logits = torch.full((4, 1), -30.0, requires_grad=True)
    (saturating,) = torch.autograd.grad(Minimax().generator(logits), logits)
    (ours,) = torch.autograd.grad(NonSaturating().generator(logits), logits)
    assert saturating.abs().max() < 1e-13 and torch.equal(ours, torch.full((4, 1), -1 / 4))


def test_the_generators_minimax_cost_is_minus_the_discriminators():
    logits = torch.randn(9, 1, dtype=torch.float64)
    assert Minimax().generator(logits) == -Minimax().fake(logits)


def test_smoothed_labels_are_cross_entropy_with_that_target():
    logits = 4 * torch.randn(9, 1, dtype=torch.float64)
    expected = cross_entropy(logits, torch.full_like(logits, 0.9))
    torch.testing.assert_close(NonSaturating().real(logits, 0.9), expected, rtol=1e-14, atol=0)
    # the best output is then D = 0.9
    logit = torch.tensor([[math.log(0.9 / 0.1)]], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(NonSaturating().real(logit, 0.9), logit)
    assert slope.abs().item() < 1e-15


def test_the_optimal_discriminator_of_known_densities_has_the_gradient_zero():
    # D* = p / (p + q) (Goodfellow et al. 2014, proposition 1), for least squares too (Mao et al. 2017, equation 5)
    p, q = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64), torch.tensor([0.1, 0.2, 0.7], dtype=torch.float64)
    best = p / (p + q)
    for objective, output in ((NonSaturating(), best.logit()), (LeastSquares(), best.clone())):
        output.requires_grad_(True)
        cost = sum(
            p[k] * objective.real(output[k : k + 1]) + q[k] * objective.fake(output[k : k + 1]) for k in range(3)
        )
        (slope,) = torch.autograd.grad(cost, output)
        assert slope.abs().max() < 1e-15


def test_the_hinge_is_flat_beyond_its_margins():
    logits = torch.tensor([[-2.0], [-0.5], [0.5], [2.0]], dtype=torch.float64)
    assert Hinge().real(logits).item() == (3 + 1.5 + 0.5 + 0) / 4
    assert Hinge().fake(logits).item() == (0 + 0.5 + 1.5 + 3) / 4
    assert Hinge().generator(logits).item() == 0


def test_the_wasserstein_cost_is_the_difference_of_the_means():
    real, fake = torch.randn(2, 9, 1, dtype=torch.float64)
    objective = Wasserstein()
    torch.testing.assert_close(objective.real(real) + objective.fake(fake), fake.mean() - real.mean())
    assert objective.generator(fake) == -fake.mean() and objective.probability(fake) is None


def test_least_squares_is_half_the_squared_distance_from_its_targets():
    logits = torch.randn(9, 1, dtype=torch.float64)
    objective = LeastSquares()
    for cost, target in ((objective.real(logits), 1), (objective.fake(logits), 0), (objective.generator(logits), 1)):
        torch.testing.assert_close(cost, (logits - target).pow(2).mean() / 2)


def test_the_gradient_penalty_of_a_linear_critic_is_known():
    # the gradient is the weight wherever it is taken: (‖w‖ - 1)²
    critic = nn.Sequential(nn.Flatten(), nn.Linear(12, 1)).double()
    real, fake = torch.randn(2, 5, 3, 2, 2, dtype=torch.float64)
    norm = critic[1].weight.norm()
    penalty = gradient_penalty(critic, real, fake, torch.rand(5, dtype=torch.float64))
    torch.testing.assert_close(penalty, (norm - 1) ** 2, rtol=1e-13, atol=0)
    penalty.backward()
    expected = 2 * (norm - 1) * critic[1].weight / norm
    torch.testing.assert_close(critic[1].weight.grad, expected, rtol=1e-12, atol=0)


def test_the_gradient_penalty_is_taken_between_real_and_fake():
    # of D(x) = ‖x‖²/2 the gradient is x itself
    real, fake = torch.randn(2, 7, 6, dtype=torch.float64)
    epsilon = torch.rand(7, dtype=torch.float64)
    between = epsilon[:, None] * real + (1 - epsilon[:, None]) * fake
    found = gradient_penalty(lambda x: x.square().sum(1) / 2, real, fake, epsilon)
    torch.testing.assert_close(found, (between.norm(dim=1) - 1).square().mean())


def test_clipped_weights_lie_within_the_bound_and_others_stay():
    net = nn.Linear(5, 5)
    before = net.weight.detach().clone()
    AdversarialSettings(clip=0.1).clip_weights_(net)
    assert net.weight.abs().max() <= 0.1
    inside = before.abs() < 0.1
    assert torch.equal(net.weight[inside], before[inside]) and not inside.all()


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


def test_r1_does_not_change_the_images():
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
    # the reason why the penalty uses the uncompiled forward, which will be unnecessary if this test ever fails
    net, x = critic(), torch.randn(3, 1, 8, 8, requires_grad=True)
    torch.compiler.reset()  # after many compilations of one kind of network it would fall back to the plain forward
    net.compile(backend="aot_eager")
    with pytest.raises(RuntimeError, match="double backward"):
        torch.autograd.grad(net(x).sum(), x, create_graph=True)[0].square().sum().backward()


def test_alikeness_is_minus_the_log_of_the_distance_and_pushes_both_apart():
    a, b = torch.zeros(3, 1, 2, 2, requires_grad=True), torch.full((3, 1, 2, 2), 0.25, requires_grad=True)
    cost = alikeness(a, b)
    assert cost.item() == pytest.approx(-math.log(0.2501), rel=1e-5)
    cost.backward()
    assert (a.grad > 0).all() and (b.grad < 0).all()  # down against the gradient: apart
    assert alikeness(torch.ones(2, 3), torch.ones(2, 3)).isfinite()
