"""LatentDiffusion: Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", CVPR 2022,
https://arxiv.org/abs/2112.10752: a diffusion or flow model of the latents of a trained autoencoder."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from genbench.core import composition, conditions
from genbench.core.arguments import Count, Number, Share, Weight
from genbench.core.batch import Batch, DataSpec
from genbench.core.capabilities import Decodes, Encodes, takes_condition
from genbench.core.errors import UserError
from genbench.core.module import GenerativeModule
from genbench.core.noise import SeedNoise
from genbench.core.precision import to_float32
from genbench.networks.denoiser import DenoiserSettings
from genbench.networks.standardize import Standardize
from genbench.objectives import flow_matching
from genbench.objectives.diffusion import DiscreteDiffusion
from genbench.objectives.edm import Preconditioning
from genbench.samplers import diffusion, flow
from genbench.samplers.guidance import guided
from genbench.samplers.levels import discrete_levels

SAMPLERS = {
    "ddpm": ("ddim", "ddpm", "dpm++"),
    "edm": ("heun", "euler", "dpm++"),
    "flow_matching": ("euler", "midpoint"),
}


class LatentDiffusion(composition.OnCodes, GenerativeModule):
    """Diffusion or flow model of the latents of a frozen autoencoder, which are scaled to unit variance.

    The latents of a VQVAE are the vectors before quantization; sampled vectors are quantized before they are decoded,
    as in section 3.1 of the paper.

    Args:
        autoencoder: Checkpoint of a trained autoencoder, VAE or VQVAE. The checkpoints of this model contain it
        objective: ddpm (cosine schedule, v prediction, Salimans & Ho 2022), edm or flow_matching
        network: Settings of the network, see `genbench.networks.denoiser.DenoiserSettings`. It is fully connected for
            latents that are vectors
        conditional: Condition on the labels or captions of the data. Captions are read by cross-attention
        condition_dropout: Fraction of the images that are trained without condition, for guidance
    """

    players = {"train": ("network", "standardize")}

    def __init__(
        self,
        spec: DataSpec | None = None,
        autoencoder: str | dict[str, Any] | None = None,
        objective: Literal["ddpm", "edm", "flow_matching"] = "edm",
        network: dict[str, Any] | None = None,
        conditional: bool = False,
        condition_dropout: Share = 0.1,
        **training: Any,
    ) -> None:
        part, self._arguments["autoencoder"] = composition.take(autoencoder, "model.autoencoder", "an autoencoder")
        super().__init__(spec, **training)
        self.vectors = hasattr(part, "encode_vectors")
        if not isinstance(part, Encodes) or not isinstance(part, Decodes) or takes_condition(part.encode):
            raise UserError(
                f"LatentDiffusion needs a model that encodes and decodes images without labels, which "
                f"{type(part).__name__} does not. Use the checkpoint of an autoencoder, a VAE or a VQVAE."
            )
        if part.latent_dtype != "float32" and not self.vectors:
            raise UserError(f"The latents of {type(part).__name__} are whole numbers. Use the checkpoint of a VQVAE.")
        composition.refuse_other_images(part, self.spec)
        if conditional:
            conditions.refuse_without(self.spec)
        self.autoencoder, self.objective = part, objective
        self.latent_shape, self.latent_dtype = part.latent_shape, part.latent_dtype
        if self.vectors:
            self.latent_values = part.latent_values
        self.conditional, self.condition_dropout = conditional, condition_dropout
        with torch.no_grad():
            self.shape = tuple(self._latents(torch.zeros(1, *self.spec.shape)).shape[1:])
        self.standardize = Standardize(self.shape[0])
        self.diffusion = DiscreteDiffusion(1000, "cosine", prediction="v", discrete=False)
        self.edm = Preconditioning(sigma_data=1.0)
        scale = Preconditioning.scale if objective == "edm" else 1000.0
        self.network = DenoiserSettings.of(network).build(self.shape, self.spec, scale=scale, conditional=conditional)

    def _latents(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, D] or [B, D, h, w], not scaled."""
        part: Any = self.autoencoder
        return part.encode_vectors(x) if self.vectors else part.encode(x)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        with torch.no_grad():
            z = self._latents(batch.image)
            self.standardize.learn(z)
        condition = conditions.of_batch(self, batch, self.condition_dropout)
        return {name: each.mean() for name, each in self._loss(self.standardize(z), condition).items()}

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """The training loss of each image, [B]."""
        terms = self._loss(self.standardize(self._latents(batch.image)), conditions.of_batch(self, batch))
        return {"denoising_loss": torch.stack([*terms.values()]).sum(0)}

    def _loss(self, z: Tensor, condition: Tensor | None) -> dict[str, Tensor]:
        """Loss terms of standardized latents, [B] each."""

        def net(x: Tensor, time: Tensor) -> Tensor:
            return self.network(x, time, condition)

        if self.objective == "ddpm":
            return self.diffusion.loss(net, z, self.draw)
        if self.objective == "edm":
            return self.edm.loss(net, z, self.draw)
        t = flow_matching.draw_times("uniform", len(z), self.draw)
        return flow_matching.loss(net, z, self.draw(torch.randn, *z.shape).to(z.dtype), t)

    def sample(
        self,
        seeds: Tensor,
        *,
        condition: Tensor | None = None,
        sampler: Literal["default", "ddim", "ddpm", "dpm++", "heun", "euler", "midpoint"] = "default",
        steps: Count = 25,
        guidance: Number = 1.0,
        guidance_from: Weight = 0.0,
        guidance_to: Weight = 1e6,
        guide: str = "",
    ) -> Tensor:
        """int64 seeds [n], and labels [n] or captions [n, L] for a conditional model -> images [n, C, H, W] in [-1, 1].

        sampler        of the objective: ddim, ddpm, dpm++ (ddpm); heun, euler, dpm++ (edm); euler, midpoint
                       (flow_matching). Default: the first of them
        steps          number of steps
        guidance       weight of guidance; 1 is none
        guidance_from, guidance_to
                       noise-to-signal ratios between which guidance is used
        guide          checkpoint of a weaker LatentDiffusion with the same autoencoder, for autoguidance; default:
                       classifier-free guidance
        """
        self.check_condition(condition)
        composition.refuse_guidance(self, guidance, guide)
        chosen = SAMPLERS[self.objective][0] if sampler == "default" else sampler
        if chosen not in SAMPLERS[self.objective]:
            raise UserError(
                f"sampler is {sampler}, but this LatentDiffusion was trained with objective {self.objective}, whose "
                f"samplers are: {', '.join(SAMPLERS[self.objective])}."
            )
        net = guided(
            self.network,
            condition,
            weight=guidance,
            null=conditions.null(condition, self.spec),
            guide=composition.guide_of(self, guide, "network", ("objective",)),
            active=lambda time: guidance_from <= self._noise_to_signal(time) <= guidance_to,
        )
        noise = SeedNoise(seeds, self.shape, self.dtype)
        z = self._solve(net, noise, chosen, steps)
        return self._images(self.standardize.inverse(z))

    def _solve(self, net: Any, noise: SeedNoise, sampler: str, steps: int) -> Tensor:
        """Standardized latents, by one of the samplers of the objective."""
        if self.objective == "ddpm":

            def predict(x: Tensor, t: float) -> tuple[Tensor, Tensor | float]:
                return self.diffusion.predict(net, x, int(t), clip=False)

            levels = discrete_levels(self.diffusion.alpha, self.diffusion.sigma, steps)
            if sampler == "ddpm":
                return diffusion.ancestral(predict, noise(), levels, noise)
            if sampler == "ddim":
                return diffusion.ddim(lambda x, t: predict(x, t)[0], noise(), levels)
            return diffusion.dpm_solver_pp(lambda x, t: predict(x, t)[0], noise(), levels)
        if self.objective == "edm":

            def denoise(x: Tensor, sigma: float) -> Tensor:
                return self.edm.denoise(net, x, torch.full((len(x),), sigma, device=x.device))

            levels = diffusion.karras_sigmas(steps)
            z = float(levels.sigma[0]) * noise()
            if sampler == "heun":
                return diffusion.heun(denoise, z, levels)
            return (diffusion.ddim if sampler == "euler" else diffusion.dpm_solver_pp)(denoise, z, levels)

        def velocity(x: Tensor, t: float) -> Tensor:
            return to_float32(net(x, torch.full((len(x),), t, device=x.device)))

        return (flow.euler if sampler == "euler" else flow.midpoint)(velocity, noise(), flow.flow_times(steps))

    def _noise_to_signal(self, time: float) -> float:
        """sigma / alpha at a time of the network."""
        if self.objective == "ddpm":
            return self.diffusion.noise_to_signal(time)
        if self.objective == "edm":
            return Preconditioning.sigma(time)
        return time / (1 - time) if time < 1 else 1e6

    def _images(self, z: Tensor) -> Tensor:
        """Latents -> images [n, C, H, W] in [-1, 1]."""
        part: Any = self.autoencoder
        z = z.to(self.dtype)
        return part.decode_vectors(z) if self.vectors else part.decode(z)
