"""Groups curves into panels."""

from __future__ import annotations

from collections.abc import Iterable

NORMS = "gradient norms"
SHARES = "probabilities and accuracies"


def in_panels(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """The curves of each panel: title -> name -> label.

    The losses of an optimizer share a panel. All probabilities and accuracies share a panel from 0 to 1. All gradient
    norms share a panel. Each curve with its own unit has its own panel: validation scores, diversity, speed, `elbo` and
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
