"""LatentDiffusion: Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", CVPR 2022,
https://arxiv.org/abs/2112.10752: a diffusion or flow model of the latents of a trained autoencoder."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from genbench.core import composition, conditions
from genbench.core.arguments import Number, Share, Steps, Weight
from genbench.core.batch import Batch, DataSpec
from genbench.core.capabilities import Decodes, Encodes, takes_condition
from genbench.core.errors import UserError
from genbench.core.module import GenerativeModule
from genbench.core.noise import SeedNoise
from genbench.core.precision import to_float32
from genbench.networks.denoiser import DenoiserSettings
from genbench.networks.standardize import Standardize
from genbench.objectives import consistency, flow_matching, mean_flow
from genbench.objectives.diffusion import DiscreteDiffusion
from genbench.objectives.edm import Net, Preconditioning
from genbench.samplers import consistency as consistency_sampler
from genbench.samplers import diffusion, flow
from genbench.samplers.guidance import guided
from genbench.samplers.levels import discrete_levels

# the papers' noise levels are for images with standard deviation 0.5; that of standardized latents is 1
RELATIVE = 2.0


class LatentDiffusion(composition.OnCodes, GenerativeModule):
    """Diffusion, flow or one-step model of the latents of a frozen autoencoder, which are scaled to unit variance.

    The latents of a VAE are its posterior means. Those of a VQVAE are the vectors before quantization; sampled vectors
    are quantized before they are decoded, as in section 3.1 of the paper.

    Args:
        autoencoder: Checkpoint of a trained autoencoder, VAE or VQVAE. The checkpoints of this model contain it
        objective: ddpm (cosine schedule, v prediction, Salimans & Ho 2022), edm, flow_matching, mean_flow or
            consistency
        network: Settings of the network, see `genbench.networks.denoiser.DenoiserSettings`. It is fully connected for
            latents that are vectors
        conditional: Condition on the labels or captions of the data. Captions are read by cross-attention; a fully
            connected network gets a summary of them
        condition_dropout: Fraction of the images that are trained without condition, for guidance. mean_flow and
            consistency have no guidance, and are always trained with the condition
    """

    players = {"train": ("network", "standardize")}

    def __init__(
        self,
        spec: DataSpec | None = None,
        autoencoder: str | dict[str, Any] | None = None,
        objective: Literal["ddpm", "edm", "flow_matching", "mean_flow", "consistency"] = "edm",
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
        conditions.refuse_unused(conditional, condition_dropout)
        self.autoencoder, self.objective = part, OBJECTIVES[objective]()
        self.latent_shape, self.latent_dtype = part.latent_shape, part.latent_dtype
        if self.vectors:
            self.latent_values = part.latent_values
        if not self.objective.guidance and condition_dropout not in (0, 0.1):
            raise UserError(
                f"model.condition_dropout is {condition_dropout:g}, but models of the objective {objective} are always "
                "trained with the condition. Remove it."
            )
        self.conditional = conditional
        self.condition_dropout = condition_dropout if self.objective.guidance else 0.0
        self.sample_defaults = {"sampler": self.objective.samplers[0], "steps": self.objective.steps}
        with torch.no_grad():
            self.shape = tuple(self._latents(torch.zeros(1, *self.spec.shape)).shape[1:])
        self.standardize = Standardize(self.shape[0])
        self.network = DenoiserSettings.of(network).build(
            self.shape, self.spec, self.objective.times, self.objective.scale, conditional=conditional
        )

    def _latents(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, D] or [B, D, h, w], not scaled."""
        part: Any = self.autoencoder
        return part.encode_vectors(x) if self.vectors else part.encode(x)

    def _images(self, z: Tensor) -> Tensor:
        """Latents, not scaled -> images [n, C, H, W] in [-1, 1]."""
        part: Any = self.autoencoder
        z = z.to(self.dtype)
        return part.decode_vectors(z) if self.vectors else part.decode(z)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        with torch.no_grad():
            z = self._latents(batch.image)
            self.standardize.learn(z)
        condition = conditions.of_batch(self, batch, self.condition_dropout)
        terms = self.objective.loss(self, self.standardize(z), condition)
        return {name: each.mean() for name, each in terms.items()}

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """The loss of each image, [B]: for mean_flow before weighting, for consistency with the last number of
        intervals."""
        z, condition = self.standardize(self._latents(batch.image)), conditions.of_batch(self, batch)
        return {"denoising_loss": self.objective.score(self, z, condition)}

    def sample(
        self,
        seeds: Tensor,
        *,
        condition: Tensor | None = None,
        sampler: Literal["ddim", "ddpm", "dpm++", "heun", "euler", "midpoint", "mean_flow", "multistep"] = "heun",
        steps: Steps = 25,
        guidance: Number = 1.0,
        guidance_from: Weight = 0.0,
        guidance_to: Weight = 1e6,
        guide: str = "",
    ) -> Tensor:
        """int64 seeds [n], and labels [n] or captions [n, L] for a conditional model -> images [n, C, H, W] in [-1, 1].

        sampler        of the objective: ddim, ddpm, dpm++ (ddpm); heun, euler, dpm++ (edm); euler, midpoint
                       (flow_matching); mean_flow; multistep (consistency). Default: the first of them
        steps          number of steps. Default: 25; for mean_flow and consistency 1
        guidance       weight of guidance; 1 is none, and the only weight for mean_flow and consistency
        guidance_from, guidance_to
                       noise-to-signal ratios between which guidance is used
        guide          checkpoint of a weaker LatentDiffusion with the same autoencoder, for autoguidance; default:
                       classifier-free guidance

        Raises:
            UserError: an option is invalid or has no effect, the sampler is not one of the objective, or the model
                cannot be guided.
        """
        self.check_condition(condition)
        name, objective = composition.argument_of(self, "objective"), self.objective
        if sampler not in objective.samplers:
            raise UserError(
                f"sampler is {sampler}, but this LatentDiffusion was trained with objective {name}, whose samplers "
                f"are: {', '.join(objective.samplers)}."
            )
        interval = (guidance_from, guidance_to)
        if (guidance != 1 or guide or interval != composition.EVERYWHERE) and not objective.guidance:
            raise UserError(
                f"guidance does not work with objective {name}: it changes velocities or denoised images at one noise "
                "level, but this network predicts the result of a long step. Remove it, or train with another "
                "`--model.objective`."
            )
        composition.refuse_guidance(self, guidance, guide, interval)
        net = guided(
            self.network,
            condition,
            weight=guidance,
            null=conditions.null(condition, self.spec),
            guide=composition.guide_of(self, guide, "network", ("objective",)),
            active=lambda time: guidance_from <= objective.noise_to_signal(time) <= guidance_to,
        )
        z = objective.sample(net, SeedNoise(seeds, self.shape, self.dtype), sampler, steps)
        return self._images(self.standardize.inverse(z))


