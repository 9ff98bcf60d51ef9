"""`veobatch schema`: the JSON Schema of manifests, so that editors complete and check them."""

from __future__ import annotations

import click


@click.command()
def command() -> int:
    """Print the JSON Schema of manifests.

    Save it and name it in a manifest's first line, for editors with the YAML language server:

    \b
    # yaml-language-server: $schema=manifest.schema.json
    """
    import json

    from pipeline.manifest.json_schema import manifest_schema

    click.echo(json.dumps(manifest_schema(), indent=2, ensure_ascii=False))
    return 0
