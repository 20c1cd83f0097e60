"""Which curves are drawn together."""

from __future__ import annotations

from collections.abc import Iterable

NORMS = "gradient norms"
SHARES = "probabilities and accuracies"


def in_panels(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """What is drawn together: title -> name -> label.

    A player's losses share a panel, as they share a unit. All probabilities and accuracies share one, from 0 to 1, and
    all gradient norms. What has a unit of its own stands alone: validation scores, diversity, speed, `elbo` (a bound,
    no loss) and `perplexity`.
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
        terms = list(panels[SHARES].values())  # of several discriminators some may be alike
        panels[SHARES] = {name: t if terms.count(t) == 1 else name for name, t in panels[SHARES].items()}
    last = {title: panels.pop(title) for title in (SHARES, NORMS) if title in panels}
    return panels | last | dict(sorted(rest.items(), key=lambda item: not item[0].startswith("val/")))
