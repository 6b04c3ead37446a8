"""``edgeopt check``: everything that can be known without running anything."""

from __future__ import annotations

import gc
from pathlib import Path

import typer

from edgeopt.cli._run import FORMAT, RECIPE, SET, TARGET, WAIVERS, Format, command, print_json


@command
def check(
    recipe: Path = RECIPE,
    target: list[str] = TARGET,
    set_: list[str] = SET,
    waivers: Path | None = WAIVERS,
    format_: Format = FORMAT,
) -> None:
    """Check a recipe and its targets, and show the plan. Runs none of your code."""
    collecting = gc.isenabled()
    gc.disable()  # all that is loaded and planned lives to the end; to look for garbage takes a twentieth of the time
    try:
        from edgeopt import provenance
        from edgeopt.plan import plan as make_plan
        from edgeopt.plan import tools_of

        plan = make_plan(recipe, set_, target, waivers)
    finally:
        if collecting:
            gc.enable()
    missing = sorted(tool for tool in plan.tools if not provenance.installed(tool))
    if format_ is Format.JSON:
        print_json(
            {
                "recipe": plan.recipe.name,
                "digest": plan.digest,
                "steps": [
                    {
                        "id": step.id,
                        "stage": step.stage,
                        "inputs": dict(step.inputs),
                        "data": list(step.data),
                        "params": step.params.model_dump(mode="json"),
                        "tools": list(tools_of(step)),
                    }
                    for step in plan.steps
                ],
                "targets": {
                    name: {
                        "file": str(entry.path),
                        "candidates": [candidate.id for candidate in entry.candidates],
                        "gates": {gate.name: gate.limit for gate in entry.gates},
                    }
                    for name, entry in plan.targets.items()
                },
                "missing_tools": missing,
            }
        )
        return
    typer.echo(f"{plan.path}: ok: recipe {plan.recipe.name}, {len(plan.steps)} steps, {len(plan.targets)} targets")
    chain = [step.id for step in plan.steps if step.stage != "evaluate"]
    typer.echo(f"  steps: {', '.join(chain)}")
    for name, entry in plan.targets.items():
        typer.echo(f"  {name}: {', '.join(candidate.id for candidate in entry.candidates)}")
        for gate in entry.gates:
            typer.echo(f"    gate {gate.name} {gate.limit:g}")
    if missing:
        extras = sorted({provenance.EXTRAS.get(name, name) for name in missing})
        typer.echo(f"  not installed: {', '.join(missing)}; pip install 'edgeopt[{','.join(extras)}]'")
