"""``edgeopt bench``: which of some artefacts is faster, by how much, and how sure."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

import typer

from edgeopt.cli._run import CACHE, FORMAT, Format, command, open_store
from edgeopt.errors import ExitCode


class Mode(StrEnum):
    """What is timed."""

    LATENCY = "latency"
    THROUGHPUT = "throughput"


@command
def bench(
    files: list[Path] = typer.Argument(
        ..., help="Files to time: .onnx, OpenVINO .xml, or folders of shipped artefacts.", show_default=False
    ),
    target: str = typer.Option(..., "--target", metavar="NAME", help="Device and measuring protocol."),
    mode: Mode = typer.Option(Mode.LATENCY, "--mode", help="One inference after the other, or all cores busy."),
    inputs: Path | None = typer.Option(
        None, "--inputs", metavar="FILE.npz", help="Arrays named like the inputs. [default: random numbers]"
    ),
    against: Path | None = typer.Option(
        None, "--against", metavar="RUN", help="Compare with a saved benchmark, or with what a run ships on the target."
    ),
    save: Path | None = typer.Option(None, "--save", metavar="FOLDER", help="Keep the result, for --against."),
    cache: Path | None = CACHE,
    format_: Format = FORMAT,
) -> None:
    """Time artefacts against each other: which is faster, by how much, and how sure. The first is the reference.

    Exit codes: 0 decided, 4 a difference can be neither shown nor excluded.
    """
    import sys

    from edgeopt import bench, bench_record, config, console, device
    from edgeopt import target as targets
    from edgeopt.bench import against as earlier
    from edgeopt.bench import files as artefacts

    profile = config.load(targets.locate(target, Path()), targets.Target)
    question = bench.Question(
        artefacts=artefacts.find(files, profile.runtime),
        target=profile,
        mode=mode.value,
        inputs=inputs,
        reference=earlier.read(against, profile.name) if against else None,
    )
    if save:
        bench_record.check_folder(save)
    store = open_store(cache)
    with (
        console.open_progress(sys.stderr) as progress,
        device.connect(profile.device) as connection,
        connection.exclusive(lambda note: typer.echo(note, err=True)),
    ):
        found, samples = bench.run(
            question,
            connection.start,
            noise_folder=store.root / "noise",
            progress=progress,
        )
    if save:
        bench_record.save(save, found, samples)
    if format_ is Format.JSON:
        typer.echo(found.to_json(), nl=False)
    else:
        console.print_bench(found, sys.stdout)
    raise typer.Exit(ExitCode.INCONCLUSIVE if found.undecided else ExitCode.OK)
