"""Pages of one HTML file that load nothing from the network and run only their own scripts."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def html_page(template: Path, scripts: Mapping[str, str], **values: Any) -> str:
    """Fill in a Jinja template. All text is escaped, except the scripts and values of the type `Markup`.

    Args:
        template: The file; its content security policy contains `{{ scripts }}`
        scripts: Name in the template -> JavaScript. The page runs only these scripts, whatever text a value contains
        values: All other names in the template
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts.values())
    templates = Environment(
        loader=FileSystemLoader(template.parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    trusted = {name: Markup(script) for name, script in scripts.items()}
    return templates.get_template(template.name).render(scripts=allowed, **trusted, **values)
