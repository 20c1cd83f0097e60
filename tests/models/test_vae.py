"""The VAE's bound is below the likelihood, and tight for the true posterior. Codes and samples have the right form."""

import pytest
import torch
from scipy.stats import kstest
from torch.distributions import Bernoulli, MultivariateNormal, Normal, kl_divergence

from genbench.callbacks import ValidationMetrics
from genbench.core.batch import Batch, DataSpec, to_uint8
from genbench.core.capabilities import Decodes, Encodes, HasLikelihood, Reconstructs, Samples
from genbench.core.errors import UserError
from genbench.core.noise import per_seed
from genbench.models import VAE
from genbench.objectives.elbo import importance_bound
from tests.helpers.small import Each, run, validate

SPEC = DataSpec((1, 4, 4))


def small(**arguments):
    torch.manual_seed(0)
    return VAE(**{"spec": SPEC, "latent_dim": 3, "network": "mlp", "hidden": [8]} | arguments)


# ---- the bound, on a model whose likelihood is known: x = Wz + b + sigma * noise ------------------------------------

PIXELS, CODES, SIGMA = 5, 2, 0.7


class LinearGaussian:
    """A VAE without hidden layers; W has orthogonal columns, so the true posterior's covariance is diagonal."""

    def __init__(self):
        self.vae = VAE(
            DataSpec((PIXELS,)), latent_dim=CODES, network="mlp", hidden=[], decoder="gaussian", sigma=SIGMA
        ).double()
        self.encoder, self.decoder = self.vae.encoder[1][0], self.vae.decoder[0][0]
        columns = torch.linalg.qr(torch.randn(PIXELS, CODES, dtype=torch.float64)).Q
        self.w = columns * torch.tensor([2.0, 0.5], dtype=torch.float64)
        self.b = torch.randn(PIXELS, dtype=torch.float64)
        self.decoder.weight.data, self.decoder.bias.data = self.w.clone(), self.b.clone()
        self.x = (
            self.b + torch.randn(6, CODES, dtype=torch.float64) @ self.w.T + SIGMA * torch.randn(6, PIXELS).double()
        )
        self.images = self.x  # points, whose density is not dequantized

    def log_likelihood(self):
        covariance = self.w @ self.w.T + SIGMA**2 * torch.eye(PIXELS, dtype=torch.float64)
        return MultivariateNormal(self.b, covariance).log_prob(self.x)

    def posterior(self):
        """Bishop 2006, equation 2.116: covariance (I + W'W/sigma²)^-1, mean covariance W'(x - b)/sigma²."""
        covariance = torch.linalg.inv(torch.eye(CODES, dtype=torch.float64) + self.w.T @ self.w / SIGMA**2)
        return MultivariateNormal((self.x - self.b) @ self.w @ covariance / SIGMA**2, covariance)

    def encode_truly(self):
        covariance = self.posterior().covariance_matrix[0]
        mean = covariance @ self.w.T / SIGMA**2
        self.encoder.weight.data = torch.cat([mean, torch.zeros_like(mean)])
        self.encoder.bias.data = torch.cat([-mean @ self.b, covariance.diagonal().log()])

    def bound(self, eps):
        """The bound for the given noise [B, D], as validation scores it."""
        self.vae.draw = lambda draw, rows, columns: eps
        with torch.no_grad():
            return self.vae.validation_step(Batch(self.images), 0)["elbo"]

    def expected_bound(self):
        """Over all noise, exactly: the bound is a quadratic in it, for which 2D points suffice (cubature)."""
        points = torch.cat([torch.eye(CODES), -torch.eye(CODES)]).double() * CODES**0.5
        return torch.stack([self.bound(point.expand(6, CODES)) for point in points]).mean(0)


