"""Values of records as text."""

from __future__ import annotations

import json
from typing import Any

import yaml

_Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # 10 times as fast, where the library is


def as_yaml(value: Any) -> str:
    """Plain data as it would stand in a config."""
    value = json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))  # JSON may halve characters
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100).rstrip("\n")
