"""MeanFlow: Geng et al., "Mean Flows for One-step Generative Modeling", NeurIPS 2025, https://arxiv.org/abs/2505.13447.
The loss is in `genbench.objectives.mean_flow`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from genbench.core import conditions
from genbench.core.arguments import Number, Positive, Share, Steps, Weight
from genbench.core.batch import Batch, DataSpec
from genbench.core.module import GenerativeModule
from genbench.core.noise import SeedNoise
from genbench.core.precision import to_float32
from genbench.networks.denoiser import DenoiserSettings
from genbench.objectives import mean_flow
from genbench.samplers import flow


class MeanFlow(GenerativeModule):
    """Model of the average velocity between two times of the path from noise (t = 1) to images or points (t = 0).

    Args:
        network: Settings of the network, see `genbench.networks.denoiser.DenoiserSettings`
        interval_share: Share of the images that are trained on two different times; the others are trained as in flow
            matching
        log_mean, log_std: Mean and standard deviation of the logit of the times in training
        weight_power, weight_constant: p and c of the weight 1 / (error + c)^p of an image's error. c is relative to a
            mean over values
        conditional: Condition on the labels or captions of the data
    """

    changeable = ("interval_share", "log_mean", "log_std", "weight_power", "weight_constant")

    def __init__(
        self,
        spec: DataSpec | None = None,
        network: dict[str, Any] | None = None,
        interval_share: Share = 0.25,
        log_mean: Number = -0.4,
        log_std: Positive = 1.0,
        weight_power: Weight = 1.0,
        weight_constant: Positive = 1e-3,
        conditional: bool = False,
        **training: Any,
    ) -> None:
        super().__init__(spec, **training)
        if conditional:
            conditions.refuse_without(self.spec)
        self.conditional = conditional
        self.interval_share, self.log_mean, self.log_std = interval_share, log_mean, log_std
        self.weight_power, self.weight_constant = weight_power, weight_constant
        self.network = DenoiserSettings.of(network).build(
            self.spec.shape, self.spec, times=2, scale=mean_flow.SCALE, conditional=conditional
        )

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        error = self._error(batch)
        self.record("train/squared_error", error.mean())
        return {"adaptive": mean_flow.weighted(error, self.weight_power, self.weight_constant).mean()}

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """The squared error of each image before weighting, [B]."""
        return {"velocity_loss": self._error(batch)}

    def _error(self, batch: Batch) -> Tensor:
        x = batch.image
        r, t = mean_flow.draw_intervals(len(x), self.interval_share, self.log_mean, self.log_std, self.draw)
        noise = self.draw(torch.randn, *x.shape).to(x.dtype)
        return mean_flow.squared_error(self.network, x, noise, r, t, conditions.of_batch(self, batch))

    def sample(self, seeds: Tensor, *, condition: Tensor | None = None, steps: Steps = 1) -> Tensor:
        """int64 seeds [n], and labels [n] or captions [n, L] for a conditional model -> images [n, C, H, W] in [-1, 1].

        steps  number of steps; the network is evaluated once for each
        """
        self.check_condition(condition)

        def velocity(x: Tensor, r: float, t: float) -> Tensor:
            times = mean_flow.network_times(*(torch.full((len(x),), time, device=x.device) for time in (r, t)))
            return to_float32(self.network(x, times, condition))

        x = SeedNoise(seeds, self.spec.shape, self.dtype)()
        x = flow.mean_flow(velocity, x, flow.flow_times(steps)).to(self.dtype)
        return x.clamp(-1, 1) if len(self.spec.shape) == 3 else x