def test_the_bound_is_below_the_likelihood_by_the_posteriors_divergence():
    model = LinearGaussian()
    mu, logvar = model.vae.posterior(model.images)
    guess = MultivariateNormal(mu, torch.diag_embed(logvar.exp()))
    gap = kl_divergence(guess, model.posterior()).detach()
    assert (gap > 0.01).all()
    torch.testing.assert_close(model.expected_bound(), model.log_likelihood() - gap, rtol=0, atol=1e-12)


def test_the_bound_is_the_likelihood_where_the_posterior_is_the_true_one():
    model = LinearGaussian()
    model.encode_truly()
    torch.testing.assert_close(model.vae.encode(model.images), model.posterior().mean, rtol=0, atol=1e-12)
    torch.testing.assert_close(model.expected_bound(), model.log_likelihood(), rtol=0, atol=1e-12)


def test_the_mean_of_many_sampled_bounds_is_below_the_likelihood():
    model = LinearGaussian()
    draws = torch.stack([model.bound(torch.randn(6, CODES, dtype=torch.float64)) for _ in range(2000)])
    mean, error = draws.mean(0), draws.std(0) / 2000**0.5
    assert (mean < model.log_likelihood()).all()
    assert ((mean - model.expected_bound()).abs() < 4 * error).all()


def test_the_importance_weighted_bound_lies_between_and_rises_to_the_likelihood_with_more_samples():
    model, exact = LinearGaussian(), LinearGaussian.log_likelihood
    bounds = []
    for k in (1, 16, 256, 65536):
        eps, many = torch.randn(65536 // k * 6, k, CODES).double(), model.images.repeat(65536 // k, 1)
        targets = many[:, None].expand(-1, k, PIXELS)
        with torch.no_grad():
            each = importance_bound(model.vae._log_weights(many, targets, eps)).view(-1, 6)
        bounds.append(each.mean(0))
    gaps = [(exact(model) - bound) for bound in bounds]
    assert (gaps[0] > gaps[1]).all() and gaps[1].mean() > gaps[2].mean() > gaps[3].mean()
    assert gaps[3].abs().max() < 0.1 < gaps[0].min()


def test_with_the_true_posterior_one_sample_gives_the_likelihood():
    model = LinearGaussian()
    model.encode_truly()
    targets = model.images[:, None].expand(-1, 3, PIXELS)
    weights = model.vae._log_weights(model.images, targets, torch.randn(6, 3, CODES, dtype=torch.float64))
    expected = model.log_likelihood()[:, None].expand(-1, 3)
    torch.testing.assert_close(weights.detach(), expected, rtol=0, atol=1e-12)


# ---- likelihood -----------------------------------------------------------------------------------------------------


def all_images(levels):
    """All images of two pixels with `levels` levels: [levels², 1, 1, 2]."""
    line = torch.linspace(-1, 1, levels)
    return torch.cartesian_prod(line, line).view(-1, 1, 1, 2)


@pytest.mark.parametrize(("decoder", "levels"), [("bernoulli", 2), ("logistic", 256)])
def test_probabilities_of_all_images_sum_to_one(decoder, levels):
    vae = small(spec=DataSpec((1, 1, 2), binary=levels == 2), decoder=decoder, latent_dim=1).eval().double()
    for parameter in vae.encoder.parameters():
        parameter.data.zero_()  # the posterior equals the prior, so that few samples suffice
    if decoder == "logistic":
        vae.decoder[0][-1].bias.data[2:] -= 3  # scales that leave little to the outermost levels
    x, samples = all_images(levels).double(), {2: 10_000, 256: 64}[levels]
    with torch.no_grad():
        parts = [vae.log_likelihood(part, importance_samples=samples) for part in x.split(8192)]
    total = torch.cat(parts).exp().sum()
    assert total.item() == pytest.approx(1, abs=0.01)


def test_a_dequantized_gaussian_gives_the_levels_a_probability():
    vae = ignoring_z("gaussian", spec=DataSpec((1, 1, 2)), latent_dim=1).double()
    vae.encoder[1][0].weight.data.zero_(), vae.encoder[1][0].bias.data.zero_()  # the posterior is the prior
    vae.decoder[0][0].bias.data = torch.tensor([0.1, -0.3]).double()
    x = all_images(256)[::4001].double()
    with torch.no_grad():
        found = vae.log_likelihood(x, importance_samples=4000).flatten()
    law = Normal(torch.tensor([0.1, -0.3]).double(), 0.2)
    expected = (law.cdf(x + 1 / 255) - law.cdf(x - 1 / 255)).log().flatten(1).sum(1)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-2)


