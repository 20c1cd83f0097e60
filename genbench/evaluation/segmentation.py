"""Scores of predicted segmentation masks."""

from __future__ import annotations

from torch.nn.functional import interpolate

from genbench.core.capabilities import Segments
from genbench.core.image_grid import beside, painted
from genbench.evaluation.comparison import Comparison
from genbench.evaluation.evaluator import Evaluator, Expected, Plan
from genbench.evaluation.images import choice
from genbench.evaluation.scores import BlockUpdates, Scores, own_metrics
from genbench.metrics.scales import GROUPS
from genbench.metrics.segmentation import Segmentation as SegmentationScores


class Segmentation(Evaluator):
    capability = Segments
    track = "segmentation"
    groups = frozenset({"segmentation"})

    def expected(self, plan: Plan) -> Expected:
        if plan.model.spec.target != "mask":
            return {}
        names = GROUPS["segmentation"] if "segmentation" in plan.protocol.metrics else ()
        return dict.fromkeys(names) | plan.own(self.track)

    def evaluate(self, comparison: Comparison) -> Scores:
        c, masks = comparison, comparison.target("mask")
        scores = Scores(c.protocol, c.extractor)
        if masks is None:
            return scores
        n = len(c.images)
        kept = choice(n, c.gallery.reconstructions)
        metric = SegmentationScores()
        updates = BlockUpdates(own_metrics(c.protocol, self.track), c.device, segmentation=metric)
        for number, rows, real in c.blocks("Segmenting"):
            image, x = c.for_model(rows)
            logits = c.model.segment(x).float().cpu()  # [B, K, H, W]
            if logits.shape[-2:] != masks.shape[-2:]:
                logits = interpolate(logits, masks.shape[-2:], mode="bilinear", align_corners=False)
            truth = masks[rows].long()
            c.gallery.keep("masks", rows, beside([image, painted(logits.argmax(1)), painted(truth)]), kept)
            updates.update(number, logits[:real], truth[:real])
        c.gallery.gather("masks")
        updates.join()
        scores.add("segmentation", n, metric)
        updates.add_own(scores, n)
        return scores
