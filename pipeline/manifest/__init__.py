"""Text -> `Manifest`: every mistake of a file at once, each at its place. Knows no network.

`yamltext`, `jsontext` and `csvtext` turn a format into a tree that knows its places; `document` reads
the sections, `expand` multiplies rows, `rows` checks them against `rules` and names them.
"""

from pipeline.manifest.fields import BUILT_IN_MODEL, FieldRule, ModelRules
from pipeline.manifest.loader import Manifest, load
from pipeline.manifest.problems import ManifestProblems, Problem

__all__ = ["BUILT_IN_MODEL", "FieldRule", "Manifest", "ManifestProblems", "ModelRules", "Problem", "load"]
