"""Scores of images that a model generates from input images: reconstructions and translations."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torchmetrics import Metric

from genbench.core import ranks
from genbench.core.batch import from_stored, to_stored
from genbench.core.capabilities import Encodes, Reconstructs, Translates
from genbench.core.image_grid import beside
from genbench.data.module import DataModule
from genbench.evaluation.comparison import Comparison, refuse_nan
from genbench.evaluation.evaluator import Evaluator, Expected, Plan
from genbench.evaluation.extractor import in_channels
from genbench.evaluation.features import Extraction, pixel_hash
from genbench.evaluation.images import ImageSet, SplitImages, TensorImages, bring, choice
from genbench.evaluation.scores import BlockUpdates, Scores, own_metrics
from genbench.metrics.frechet import FrechetDistance
from genbench.metrics.reconstruction import LPIPS, PSNR, SSIM, WINDOW, CycleConsistency, MeanSquaredError
from genbench.metrics.scales import Track

LPIPS_WEIGHTS = "vgg16-397923af.pth"
LPIPS_LEAST = 16  # pixels per side, since VGG16 halves images four times


class Reconstruction(Evaluator):
    capability = Reconstructs
    track = "reconstruction"
    groups = frozenset({"reconstruction"})

    def expected(self, plan: Plan) -> Expected:
        found = _expected(plan, "", plan.real, beside=True)
        if found and isinstance(plan.model, Encodes):
            found["code_bits"] = None
        return found | plan.own(self.track)

    def evaluate(self, comparison: Comparison) -> Scores:
        c, model, reference = comparison, comparison.model, comparison.images
        scores = Scores(c.protocol, c.extractor)

        def make(rows: Tensor) -> tuple[Tensor, Tensor]:
            images, x = c.for_model(rows)
            return images, model.reconstruct(x)

        made = _Made(c, scores, self.track, "", "reconstructions", shown=reference, wanted=reference, truth=reference)
        made.measure("reconstruct", "Reconstructing", make)
        if isinstance(model, Encodes) and "reconstruction" in c.protocol.metrics:
            each = 32 if model.latent_dtype == "float32" else math.log2(c.model.latent_values)
            scores.put("code_bits", math.prod(model.latent_shape) * each, len(reference))
        return scores


class Translation(Evaluator):
    """Evaluates translations to each domain of the model.

    With pairs, each translation is compared with its true image. Without pairs, the set of translations is compared
    with the set of real images.
    """

    capability = Translates
    track = "translation"
    groups = frozenset({"reconstruction"})

    def expected(self, plan: Plan) -> Expected:
        held, found = plan.held, Expected()
        if not (held.paired or held.others):
            return found
        images = plan.real if held.paired else min(plan.real, held.others)
        for to, prefix in (("B", "translation_"), ("A", "translation_a_")):
            if to in plan.model.domains:
                found |= _expected(plan, prefix, images, held.paired)
        if held.paired:
            found |= plan.own(self.track)
        return found | ({"cycle_l1": None} if len(plan.model.domains) > 1 else {})

    def evaluate(self, comparison: Comparison) -> Scores:
        c, model, b = comparison, comparison.model, comparison.images
        scores, spec = Scores(c.protocol, c.extractor), comparison.model.spec
        sources = c.target("source")
        paired = sources is not None
        if sources is not None:
            a: ImageSet = TensorImages(f"{b.name}, sources", sources)
            # for images in memory, the target of the model tells whether they are paired
            paired = not isinstance(b, TensorImages) or spec.target == "image"
        elif isinstance(b, SplitImages) and b.unpaired and isinstance(c.data, DataModule):
            a = SplitImages(c.data, c.protocol.split, c.protocol.real, domain="A")
        else:
            return scores
        scores.facts["made_from"] = pixel_hash(a)
        back = []
        for to, shown, wanted, size in (("B", a, b, spec.source), ("A", b, a, spec.shape)):
            if to not in model.domains:
                continue

            def make(
                rows: Tensor, to: str = to, shown: ImageSet = shown, size: Sequence[int] = size
            ) -> tuple[Tensor, ...]:
                images = shown.images(rows)
                parts = from_stored(bring(images, size)).to(c.device, model.dtype).split(c.batch_size)
                made = [model.translate(x, to=to) for x in parts]
                if len(model.domains) == 1:
                    return images, torch.cat(made)
                again = [model.translate(x, to="B" if to == "A" else "A") for x in made]
                return images, torch.cat(made), torch.cat(again)

            prefix, sheet = ("translation_", "translations") if to == "B" else ("translation_a_", "translations_a")
            truth = wanted if paired else None
            known = c.reference_hash if wanted is b else scores.facts["made_from"]
            made = _Made(c, scores, self.track if to == "B" else None, prefix, sheet, shown, wanted, truth, known)
            back += made.measure("translate", f"Translating to {to}", make)
        if back and "reconstruction" in c.protocol.metrics:
            scores.put("cycle_l1", sum(back) / len(back), len(b))
        return scores


class _Made:
    """Scores of images that a model generates from input images.

    track   track of the user's own metrics that are also computed; None: no own metrics
    prefix  prefix of the names of the scores
    sheet   name of the sheet in the gallery
    shown   input images
    wanted  real images of the output domain, whose distribution is compared
    truth   true outputs, row by row, which may be `shown` itself; None: only distributions are compared
    pixels  hash of `wanted`. Default: hash of the reference
    """

    def __init__(
        self,
        comparison: Comparison,
        scores: Scores,
        track: Track | None,
        prefix: str,
        sheet: str,
        shown: ImageSet,
        wanted: ImageSet,
        truth: ImageSet | None,
        pixels: str | None = None,
    ) -> None:
        self.c, self.scores, self.prefix, self.sheet = comparison, scores, prefix, sheet
        self.shown, self.wanted, self.truth = shown, wanted, truth
        self.pixels = pixels or comparison.reference_hash
        self.points = len(wanted.shape) == 1
        self.own = {} if track is None or truth is None else own_metrics(comparison.protocol, track)
        self.missing: dict[str, str] = {}  # score -> reason why it is not computed
        self.metrics = self._metrics() if truth is not None and "reconstruction" in comparison.protocol.metrics else {}

    def _metrics(self) -> dict[str, Metric]:
        found: dict[str, Metric] = {"mse": MeanSquaredError()}
        if self.points:
            return found
        side = min(self.wanted.shape[1:])
        found["psnr"] = PSNR()
        if side >= WINDOW:
            found["ssim"] = SSIM()
        else:
            self.missing["ssim"] = f"needs images of at least {WINDOW}×{WINDOW}"
        network = lpips_network(self.c.device) if side >= LPIPS_LEAST else None
        if network is not None:
            found["lpips"] = LPIPS(network)
        elif side < LPIPS_LEAST:
            self.missing["lpips"] = f"needs images of at least {LPIPS_LEAST}×{LPIPS_LEAST}"
        else:
            self.missing["lpips"] = f"needs torchvision's {LPIPS_WEIGHTS} in torch's cache"
        return found

    def measure(self, method: str, title: str, make: Callable[[Tensor], tuple[Tensor, ...]]) -> list[float]:
        """Compute and store the scores. Returns the cycle-consistency error in a list, empty for one-way models.

        make  rows -> uint8 input images, the model's outputs, and for two-way models the outputs translated back
        """
        c, shown, n = self.c, self.shown, len(self.shown)
        extraction = Extraction(c.extractor, keep=False)
        kept = choice(n, c.gallery.reconstructions)
        cycle = CycleConsistency()
        updates, of_cycle = BlockUpdates(self.own, c.device, **self.metrics), BlockUpdates({}, c.device, cycle=cycle)
        for number, rows, real in c.blocks(title, n):
            images, found, *again = make(rows)
            refuse_nan(found, method, c.model)
            # `to_stored` clamps: the outputs of a linear decoder may leave [-1, 1]
            found = bring(to_stored(found), self.wanted.shape)
            extraction.add(number, found.to(c.device), real)
            truth = None if self.truth is None else images if self.truth is shown else self.truth.images(rows)
            back = [bring(to_stored(x), shown.shape) for x in again]
            third = [] if self.truth is shown else back if truth is None else [truth]
            c.gallery.keep(self.sheet, rows, beside([images, found, *third]), kept)
            if back:
                of_cycle.update(number, from_stored(back[0][:real].cpu()), from_stored(images[:real]))
            if truth is not None:
                updates.update(number, from_stored(found[:real]), from_stored(truth[:real]).to(c.device))
        updates.join()
        of_cycle.join()
        c.gallery.gather(self.sheet)
        for name, metric in self.metrics.items():
            self.scores.add("reconstruction", n, metric, names=(self.prefix + name,))
        for name, note in self.missing.items():
            self.scores.put(self.prefix + name, None, n, note=note)
        made = extraction.result()
        true = c.cached_features(self.wanted, self.pixels, f"Features of {self.wanted.name}", self.wanted.shape)
        sums = [{"features": x.sums, "real": x is true} for x in (made, true)]
        names = (f"{self.prefix or 'reconstruction_'}fid",)
        dims = len(made.sums.total)
        self.scores.add("reconstruction", n, FrechetDistance(dims), *sums, names=names, featured=True)
        updates.add_own(self.scores, n)
        two_ways = len(getattr(c.model, "domains", ())) > 1 and ranks.rank() == 0
        return [cycle.compute()] if two_ways else []


def _expected(plan: Plan, prefix: str, images: int, beside: bool) -> Expected:
    """The scores of generated images: compared with the true images if `beside`, else only their distribution."""
    found: Expected = {}
    if "reconstruction" not in plan.protocol.metrics:
        return found
    if beside:
        found[f"{prefix}mse"] = None
    if beside and not plan.points:
        side = min(plan.reference.shape[1:])
        found[f"{prefix}psnr"] = None
        found[f"{prefix}ssim"] = None if side >= WINDOW else f"needs images of at least {WINDOW}×{WINDOW}"
        lpips = side >= LPIPS_LEAST and _lpips_file().is_file()
        found[f"{prefix}lpips"] = None if lpips else "needs larger images or weights that were not found"
    found[plan.extractor.score(f"{prefix or 'reconstruction_'}fid")] = plan.few(images, 2)
    return found


def _lpips_file() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / LPIPS_WEIGHTS


def lpips_network(device: torch.device) -> Callable[[Tensor, Tensor], Tensor] | None:
    """LPIPS with VGG16 (Zhang et al. 2018) [B, C, H, W] x 2 -> [B], if torchvision's weights are in torch's cache."""
    if not _lpips_file().is_file():
        return None
    from torchmetrics.functional.image.lpips import _LPIPS

    network = _LPIPS(pretrained=True, net="vgg").to(device).eval()
    return lambda a, b: network(in_channels(a, 3), in_channels(b, 3))