def test_validation_scores_the_levels_of_an_image_as_its_likelihood_does():
    vae = ignoring_z("gaussian", spec=DataSpec((1, 1, 2)), latent_dim=1).double()
    vae.encoder[1][0].weight.data.zero_(), vae.encoder[1][0].bias.data.zero_()  # the posterior is the prior
    vae.decoder[0][0].bias.data = torch.tensor([0.1, -0.3]).double()
    vae.draw = lambda draw, *shape: draw(*shape)
    x = all_images(256)[::4001].double()
    with torch.no_grad():
        elbo = torch.stack([vae.validation_step(Batch(x), 0)["elbo"] for _ in range(2000)]).mean(0)
        exact = vae.log_likelihood(x, importance_samples=4000)
    assert (elbo < exact + 0.02).all() and (elbo > exact - 0.05).all()


def test_gray_pixels_have_no_likelihood_under_a_bernoulli_decoder():
    with pytest.raises(UserError, match=r"gray pixels.*--data.binarize static.*--model.decoder logistic"):
        small().log_likelihood(torch.zeros(2, 1, 4, 4))


def test_the_decoder_decides_between_a_likelihood_of_binary_and_of_8_bit_pixels():
    assert [small(decoder=d).pixels for d in ("bernoulli", "gaussian", "logistic")] == ["binary", "8-bit", "8-bit"]
    assert isinstance(small(), HasLikelihood) and small().likelihood == "lower bound"


def test_a_learned_sigma_converges_to_the_standard_deviation_of_the_residuals():
    vae = small(decoder="gaussian", sigma="learned", optimizer={"lr": 0.02})
    run(vae, images=4000)
    assert 0.2 < vae.pixel.sigma.item() < 0.8 < 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"latent_dim": 0}, "model.latent_dim is 0; it must be at least 1"),
        ({"sigma": 0.0, "decoder": "gaussian"}, "model.sigma is 0.0; a standard deviation is above 0"),
        ({"importance_samples": 0}, "model.importance_samples is 0; it must be at least 1"),
        ({"free_bits": 0.1, "importance_samples": 2}, "Remove one of the settings"),
        ({"width": 0}, "model.width is 0; it must be at least 1"),
        ({"hidden": [8, 0]}, "model.hidden is 0; it must be at least 1"),
        (
            {"spec": DataSpec((2,))},
            "model.decoder is bernoulli, a distribution of pixels, but this data consists of points",
        ),
    ],
)
def test_invalid_settings_are_rejected(arguments, said):
    with pytest.raises(UserError, match=said):
        small(**arguments)


# ---- training -------------------------------------------------------------------------------------------------------


def test_the_kl_term_warms_up_in_images():
    vae = small(beta=4.0, kl_warmup="1k")
    weights = []
    for vae.images_seen in (0, 250, 500, 1000, 5000):
        weights.append(vae.kl_weight())
    assert weights == [0, 1, 2, 4, 4]
    assert small(beta=4.0).kl_weight() == 4


def test_the_loss_is_the_negative_bound_with_beta_on_the_kl():
    terms = Each("on_train_batch_end", lambda trainer, module: module.read_terms() | {"weight": module.kl_weight()})
    run(small(beta=4.0, kl_warmup=32), images=40, callbacks=[terms])
    assert [t["weight"] for t in terms.values] == [1, 2, 3, 4, 4]
    for t in terms.values:
        # the bound itself has no beta
        assert -t["train/elbo"] == pytest.approx(t["train/reconstruction"] + t["train/kl"] / t["weight"], rel=1e-5)


