"""From text to a `Manifest`: every problem of a file at once, each with line and column. No network.

`yaml_reader`, `json_reader` and `csv_reader` turn a format into nodes that know their position; `sections`
reads the sections, `expand` multiplies rows, `job_builder` checks them against `fields`, and `identity`
names them.
"""

from pipeline.manifest.fields import BUILT_IN_MODEL, FieldRule, ModelRules
from pipeline.manifest.loader import Manifest, ParsedManifest, load, parse
from pipeline.manifest.problems import ManifestProblems, Problem

__all__ = [
    "BUILT_IN_MODEL",
    "FieldRule",
    "Manifest",
    "ManifestProblems",
    "ModelRules",
    "ParsedManifest",
    "Problem",
    "load",
    "parse",
]
