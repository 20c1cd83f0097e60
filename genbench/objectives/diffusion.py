"""Diffusion in discrete time: Ho et al., "Denoising Diffusion Probabilistic Models", NeurIPS 2020,
https://arxiv.org/abs/2006.11239, with the cosine schedule and learned variances of Nichol & Dhariwal, "Improved
Denoising Diffusion Probabilistic Models", ICML 2021, https://arxiv.org/abs/2102.09672."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from genbench.core.arguments import Count, refuse
from genbench.core.batch import per_image
from genbench.core.errors import UserError
from genbench.core.precision import to_float32

Schedule = Literal["linear", "cosine"]
Prediction = Literal["noise", "image", "v"]
Variance = Literal["small", "large", "learned"]
Draw = Callable[..., Tensor]
Net = Callable[[Tensor, Tensor], Tensor]  # network(x [B, ...], time [B]) -> [B, ...]

VLB_WEIGHT = 0.001  # λ of Nichol & Dhariwal 2021, section 3.1


def alpha_bar(schedule: Schedule, total: int, zero_terminal_snr: bool = False) -> Tensor:
    """Products ᾱ of 1 - β over `total` time steps, float64 [total].

    linear  β from 1e-4 to 0.02 for 1,000 steps (Ho et al. 2020, section 4), scaled for other numbers of steps
    cosine  Nichol & Dhariwal 2021, equation 17, with β of at most 0.999

    Args:
        zero_terminal_snr: Shift and scale √ᾱ so that the last step has no signal (Lin et al. 2024, algorithm 1)
    """
    if schedule == "linear":
        scale = 1000 / total
        beta = torch.linspace(1e-4 * scale, min(0.02 * scale, 0.999), total, dtype=torch.float64)
    else:
        at = torch.arange(total + 1, dtype=torch.float64) / total
        f = ((at + 0.008) / 1.008 * math.pi / 2).cos() ** 2
        beta = (1 - f[1:] / f[:-1]).clamp(max=0.999)
    found = (1 - beta).cumprod(0)
    if zero_terminal_snr:
        root = found.sqrt()
        root = (root - root[-1]) * root[0] / (root[0] - root[-1])
        found = root**2
    return found


class DiscreteDiffusion:
    """Loss, bound and predictions of a diffusion model with discrete time steps 0, ..., total - 1.

    A network gets the time t / total.

    Args:
        total: Number of time steps, T
        schedule, zero_terminal_snr: As in `alpha_bar`
        prediction: What the network predicts: the noise, the image, or v = √ᾱ·noise - √(1 - ᾱ)·image (Salimans & Ho
            2022)
        variance: Variance of a reverse step: small is that of q(x_s | x_t, x_0), large is that of q(x_t | x_s); learned
            lies between them (Nichol & Dhariwal 2021, equation 15), and doubles the outputs of the network
        discrete: Whether images have the 256 levels of 8-bit pixels, with the decoder of Ho et al. 2020, section 3.3;
            otherwise the bound is one of a density

    Raises:
        UserError: noise is predicted although the last step has no signal.
    """

    def __init__(
        self,
        total: int = 1000,
        schedule: Schedule = "linear",
        zero_terminal_snr: bool = False,
        prediction: Prediction = "noise",
        variance: Variance = "small",
        discrete: bool = True,
    ) -> None:
        if zero_terminal_snr and prediction == "noise":
            raise UserError(
                "model.zero_terminal_snr removes all signal from the last time step, where the image cannot be "
                "computed from the predicted noise. Set `--model.prediction v` or `image`."
            )
        self.total, self.prediction, self.variance, self.discrete = total, prediction, variance, discrete
        self.alpha_bar = alpha_bar(schedule, total, zero_terminal_snr)
        self.alpha, self.sigma = self.alpha_bar.sqrt(), (1 - self.alpha_bar).sqrt()
        self.outputs = 2 if variance == "learned" else 1  # for each value of an image

    # ---- training -----------------------------------------------------------------------------------------------

    def loss(self, net: Net, x: Tensor, draw: Draw) -> dict[str, Tensor]:
        """Loss terms of each image [B, ...] -> [B], at one random time step each.

        mse  of the predicted noise, image or v (Ho et al. 2020, equation 14)
        vlb  for learned variances: an estimate of the bound in bits per dimension, times `VLB_WEIGHT`; its mean has no
             gradient (Nichol & Dhariwal 2021, equation 16)
        """
        t = (draw(torch.rand, len(x)) * self.total).long().clamp(max=self.total - 1)  # [B]
        noise = draw(torch.randn, *x.shape).to(x.dtype)
        alpha, sigma = self._at(self.alpha, t, x), self._at(self.sigma, t, x)  # [B, 1, ...]
        noisy = alpha * x + sigma * noise  # equation 4
        output = to_float32(net(noisy, self._time(t)))
        predicted, position = self._split(output)
        target = {"noise": noise, "image": x, "v": alpha * noise - sigma * x}[self.prediction]
        terms = {"mse": (predicted - to_float32(target)).square().flatten(1).mean(1)}
        if self.variance == "learned":
            clean = self._clean(predicted.detach(), to_float32(noisy), t)
            nats = self._term(clean, position, to_float32(x), to_float32(noisy), t)
            terms["vlb"] = VLB_WEIGHT * self.total * nats / (math.log(2) * x[0].numel())
        return terms

    # ---- prediction ---------------------------------------------------------------------------------------------

    def predict(self, net: Net, x: Tensor, t: int, clip: bool) -> tuple[Tensor, Tensor | float]:
        """Noisy images at time step t -> clean images, and the variance of the step as in
        `genbench.samplers.diffusion.ancestral`."""
        steps = torch.full((len(x),), t, device=x.device)
        predicted, position = self._split(to_float32(net(x, self._time(steps))))
        clean = self._clean(predicted, to_float32(x), steps)
        return clean.clamp(-1, 1) if clip else clean, position

    def noise_to_signal(self, time: float) -> float:
        """sigma / alpha at a time of the network, at most 1e6."""
        t = round(time * self.total)
        return min(1e6, float(self.sigma[t] / self.alpha[t])) if self.alpha[t] > 0 else 1e6

    def _time(self, t: Tensor) -> Tensor:
        return t.float() / self.total

    def _split(self, output: Tensor) -> tuple[Tensor, Tensor | float]:
        """The prediction, and the position of the variance: 0 (small), 1 (large), or in [0, 1]."""
        if self.variance != "learned":
            return output, float(self.variance == "large")
        predicted, position = output.chunk(2, 1)
        return predicted, (position + 1) / 2

    def _clean(self, predicted: Tensor, noisy: Tensor, t: Tensor) -> Tensor:
        if self.prediction == "image":
            return predicted
        alpha, sigma = self._at(self.alpha, t, noisy), self._at(self.sigma, t, noisy)
        if self.prediction == "v":
            return alpha * noisy - sigma * predicted
        return (noisy - sigma * predicted) / alpha  # equation 15

    # ---- the variational bound ----------------------------------------------------------------------------------

    def bound(self, net: Net, x: Tensor, time_steps: int) -> Tensor:
        """An estimate of the variational bound of log p(x), [B, ...] -> [B] nats (Ho et al. 2020, equation 5).

        The sum over time steps is estimated from one random step in each of `time_steps` parts, without bias. With T
        parts all steps are computed. The noise is torch's.

        Raises:
            UserError: `time_steps` is not a whole number from 1 to T.
        """
        refuse("time_steps", time_steps, Count)
        if time_steps > self.total:
            raise UserError(f"time_steps is {time_steps}; this model has {self.total:,}, so it must be at most that.")
        total = -self._prior(x)
        for first, end in pairwise(parts(self.total, time_steps)):
            t = torch.randint(first, end, (len(x),), device=x.device)
            noisy = self._at(self.alpha, t, x) * x + self._at(self.sigma, t, x) * torch.randn_like(x)
            predicted, position = self._split(to_float32(net(noisy, self._time(t))))
            clean = self._clean(predicted, to_float32(noisy), t)
            clean = clean.clamp(-1, 1) if self.discrete else clean
            total = total - (end - first) * self._term(clean, position, to_float32(x), to_float32(noisy), t)
        return total

    def _prior(self, x: Tensor) -> Tensor:
        """KL(q(x_T | x) ‖ N(0, 1)), [B] nats."""
        alpha, variance = float(self.alpha[-1]), 1 - float(self.alpha_bar[-1])
        kl = (to_float32(x) * alpha).square() + variance - 1 - math.log(variance)
        return 0.5 * kl.flatten(1).sum(1)

    def _term(self, clean: Tensor, position: Tensor | float, x: Tensor, noisy: Tensor, t: Tensor) -> Tensor:
        """KL(q(x_{t-1} | x_t, x_0) ‖ p(x_{t-1} | x_t)), or -log p(x_0 | x_1) where t is 0: [B] nats (equations 6-8)."""
        before = torch.cat([torch.ones(1, dtype=torch.float64), self.alpha_bar[:-1]])  # ᾱ of the previous step
        large = 1 - self.alpha_bar / before  # β
        small = large * (1 - before) / (1 - self.alpha_bar)  # β̃
        # at step 0 the posterior variance is 0; it is replaced by that of step 1, as in the code of Nichol & Dhariwal
        log_small = torch.cat([small[1:2], small[1:]]).log()
        log_true, log_large = self._at(log_small, t, x), self._at(large.log(), t, x)
        log_variance = position * log_large + (1 - position) * log_true
        by_x = self._at((self.alpha_bar / before).sqrt() * (1 - before) / (1 - self.alpha_bar), t, x)
        by_clean = self._at(before.sqrt() * large / (1 - self.alpha_bar), t, x)
        difference = by_clean * (clean - x)
        kl = (
            0.5 * (log_variance - log_true + ((log_true - log_variance).exp() - 1))
            + 0.5 * difference.square() * (-log_variance).exp()
        )
        mean = by_x * noisy + by_clean * clean
        nll = discretized_gaussian_nll if self.discrete else gaussian_nll
        decoder = nll(x, mean, log_variance)
        return torch.where((t == 0)[:, None], decoder.flatten(1), kl.flatten(1)).sum(1)

    @staticmethod
    def _at(table: Tensor, t: Tensor, like: Tensor) -> Tensor:
        """Values of a float64 table at time steps [B], as [B, 1, ...] in the dtype of `like`, but at least float32."""
        dtype = torch.promote_types(like.dtype, torch.float32)
        return per_image(table.to(dtype).to(t.device)[t], like)  # Apple's GPUs have no float64


def parts(total: int, count: int) -> list[int]:
    """The limits of `count` parts of the time steps 0, ..., total - 1. The first part is step 0, and the lengths of the
    others grow in geometric progression, since the terms of the bound fall about as 1 / t.

    Example:
        >>> parts(1000, 5)
        [0, 1, 6, 32, 178, 1000]
    """
    found = [0]
    for k in range(count):
        found.append(max(found[-1] + 1, round(total ** (k / (count - 1))) if count > 1 else total))
    return found


def gaussian_nll(x: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """-log N(x; mean, variance) of each value, in nats."""
    return 0.5 * ((x - mean).square() * (-log_variance).exp() + log_variance + math.log(2 * math.pi))


def discretized_gaussian_nll(x: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """-log of the probability that a Gaussian assigns to the bin of each 8-bit value of x in [-1, 1], in nats. The
    first and the last bin are open (Ho et al. 2020, equation 13). Distances above 100 standard deviations count as
    100."""
    scale, difference = (-0.5 * log_variance).exp(), x - mean

    def log_normal(distance: Tensor) -> Tensor:
        # below -100 standard deviations, the gradient of `log_ndtr` is inaccurate in float32
        return torch.special.log_ndtr((distance * scale).clamp(min=-100))

    # of the bin mirrored to the lower tail: in the upper tail, both probabilities would round to 1
    upper, lower = log_normal(1 / 255 - difference.abs()), log_normal(-1 / 255 - difference.abs())
    found = upper + (-torch.expm1(lower - upper)).clamp(min=1e-12).log()
    found = torch.where(x > 0.999, log_normal(1 / 255 - difference), found)
    return -torch.where(x < -0.999, log_normal(1 / 255 + difference), found)
