"""What Prometheus' operator adds to Kubernetes, checked by the models that npm has of it.

npm installs them once into `.tools`; Node runs them.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".tools/operator"
PACKAGES = {
    "@kubernetes-models/prometheus-operator": "6.0.0",
    "@kubernetes-models/apimachinery": "3.0.2",
    "@kubernetes-models/base": "6.0.1",
}
MODELS = "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1"
FIELDS = ("ServiceMonitorSpec", "Endpoint", "RelabelConfig", "PrometheusRuleSpec", "RuleGroup", "Rule")
"""Types of what is in our objects; the models let fields pass that are none, so their names are looked up."""
PROGRAM = f"""
import * as models from "{MODELS}";
let text = "";
for await (const part of process.stdin) text += part;
for (const one of JSON.parse(text)) new models[one.kind](one).validate();
"""


def install() -> Path:
    """Return the folder of the models, installed by npm if they are not there yet.

    Raises:
        FileNotFoundError: there is no npm, or it cannot have them; says why.

    """
    if not (FOLDER / "node_modules" / MODELS).exists():
        npm = shutil.which("npm")
        if npm is None:
            raise FileNotFoundError("the operator's models come from npm, and there is none on the PATH")
        FOLDER.mkdir(parents=True, exist_ok=True)
        (FOLDER / "package.json").write_text(json.dumps({"private": True, "dependencies": PACKAGES}))
        command = [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode:
            raise FileNotFoundError(f"{', '.join(PACKAGES)}: {done.stderr}")
    return FOLDER


def names(value: object) -> Iterator[str]:
    """Yield the names of fields, but not of labels, which are anything."""
    if isinstance(value, list):
        for one in value:
            yield from names(one)
    if isinstance(value, Mapping):
        for name, one in value.items():
            yield name
            if name not in {"matchLabels", "labels", "annotations"}:
                yield from names(one)


def check(objects: list[Mapping[str, Any]]) -> None:
    """Hold ServiceMonitors and PrometheusRules against their models.

    Raises:
        ValueError: one does not fit; names the field.
        FileNotFoundError: as `install`.

    """
    folder = install()
    declared = {"matchLabels"}
    for name in FIELDS:
        for path in (folder / "node_modules" / MODELS).parent.rglob(f"{name}.d.ts"):
            declared |= set(re.findall(r'^\s*"(\w+)"\??:', path.read_text("utf-8"), re.MULTILINE))
    for one in objects:
        if unknown := sorted(set(names(one["spec"])) - declared):
            raise ValueError(f"{one['kind']}: no field {', '.join(unknown)}")
    node = [shutil.which("node") or "node", "--input-type=module", "-e", PROGRAM]
    text = json.dumps(objects)
    done = subprocess.run(node, cwd=folder, input=text, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise ValueError(done.stderr)
