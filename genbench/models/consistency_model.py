"""ConsistencyModel: Song & Dhariwal, "Improved Techniques for Training Consistency Models", ICLR 2024,
https://arxiv.org/abs/2310.14189, trained without a diffusion model. The loss is in
`genbench.objectives.consistency`."""

from __future__ import annotations

import math
from typing import Annotated, Any

import torch
from torch import Tensor

from genbench.core import conditions
from genbench.core.arguments import Bounds, Deviation, Number, Positive, Rho, Steps
from genbench.core.batch import Batch, DataSpec
from genbench.core.errors import UserError
from genbench.core.module import GenerativeModule
from genbench.core.noise import SeedNoise
from genbench.core.units import Images
from genbench.networks.denoiser import DenoiserSettings
from genbench.objectives.consistency import SCALE, Consistency, Net, intervals
from genbench.samplers import consistency

Intervals = Annotated[int, Bounds(at_least=1, at_most=1_000_000)]
SIGMA_LAST = 0.821  # for CIFAR-10 (Song & Dhariwal 2024, section 4)


class ConsistencyModel(GenerativeModule):
    """Model that maps noisy images or points of all noise levels to clean ones in one step.

    Args:
        network: Settings of the network, see `genbench.networks.denoiser.DenoiserSettings`
        sigma_data: Standard deviation of the data; 0.5 in the paper
        sigma_min, sigma_max, rho: The noise levels of training (Karras et al. 2022, equation 5)
        log_mean, log_std: Mean and standard deviation of the logarithm of the noise level in training
        first_intervals, last_intervals: Number of intervals between noise levels, at the start and at the end of
            training (s_0 and s_1); it is doubled at equal distances
        curriculum_images: Images over which the intervals are doubled; default: the budget
        conditional: Condition on the labels or captions of the data
    """

    changeable = ("log_mean", "log_std", "first_intervals", "last_intervals", "curriculum_images")

    def __init__(
        self,
        spec: DataSpec | None = None,
        network: dict[str, Any] | None = None,
        sigma_data: Deviation = 0.5,
        sigma_min: Deviation = 0.002,
        sigma_max: Deviation = 80.0,
        rho: Rho = 7.0,
        log_mean: Number = -1.1,
        log_std: Positive = 2.0,
        first_intervals: Intervals = 10,
        last_intervals: Intervals = 1280,
        curriculum_images: Images | None = None,
        conditional: bool = False,
        **training: Any,
    ) -> None:
        super().__init__(spec, **training)
        if conditional:
            conditions.refuse_without(self.spec)
        if sigma_min >= sigma_max:
            raise UserError(f"model.sigma_min is {sigma_min} and model.sigma_max is {sigma_max}; it must be larger.")
        if not math.log(sigma_min) <= log_mean <= math.log(sigma_max):
            raise UserError(
                f"model.log_mean is {log_mean:g}; it must lie between the logarithms of sigma_min and sigma_max, "
                f"{math.log(sigma_min):.3g} and {math.log(sigma_max):.3g}."
            )
        if first_intervals > last_intervals:
            raise UserError(
                f"model.first_intervals is {first_intervals} and model.last_intervals is {last_intervals}; it must not "
                "be smaller."
            )
        self.conditional = conditional
        self.first_intervals, self.last_intervals = first_intervals, last_intervals
        self.curriculum_images = Images(curriculum_images) if curriculum_images else None
        self.consistency = Consistency(sigma_data, sigma_min, sigma_max, rho, log_mean, log_std)
        self.network = DenoiserSettings.of(network).build(
            self.spec.shape, self.spec, scale=SCALE, conditional=conditional
        )

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        count = self.intervals()
        self.record("train/intervals", torch.tensor(float(count), device=self.device))
        return {"consistency": self._loss(batch, count).mean()}

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """The training loss of each image [B], for the last number of intervals at every time of the training."""
        return {"consistency_loss": self._loss(batch, self.last_intervals)}

    def intervals(self) -> int:
        """The number of intervals between noise levels in this training step."""
        total = self.curriculum_images or self.budget
        if total is None:
            raise UserError(
                "The number of noise levels grows over the budget, but the budget is unknown: add a MaxImages callback "
                "to the Trainer, or set `--model.curriculum_images`."
            )
        before = self.images_seen - self._last_batch
        return intervals(before, total, self.first_intervals, self.last_intervals)

    def _loss(self, batch: Batch, count: int) -> Tensor:
        net = self._given(conditions.of_batch(self, batch))
        return self.consistency.loss(net, batch.image, count, self.draw)

    def _given(self, condition: Tensor | None) -> Net:
        return lambda x, time: self.network(x, time, condition)

    def sample(
        self, seeds: Tensor, *, condition: Tensor | None = None, steps: Steps = 1, sigma_last: Deviation = SIGMA_LAST
    ) -> Tensor:
        """int64 seeds [n], and labels [n] or captions [n, L] for a conditional model -> images [n, C, H, W] in [-1, 1].

        steps       number of steps; the network is evaluated once for each
        sigma_last  noise level of the last of several steps; the first is `sigma_max`, and the others lie between at
                    equal ratios. The paper has two steps, with 0.821 for CIFAR-10 and 1.526 for ImageNet 64×64

        Raises:
            UserError: `sigma_last` has no effect, or is not a noise level of training below `sigma_max`.
        """
        self.check_condition(condition)
        sigma_max, sigma_min = self.consistency.sigma_max, self.consistency.sigma_min
        if steps == 1 and sigma_last != SIGMA_LAST:
            raise UserError(f"sigma_last is {sigma_last:g}, but has no effect with one step. Set `--steps 2`.")
        if steps > 1 and not sigma_min <= sigma_last < sigma_max:
            raise UserError(f"sigma_last is {sigma_last:g}; it must lie between {sigma_min:g} and {sigma_max:g}.")

        def denoise(x: Tensor, sigma: float) -> Tensor:
            return self.consistency.denoise(self._given(condition), x, torch.full((len(x),), sigma, device=x.device))

        noise = SeedNoise(seeds, self.spec.shape, self.dtype)
        levels = consistency.sigmas(steps, sigma_max, sigma_last)
        x = consistency.multistep(denoise, sigma_max * noise(), levels, noise, sigma_min).to(self.dtype)
        return x.clamp(-1, 1) if len(self.spec.shape) == 3 else x