def one_step(vae):
    """The loss terms of one step, with the posterior and images. The learning rate of `vae` is 0."""
    seen = []
    vae.encoder.register_forward_pre_hook(lambda net, inputs: seen.append(inputs[0]))
    terms = Each("on_train_batch_end", lambda trainer, module: module.read_terms())
    run(vae, images=8, callbacks=[terms])
    mu, logvar = vae.posterior(seen[0])
    return terms.values[0], Normal(mu, (logvar / 2).exp()), seen[0]


def test_training_with_several_importance_samples_maximizes_their_bound():
    vae, noise = small(importance_samples=4, optimizer={"lr": 1e-30}), []
    weights = vae._log_weights
    vae._log_weights = lambda x, targets, eps, *more: noise.append(eps) or weights(x, targets, eps, *more)
    terms, q, x = one_step(vae)
    z = q.loc[:, None] + q.scale[:, None] * noise[0]  # [8, 4, 3]
    p_x = Bernoulli(logits=vae.decoder(z.flatten(0, 1)).view(8, 4, 16), validate_args=False)
    joint = p_x.log_prob((x.flatten(1)[:, None] + 1) / 2).sum(2) + Normal(0, 1).log_prob(z).sum(2)
    each = joint - Normal(q.loc[:, None], q.scale[:, None]).log_prob(z).sum(2)
    assert terms["train/bound"] == pytest.approx(-each.exp().mean(1).log().mean().item(), rel=1e-4)


def test_free_bits_are_excluded_from_the_kl_penalty():
    terms, q, _ = one_step(small(free_bits=0.05, optimizer={"lr": 1e-30}))
    kl = kl_divergence(q, Normal(0, 1)).mean(0)
    assert kl.min() < 0.05 and terms["train/kl"] == pytest.approx(kl.clamp(min=0.05).sum().item(), rel=1e-4)


def scores(seed):
    module = small().eval()
    module.seed = seed
    torch.manual_seed(seed)
    return validate(module, [ValidationMetrics(samples=10)])


def test_validation_noise_depends_neither_on_the_runs_seed_nor_on_the_global_one():
    assert scores(seed=1) == scores(seed=2)


def test_validation_noise_differs_between_blocks():
    module, seen = small(), []
    module.decoder.register_forward_pre_hook(lambda net, inputs: seen.append(inputs[0][:4]))
    for parameter in module.encoder.parameters():
        parameter.data.zero_()  # z is then the noise itself
    validate(module, [])
    assert len(seen) == 3 and not torch.equal(seen[0], seen[1]) and not torch.equal(seen[1], seen[2])


# ---- codes and samples ----------------------------------------------------------------------------------------------

KINDS = [
    {"network": "conv", "spec": DataSpec((3, 16, 16)), "width": 2},
    {"network": "mlp", "spec": DataSpec((1, 9, 9))},
    {"network": "mlp", "spec": DataSpec((3, 5, 5)), "hidden": (16, 8)},
]


@pytest.mark.parametrize("decoder", ["bernoulli", "gaussian", "logistic"])
@pytest.mark.parametrize("kind", KINDS)
def test_images_become_codes_and_codes_images_in_range(kind, decoder):
    vae = small(decoder=decoder, **kind).eval()
    x = torch.rand(4, *vae.spec.shape) * 2 - 1
    z = vae.encode(x)
    assert z.shape == (4, *vae.latent_shape) == (4, 3) and str(z.dtype) == f"torch.{vae.latent_dtype}"
    for images in (vae.decode(100 * z), vae.reconstruct(x), vae.sample(torch.arange(4))):
        assert images.shape == x.shape and images.dtype == torch.float32
        assert images.min() >= -1 and images.max() <= 1
    assert torch.equal(vae.reconstruct(x), vae.decode(vae.encode(x)))
    assert all(isinstance(vae, protocol) for protocol in (Samples, Reconstructs, Encodes, Decodes))


