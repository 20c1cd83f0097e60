"""Grouping of curves into panels."""

from __future__ import annotations

from collections.abc import Iterable

NORMS = "gradient norms"
SHARES = "probabilities and accuracies"


def in_panels(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Curves that are drawn in one panel: title -> name -> label.

    A player's losses share a panel, all probabilities and accuracies share one from 0 to 1, and so do all gradient
    norms. Curves with a unit of their own have their own panels: validation scores, diversity, speed, `elbo` and
    `perplexity`.
    """
    panels: dict[str, dict[str, str]] = {}
    rest: dict[str, dict[str, str]] = {}
    for name in names:
        player, _, term = name.rpartition("/")
        if term in ("d_real", "d_fake", "codebook_usage") or (term.endswith("accuracy") and player != "val"):
            panels.setdefault(SHARES, {})[name] = term
        elif term == "grad_norm":
            panels.setdefault(NORMS, {})[name] = player
        elif player in ("", "val") or term in ("elbo", "perplexity"):
            rest[name] = {name: term}
        else:
            panels.setdefault(player, {})[name] = term
    if SHARES in panels:
        terms = list(panels[SHARES].values())  # several discriminators may have the same terms
        panels[SHARES] = {name: t if terms.count(t) == 1 else name for name, t in panels[SHARES].items()}
    last = {title: panels.pop(title) for title in (SHARES, NORMS) if title in panels}
    return panels | last | dict(sorted(rest.items(), key=lambda item: not item[0].startswith("val/")))
