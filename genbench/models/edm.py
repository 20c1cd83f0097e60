"""EDM: Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", NeurIPS 2022,
https://arxiv.org/abs/2206.00364. The preconditioning and the loss are in `genbench.objectives.edm`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from genbench.core import conditions
from genbench.core.arguments import Bounds, Deviation, Number, Rho, Share, Steps, Weight
from genbench.core.batch import Batch, DataSpec
from genbench.core.composition import guide_of, refuse_guidance
from genbench.core.errors import UserError
from genbench.core.module import GenerativeModule
from genbench.core.noise import SeedNoise
from genbench.networks.denoiser import DenoiserSettings
from genbench.objectives.edm import Preconditioning
from genbench.samplers import diffusion
from genbench.samplers.guidance import guided

# of the logarithm of the noise level; outside, levels overflow
LogLevel = Annotated[float, Bounds(at_least=-10, at_most=10)]
LogSpread = Annotated[float, Bounds(above=0, at_most=10)]


class EDM(GenerativeModule):
    """Diffusion model with continuous noise levels, of images or points.

    Args:
        network: Settings of the network, see `genbench.networks.denoiser.DenoiserSettings`
        sigma_data: Standard deviation of the data; 0.5 in the paper
        log_mean, log_std: Mean and standard deviation of the logarithm of the noise level in training
        conditional: Condition on the labels or captions of the data
        condition_dropout: Fraction of the images that are trained without condition, for guidance
    """

    def __init__(
        self,
        spec: DataSpec | None = None,
        network: dict[str, Any] | None = None,
        sigma_data: Deviation = 0.5,
        log_mean: LogLevel = -1.2,
        log_std: LogSpread = 1.2,
        conditional: bool = False,
        condition_dropout: Share = 0.1,
        **training: Any,
    ) -> None:
        super().__init__(spec, **training)
        if conditional:
            conditions.refuse_without(self.spec)
        conditions.refuse_unused(conditional, condition_dropout)
        self.conditional, self.condition_dropout = conditional, condition_dropout
        self.edm = Preconditioning(sigma_data, log_mean, log_std)
        self.network = DenoiserSettings.of(network).build(
            self.spec.shape, self.spec, scale=Preconditioning.scale, conditional=conditional
        )

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        condition = conditions.of_batch(self, batch, self.condition_dropout)
        terms = self.edm.loss(lambda x, time: self.network(x, time, condition), batch.image, self.draw)
        return {name: each.mean() for name, each in terms.items()}

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """The training loss of each image, [B]."""
        condition = conditions.of_batch(self, batch)
        terms = self.edm.loss(lambda x, time: self.network(x, time, condition), batch.image, self.draw)
        return {"denoising_loss": torch.stack([*terms.values()]).sum(0)}

    def sample(
        self,
        seeds: Tensor,
        *,
        condition: Tensor | None = None,
        sampler: Literal["heun", "euler", "dpm++"] = "heun",
        steps: Steps = 18,
        sigma_min: Deviation = 0.002,
        sigma_max: Deviation = 80.0,
        rho: Rho = 7.0,
        churn: Weight = 0.0,
        churn_from: Weight = 0.0,
        churn_to: Weight = 1e6,
        inflation: Weight = 1.0,
        guidance: Number = 1.0,
        guidance_from: Weight = 0.0,
        guidance_to: Weight = 1e6,
        guide: str = "",
    ) -> Tensor:
        """int64 seeds [n], and labels [n] or captions [n, L] for a conditional model -> images [n, C, H, W] in [-1, 1].

        sampler        heun (2·steps - 1 network evaluations), euler or dpm++ (DPM-Solver++ 2M; `steps` evaluations)
        steps          number of steps
        sigma_min, sigma_max, rho
                       the noise levels and their spacing (equation 5)
        churn, churn_from, churn_to, inflation
                       heun: S_churn, S_tmin, S_tmax and S_noise of algorithm 2
        guidance       weight of guidance; 1 is none. Guided steps need twice the network evaluations
        guidance_from, guidance_to
                       noise levels between which guidance is used
        guide          checkpoint of a weaker EDM, for autoguidance; default: classifier-free guidance

        Raises:
            UserError: an option is invalid or has no effect, or the model cannot be guided.
        """
        self.check_condition(condition)
        refuse_guidance(self, guidance, guide, (guidance_from, guidance_to))
        if churn and sampler != "heun":
            raise UserError(f"churn has no effect with the sampler {sampler}. Remove it, or use the sampler heun.")
        if not churn and (churn_from, churn_to, inflation) != (0.0, 1e6, 1.0):
            raise UserError(
                "churn_from, churn_to and inflation have no effect without churn. Set `--churn`, such as to 10, or "
                "remove them."
            )
        if churn_from > churn_to:
            raise UserError(f"churn_from is {churn_from:g} and churn_to is {churn_to:g}; it must not be smaller.")
        if steps == 1 and (sigma_min, rho) != (0.002, 7.0):
            raise UserError("sigma_min and rho have no effect with one step. Set `--steps 2` or more, or remove them.")
        levels = diffusion.karras_sigmas(steps, sigma_min, sigma_max, rho)

        def denoise(x: Tensor, sigma: float) -> Tensor:
            net = guided(
                self.network,
                condition,
                weight=guidance if guidance_from <= sigma <= guidance_to else 1.0,
                null=conditions.null(condition, self.spec),
                guide=guide_of(self, guide, "network", ("sigma_data",)),
            )
            return self.edm.denoise(net, x, torch.full((len(x),), sigma, device=x.device))

        noise = SeedNoise(seeds, self.spec.shape, self.dtype)
        x = sigma_max * noise()
        if sampler == "heun":
            x = diffusion.heun(denoise, x, levels, churn, churn_from, churn_to, inflation, noise)
        elif sampler == "euler":
            x = diffusion.ddim(denoise, x, levels)
        else:
            x = diffusion.dpm_solver_pp(denoise, x, levels)
        x = x.to(self.dtype)
        return x.clamp(-1, 1) if len(self.spec.shape) == 3 else x