def test_the_fully_connected_decoder_has_the_encoders_widths_reversed():
    vae = small(hidden=[32, 8])
    widths = [
        [(m.in_features, m.out_features) for m in net.modules() if hasattr(m, "in_features")]
        for net in (vae.encoder, vae.decoder)
    ]
    assert widths == [[(16, 32), (32, 8), (8, 6)], [(3, 8), (8, 32), (32, 16)]]


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_is_the_same_image_at_any_batch_size(kind):
    vae = small(**kind).eval()
    seeds = torch.tensor([5, 2**40, 0, 9])
    for mean in (True, False):
        together = vae.sample(seeds, mean=mean)
        alone = torch.cat([vae.sample(seeds[k : k + 1], mean=mean) for k in range(4)])
        assert (to_uint8(together).int() - to_uint8(alone).int()).abs().max() <= 1


def test_a_sample_is_the_decoders_mean_at_a_code_from_the_prior():
    vae, seeds = small(), torch.arange(4)
    assert torch.equal(vae.sample(seeds), vae.decode(per_seed(torch.randn, seeds, (3,))))


def ignoring_z(decoder, **arguments):
    """A decoder whose distribution of the 16 pixels is the same for every code."""
    vae = small(decoder=decoder, hidden=[], sigma=0.2, **arguments)
    vae.decoder[0][0].weight.data.zero_()
    vae.decoder[0][0].bias.data = (
        torch.linspace(-1.5, 1.5, 16) if decoder == "bernoulli" else torch.linspace(-1.2, 0, 16)
    )
    return vae.eval().requires_grad_(False)


def test_pixels_drawn_from_a_bernoulli_decoder_are_white_as_often_as_its_mean_says():
    vae, n = ignoring_z("bernoulli"), 4000
    drawn = vae.sample(torch.arange(n), mean=False)
    assert drawn.unique().tolist() == [-1, 1]
    frequency, p = drawn.gt(0).float().mean(0), (vae.sample(torch.tensor([0]))[0] + 1) / 2
    torch.testing.assert_close(p.flatten(), torch.sigmoid(torch.linspace(-1.5, 1.5, 16)))
    assert ((frequency - p).abs() < 4.5 * (p * (1 - p) / n).sqrt()).all()
    between = torch.corrcoef(drawn.flatten(1).T) - torch.eye(16)
    assert between.abs().max() < 5 / n**0.5  # pixels are independent given the code


def test_pixels_drawn_from_a_gaussian_decoder_have_its_mean_and_spread_and_stay_in_range():
    vae, n = ignoring_z("gaussian"), 2000
    drawn = vae.sample(torch.arange(n), mean=False).flatten(1)
    assert drawn.min() == -1
    mean = torch.linspace(-1.2, 0, 16)
    for k in range(12, 16):  # far enough from the edge of the range, at -1
        assert kstest(drawn[:, k].numpy(), "norm", (mean[k].item(), 0.2)).pvalue > 0.001


def test_pixel_noise_is_not_the_noise_of_the_code():
    vae, n = ignoring_z("gaussian", latent_dim=16), 2000  # as many numbers as pixels, so that they could be the same
    seeds = torch.arange(n)
    z = per_seed(torch.randn, seeds, (16,))
    pixels = vae.sample(seeds, mean=False).flatten(1)[:, 4:]  # the first ones are clamped to black more often than not
    together = torch.corrcoef(torch.cat([z, pixels], 1).T)[:16, 16:]
    assert together.abs().max() < 5 / n**0.5


def test_a_condition_is_rejected():
    with pytest.raises(UserError, match="trained without labels"):
        small().sample(torch.arange(2), condition=torch.arange(2))