# ---- objectives: a loss and its samplers ----------------------------------------------------------------------------


class Objective:
    """What the network predicts for standardized latents z [B, ...], and how latents are sampled with it."""

    samplers: tuple[str, ...]  # the first is the default
    steps = 25  # of a sampler, by default
    times = 1  # that the network gets per image
    scale = 1000.0  # of the times in the network's embedding
    guidance = True  # whether the network's output can be guided

    def loss(self, model: LatentDiffusion, z: Tensor, condition: Tensor | None) -> dict[str, Tensor]:
        """The terms of the training loss, [B] each."""
        raise NotImplementedError

    def score(self, model: LatentDiffusion, z: Tensor, condition: Tensor | None) -> Tensor:
        """The loss in validation, [B]. Default: the sum of the terms of `loss`."""
        return torch.stack([*self.loss(model, z, condition).values()]).sum(0)

    def noise_to_signal(self, time: float) -> float:
        """sigma / alpha at a time of the network, at most 1e6."""
        raise NotImplementedError

    def sample(self, net: Net, noise: SeedNoise, sampler: str, steps: int) -> Tensor:
        """Standardized latents [n, ...] from noise."""
        raise NotImplementedError


class DDPMObjective(Objective):
    """With 1,000 time steps, of which sampling uses trailing ones."""

    samplers = ("ddim", "ddpm", "dpm++")

    def __init__(self) -> None:
        self.diffusion = DiscreteDiffusion(1000, "cosine", prediction="v", discrete=False)

    def loss(self, model: LatentDiffusion, z: Tensor, condition: Tensor | None) -> dict[str, Tensor]:
        return self.diffusion.loss(_given(model, condition), z, model.draw)

    def noise_to_signal(self, time: float) -> float:
        return self.diffusion.noise_to_signal(time)

    def sample(self, net: Net, noise: SeedNoise, sampler: str, steps: int) -> Tensor:
        def predict(x: Tensor, t: float) -> tuple[Tensor, Tensor | float]:
            return self.diffusion.predict(net, x, int(t), clip=False)

        levels = discrete_levels(self.diffusion.alpha, self.diffusion.sigma, steps)
        if sampler == "ddpm":
            return diffusion.ancestral(predict, noise(), levels, noise)
        solver = diffusion.ddim if sampler == "ddim" else diffusion.dpm_solver_pp
        return solver(lambda x, t: predict(x, t)[0], noise(), levels)


class EDMObjective(Objective):
    """With the noise levels of Karras et al. 2022, times `RELATIVE`."""

    samplers = ("heun", "euler", "dpm++")
    scale = Preconditioning.scale

    def __init__(self) -> None:
        self.edm = Preconditioning(sigma_data=1.0, log_mean=-1.2 + math.log(RELATIVE))

    def loss(self, model: LatentDiffusion, z: Tensor, condition: Tensor | None) -> dict[str, Tensor]:
        return self.edm.loss(_given(model, condition), z, model.draw)

    def noise_to_signal(self, time: float) -> float:
        return Preconditioning.sigma(time)

    def sample(self, net: Net, noise: SeedNoise, sampler: str, steps: int) -> Tensor:
        def denoise(x: Tensor, sigma: float) -> Tensor:
            return self.edm.denoise(net, x, _times(x, sigma))

        levels = diffusion.karras_sigmas(steps, RELATIVE * 0.002, RELATIVE * 80)
        z = float(levels.sigma[0]) * noise()
        if sampler == "heun":
            return diffusion.heun(denoise, z, levels)
        return (diffusion.ddim if sampler == "euler" else diffusion.dpm_solver_pp)(denoise, z, levels)


