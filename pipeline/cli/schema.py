"""`veobatch schema`: the JSON Schema of manifests, for editors, and of the `--json` summary, for scripts."""

from __future__ import annotations

import click


@click.command()
@click.option("--json-summary", is_flag=True, help="Print the schema of what `run --json` prints instead.")
@click.option("--receipt", is_flag=True, help="Print the schema of what `run --receipts` writes instead.")
def command(json_summary: bool, receipt: bool) -> int:
    """Print the JSON Schema of manifests.

    Save it and name it in a manifest's first line, for editors with the YAML language server:

    \b
    # yaml-language-server: $schema=manifest.schema.json
    """
    import json

    from pipeline.manifest.json_schema import manifest_schema
    from pipeline.results.receipts import receipt_schema
    from pipeline.results.summary_json import summary_schema

    schema = receipt_schema() if receipt else summary_schema() if json_summary else manifest_schema()
    click.echo(json.dumps(schema, indent=2, ensure_ascii=False))
    return 0
