"""FlowMatching: Lipman et al., "Flow Matching for Generative Modeling", ICLR 2023, https://arxiv.org/abs/2210.02747;
Liu et al., "Flow Straight and Fast", ICLR 2023. The loss is in `genbench.objectives.flow_matching`."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from genbench.core import conditions
from genbench.core.arguments import Bounds, Number, Share, Steps, Weight
from genbench.core.batch import Batch, DataSpec
from genbench.core.capabilities import check_options
from genbench.core.composition import guide_of, refuse_guidance
from genbench.core.errors import UserError
from genbench.core.module import GenerativeModule
from genbench.core.noise import SeedNoise
from genbench.core.precision import to_float32
from genbench.networks.denoiser import DenoiserSettings
from genbench.objectives import flow_matching
from genbench.objectives.flow_matching import Times
from genbench.objectives.pixels import LEVELS, dequantized
from genbench.samplers import flow
from genbench.samplers.guidance import guided

Shift = Annotated[float, Bounds(at_least=0.001, at_most=1000)]
Probes = Annotated[int, Bounds(at_least=0, at_most=10_000)]
Tolerance = Annotated[float, Bounds(at_least=1e-9, at_most=1)]


class FlowMatching(GenerativeModule):
    """Model of the velocity along straight paths from noise (t = 1) to images or points (t = 0).

    Args:
        network: Settings of the network, see `genbench.networks.denoiser.DenoiserSettings`
        times: Distribution of the times in training: uniform, or logit_normal (Esser et al. 2024)
        optimal_transport: Pair images and noise of each batch by optimal transport (Tong et al. 2024); for several
            processes, each pairs its own part of the batch. Only for unconditional models
        conditional: Condition on the labels or captions of the data
        condition_dropout: Fraction of the images that are trained without condition, for guidance
    """

    def __init__(
        self,
        spec: DataSpec | None = None,
        network: dict[str, Any] | None = None,
        times: Times = "uniform",
        optimal_transport: bool = False,
        conditional: bool = False,
        condition_dropout: Share = 0.1,
        **training: Any,
    ) -> None:
        super().__init__(spec, **training)
        if conditional:
            conditions.refuse_without(self.spec)
        conditions.refuse_unused(conditional, condition_dropout)
        if optimal_transport and conditional:
            raise UserError(
                "model.optimal_transport pairs noise with images of any condition, so that it would depend on the "
                "condition in training, but not in sampling. Remove one of `--model.optimal_transport` and "
                "`--model.conditional`."
            )
        self.conditional, self.condition_dropout = conditional, condition_dropout
        self.times, self.optimal_transport = times, optimal_transport
        images = len(self.spec.shape) == 3
        self.likelihood, self.pixels = ("lower bound", "8-bit") if images else ("exact", "density")
        self.likelihood_option = "probes" if images else None
        self.network = DenoiserSettings.of(network).build(self.spec.shape, self.spec, conditional=conditional)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        condition = conditions.of_batch(self, batch, self.condition_dropout)
        return {name: each.mean() for name, each in self._loss(batch.image, condition).items()}

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """The training loss of each image, [B]."""
        terms = self._loss(batch.image, conditions.of_batch(self, batch))
        return {"velocity_loss": torch.stack([*terms.values()]).sum(0)}

    def _loss(self, x: Tensor, condition: Tensor | None) -> dict[str, Tensor]:
        t = flow_matching.draw_times(self.times, len(x), self.draw)
        noise = self.draw(torch.randn, *x.shape).to(x.dtype)
        if self.optimal_transport:
            noise = flow_matching.pair(x, noise)
        return flow_matching.loss(lambda x, time: self.network(x, time, condition), x, noise, t)

    def log_likelihood(self, x: Tensor, *, probes: Probes = 0, tolerance: Tolerance = 1e-5) -> Tensor:
        """[B, C, H, W] -> an estimate of a lower bound of log P(x), [B] nats, from one draw of uniform dequantization
        noise; for points [B, D] the exact log density. A conditional model is used without condition.

        probes     random vectors that estimate the trace of the Jacobian; 0 computes it exactly, and only for points
        tolerance  relative and absolute tolerance of the ODE solver

        Raises:
            UserError: `probes` is 0 for images, or the model was never trained without condition.
        """
        return self.log_likelihood_and_error(x, probes=probes, tolerance=tolerance)[0]

    def log_likelihood_and_error(self, x: Tensor, *, probes: int, tolerance: float) -> tuple[Tensor, Tensor]:
        """`log_likelihood` and its standard error over the random vectors, [B] each; NaN for one vector."""
        check_options(self.log_likelihood, {"probes": probes, "tolerance": tolerance})
        if self.conditional and self.condition_dropout == 0:
            raise UserError(
                "This FlowMatching was trained with `condition_dropout` 0, so that it has no likelihood without "
                "condition. Train with `--model.condition_dropout 0.1`."
            )
        if x.ndim == 2:
            return flow_matching.log_density(self.network, x, tolerance, probes)
        if not probes:
            raise UserError(
                f"The exact likelihood of an image needs {x[0].numel()} derivatives at each step. Set `--probes 1` or "
                "more for an estimate."
            )
        y = dequantized(x, torch.rand_like(x))
        nats, error = flow_matching.log_density(self.network, y, tolerance, probes)
        return nats - math.log(LEVELS) * x[0].numel(), error  # a density in [-1, 1], where levels are 2/255 apart

    def sample(
        self,
        seeds: Tensor,
        *,
        condition: Tensor | None = None,
        sampler: Literal["euler", "midpoint"] = "euler",
        steps: Steps = 25,
        shift: Shift = 1.0,
        guidance: Number = 1.0,
        guidance_from: Weight = 0.0,
        guidance_to: Weight = 1e6,
        guide: str = "",
    ) -> Tensor:
        """int64 seeds [n], and labels [n] or captions [n, L] for a conditional model -> images [n, C, H, W] in [-1, 1].

        sampler        euler, or midpoint (two network evaluations for each step)
        steps          number of steps
        shift          above 1, more steps are spent at noisy times (Esser et al. 2024)
        guidance       weight of guidance; 1 is none. Guided steps need twice the network evaluations
        guidance_from, guidance_to
                       noise-to-signal ratios t / (1 - t) between which guidance is used
        guide          checkpoint of a weaker FlowMatching, for autoguidance; default: classifier-free guidance

        Raises:
            UserError: an option is invalid or has no effect, or the model cannot be guided.
        """
        self.check_condition(condition)
        refuse_guidance(self, guidance, guide, (guidance_from, guidance_to))
        net = guided(
            self.network,
            condition,
            weight=guidance,
            null=conditions.null(condition, self.spec),
            guide=guide_of(self, guide, "network"),
            active=lambda t: guidance_from <= flow_matching.noise_to_signal(t) <= guidance_to,
        )

        def velocity(x: Tensor, t: float) -> Tensor:
            return to_float32(net(x, torch.full((len(x),), t, device=x.device)))

        solve = flow.euler if sampler == "euler" else flow.midpoint
        x = SeedNoise(seeds, self.spec.shape, self.dtype)()
        x = solve(velocity, x, flow.flow_times(steps, shift)).to(self.dtype)
        return x.clamp(-1, 1) if len(self.spec.shape) == 3 else x