class FlowMatchingObjective(Objective):
    samplers = ("euler", "midpoint")

    def loss(self, model: LatentDiffusion, z: Tensor, condition: Tensor | None) -> dict[str, Tensor]:
        t = flow_matching.draw_times("uniform", len(z), model.draw)
        noise = model.draw(torch.randn, *z.shape).to(z.dtype)
        return flow_matching.loss(_given(model, condition), z, noise, t)

    def noise_to_signal(self, time: float) -> float:
        return flow_matching.noise_to_signal(time)

    def sample(self, net: Net, noise: SeedNoise, sampler: str, steps: int) -> Tensor:
        def velocity(x: Tensor, t: float) -> Tensor:
            return to_float32(net(x, _times(x, t)))

        return (flow.euler if sampler == "euler" else flow.midpoint)(velocity, noise(), flow.flow_times(steps))


class MeanFlowObjective(Objective):
    """With the settings of Geng et al. 2025, as in `genbench.models.MeanFlow`."""

    samplers, steps = ("mean_flow",), 1
    times, scale, guidance = 2, mean_flow.SCALE, False

    def loss(self, model: LatentDiffusion, z: Tensor, condition: Tensor | None) -> dict[str, Tensor]:
        error = self.score(model, z, condition)
        model.record("train/squared_error", error.mean())
        return {"adaptive": mean_flow.weighted(error)}

    def score(self, model: LatentDiffusion, z: Tensor, condition: Tensor | None) -> Tensor:
        r, t = mean_flow.draw_intervals(len(z), 0.25, -0.4, 1.0, model.draw)
        noise = model.draw(torch.randn, *z.shape).to(z.dtype)
        return mean_flow.squared_error(model.network, z, noise, r, t, condition)

    def sample(self, net: Net, noise: SeedNoise, sampler: str, steps: int) -> Tensor:
        def velocity(x: Tensor, r: float, t: float) -> Tensor:
            return to_float32(net(x, mean_flow.network_times(_times(x, r), _times(x, t))))

        return flow.mean_flow(velocity, noise(), flow.flow_times(steps))


class ConsistencyObjective(Objective):
    """With the settings of Song & Dhariwal 2024, as in `genbench.models.ConsistencyModel`, and their noise levels times
    `RELATIVE`."""

    samplers, steps = ("multistep",), 1
    scale, guidance = consistency.SCALE, False
    last_intervals = 1280
    sigma_last = RELATIVE * 0.821  # of several steps (section 4)

    def __init__(self) -> None:
        self.consistency = consistency.Consistency(
            sigma_data=1.0, sigma_min=RELATIVE * 0.002, sigma_max=RELATIVE * 80, log_mean=-1.1 + math.log(RELATIVE)
        )

    def loss(self, model: LatentDiffusion, z: Tensor, condition: Tensor | None) -> dict[str, Tensor]:
        if model.budget is None:
            raise UserError(
                "The number of noise levels grows over the budget, but the budget is unknown: add a MaxImages callback "
                "to the Trainer."
            )
        count = consistency.intervals(model.images_seen - model._last_batch, model.budget, last=self.last_intervals)
        model.record("train/intervals", torch.tensor(float(count), device=model.device))
        return {"consistency": self.consistency.loss(_given(model, condition), z, count, model.draw)}

    def score(self, model: LatentDiffusion, z: Tensor, condition: Tensor | None) -> Tensor:
        return self.consistency.loss(_given(model, condition), z, self.last_intervals, model.draw)

    def sample(self, net: Net, noise: SeedNoise, sampler: str, steps: int) -> Tensor:
        def denoise(x: Tensor, sigma: float) -> Tensor:
            return self.consistency.denoise(net, x, _times(x, sigma))

        first = self.consistency.sigma_max
        levels = consistency_sampler.sigmas(steps, first, self.sigma_last)
        return consistency_sampler.multistep(denoise, first * noise(), levels, noise, self.consistency.sigma_min)


OBJECTIVES: dict[str, type[Objective]] = {
    "ddpm": DDPMObjective,
    "edm": EDMObjective,
    "flow_matching": FlowMatchingObjective,
    "mean_flow": MeanFlowObjective,
    "consistency": ConsistencyObjective,
}


def _given(model: LatentDiffusion, condition: Tensor | None) -> Net:
    return lambda x, time: model.network(x, time, condition)


def _times(x: Tensor, time: float) -> Tensor:
    """The same time for each latent [n, ...], [n]."""
    return torch.full((len(x),), time, device=x.device)
