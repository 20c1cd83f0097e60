"""Accuracy of models that classify images."""

from __future__ import annotations

from genbench.core.capabilities import Classifies
from genbench.evaluation.comparison import Comparison, refuse_nan
from genbench.evaluation.evaluator import Evaluator, Expected, Plan
from genbench.evaluation.scores import BlockUpdates, Scores, own_metrics
from genbench.metrics.classes import ClassAccuracy


class Classification(Evaluator):
    capability = Classifies
    track = "classification"
    groups = frozenset({"classes"})

    def expected(self, plan: Plan) -> Expected:
        why = None if plan.held.label is not None else f"the split of {plan.data.name} has no labels"
        own = dict.fromkeys(plan.own(self.track), why)
        return ({"accuracy": why} if "classes" in plan.protocol.metrics else {}) | own

    def evaluate(self, comparison: Comparison) -> Scores:
        c, model, label = comparison, comparison.model, comparison.label
        scores, own = Scores(c.protocol, c.extractor), own_metrics(c.protocol, self.track)
        ours, theirs = len(model.spec.classes), len(getattr(c.data, "classes", ()))
        note = None
        if label is None or not (label >= 0).any():
            note = f"{c.reference.name} has no labels"
        elif ours != theirs:
            note = f"the model has {ours} classes, but {c.reference.name} has {theirs}"
        if label is None or note is not None:
            for name in (*(["accuracy"] if "classes" in c.protocol.metrics else []), *own):
                scores.put(name, None, 0, note=note)
            return scores
        metric = ClassAccuracy()
        updates = BlockUpdates(own, c.device, accuracy=metric)
        for number, rows, real in c.blocks("Classifying"):
            logits = model.classify(c.for_model(rows)[1])
            refuse_nan(logits, "classify", model)
            given = label[rows[:real]] >= 0
            updates.update(number, logits[:real].cpu()[given], label[rows[:real]][given])
        n = int((label >= 0).sum())
        updates.join()
        scores.add("classes", n, metric, names=("accuracy",))
        updates.add_own(scores, n)
        return scores
