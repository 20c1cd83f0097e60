"""DDPM: Ho, Jain & Abbeel, "Denoising Diffusion Probabilistic Models", NeurIPS 2020,
https://arxiv.org/abs/2006.11239. The loss and the bound are in `genbench.objectives.diffusion`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from genbench.core import conditions
from genbench.core.arguments import Bounds, Count, Number, Share, Steps, Weight
from genbench.core.batch import Batch, DataSpec
from genbench.core.composition import guide_of, refuse_guidance
from genbench.core.errors import UserError
from genbench.core.module import GenerativeModule
from genbench.core.noise import SeedNoise
from genbench.networks.denoiser import DenoiserSettings
from genbench.objectives.diffusion import DiscreteDiffusion, Prediction, Schedule, Variance
from genbench.samplers import diffusion
from genbench.samplers.guidance import guided
from genbench.samplers.levels import Spacing, discrete_levels

Timesteps = Annotated[int, Bounds(at_least=50, at_most=100_000)]


class DDPM(GenerativeModule):
    """Diffusion model in discrete time, of images or points.

    Args:
        network: Settings of the network, see `genbench.networks.denoiser.DenoiserSettings`
        timesteps: Number of time steps, T
        noise_schedule: linear (Ho et al. 2020) or cosine (Nichol & Dhariwal 2021)
        zero_terminal_snr: Change the schedule so that the last time step has no signal (Lin et al. 2024)
        prediction: What the network predicts: noise, image or v
        variance: Variance of a reverse step: small or large as in Ho et al. 2020, or learned
        conditional: Condition on the labels or captions of the data
        condition_dropout: Fraction of the images that are trained without condition, for guidance
    """

    likelihood = "lower bound"

    def __init__(
        self,
        spec: DataSpec | None = None,
        network: dict[str, Any] | None = None,
        timesteps: Timesteps = 1000,
        noise_schedule: Schedule = "linear",
        zero_terminal_snr: bool = False,
        prediction: Prediction = "noise",
        variance: Variance = "small",
        conditional: bool = False,
        condition_dropout: Share = 0.1,
        **training: Any,
    ) -> None:
        super().__init__(spec, **training)
        if conditional:
            conditions.refuse_without(self.spec)
        conditions.refuse_unused(conditional, condition_dropout)
        self.conditional, self.condition_dropout = conditional, condition_dropout
        images = len(self.spec.shape) == 3
        self.pixels = "8-bit" if images else "density"
        self.diffusion = DiscreteDiffusion(timesteps, noise_schedule, zero_terminal_snr, prediction, variance, images)
        self.network = DenoiserSettings.of(network).build(
            self.spec.shape, self.spec, per_value=self.diffusion.outputs, conditional=conditional
        )

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        condition = conditions.of_batch(self, batch, self.condition_dropout)
        terms = self.diffusion.loss(lambda x, time: self.network(x, time, condition), batch.image, self.draw)
        return {name: each.mean() for name, each in terms.items()}

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """The training loss of each image, [B]."""
        condition = conditions.of_batch(self, batch)
        terms = self.diffusion.loss(lambda x, time: self.network(x, time, condition), batch.image, self.draw)
        return {"denoising_loss": torch.stack([*terms.values()]).sum(0)}

    def log_likelihood(self, x: Tensor, *, time_steps: Count = 10) -> Tensor:
        """[B, C, H, W] -> an estimate of a lower bound of log p(x), [B] nats, from `time_steps` random time steps. A
        conditional model is used without condition.

        Raises:
            UserError: `time_steps` is more than `timesteps`, or the model was never trained without condition.
        """
        if self.conditional and self.condition_dropout == 0:
            raise UserError(
                "This DDPM was trained with `condition_dropout` 0, so that it has no likelihood without condition. "
                "Train with `--model.condition_dropout 0.1`."
            )
        return self.diffusion.bound(self.network, x, time_steps)

    def sample(
        self,
        seeds: Tensor,
        *,
        condition: Tensor | None = None,
        sampler: Literal["ddim", "ddpm", "dpm++"] = "ddim",
        steps: Steps = 50,
        spacing: Spacing = "trailing",
        eta: Share = 0.0,
        clip: bool = True,
        guidance: Number = 1.0,
        guidance_from: Weight = 0.0,
        guidance_to: Weight = 1e6,
        guide: str = "",
    ) -> Tensor:
        """int64 seeds [n], and labels [n] or captions [n, L] for a conditional model -> images [n, C, H, W] in [-1, 1].

        sampler        ddim, ddpm (ancestral) or dpm++ (DPM-Solver++ 2M)
        steps          number of steps, at most `timesteps`; the network is evaluated once for each
        spacing        of the time steps: trailing, leading or linspace
        eta            ddim: 0 is deterministic, 1 adds the noise of DDPM
        clip           clip the predicted images to [-1, 1] at each step
        guidance       weight of guidance; 1 is none. Guided steps need twice the network evaluations
        guidance_from, guidance_to
                       noise-to-signal ratios between which guidance is used
        guide          checkpoint of a weaker DDPM, for autoguidance; default: classifier-free guidance

        Raises:
            UserError: an option is invalid or has no effect, or the model cannot be guided.
        """
        self.check_condition(condition)
        levels = discrete_levels(self.diffusion.alpha, self.diffusion.sigma, steps, spacing)
        refuse_guidance(self, guidance, guide, (guidance_from, guidance_to))
        if eta and sampler != "ddim":
            raise UserError(f"eta has no effect with the sampler {sampler}. Remove it, or use the sampler ddim.")
        images = len(self.spec.shape) == 3
        if not clip and not images:
            raise UserError("clip has no effect on points, which are never clipped. Remove it.")
        net = guided(
            self.network,
            condition,
            weight=guidance,
            null=conditions.null(condition, self.spec),
            guide=guide_of(
                self, guide, "network", ("timesteps", "noise_schedule", "zero_terminal_snr", "prediction", "variance")
            ),
            active=lambda time: guidance_from <= self.diffusion.noise_to_signal(time) <= guidance_to,
            values=self.spec.shape[0],
        )
        noise = SeedNoise(seeds, self.spec.shape, self.dtype)

        def predict(x: Tensor, t: float) -> tuple[Tensor, Tensor | float]:
            return self.diffusion.predict(net, x, int(t), clip and images)

        x = noise()
        if sampler == "ddpm":
            x = diffusion.ancestral(predict, x, levels, noise)
        elif sampler == "ddim":
            x = diffusion.ddim(lambda x, t: predict(x, t)[0], x, levels, eta, noise)
        else:
            x = diffusion.dpm_solver_pp(lambda x, t: predict(x, t)[0], x, levels)
        return x.clamp(-1, 1) if images else x
