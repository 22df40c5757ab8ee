"""Daily features and weekly training as Kubeflow pipelines over the same commands.

    pipeline.py compile FOLDER              daily_features.yaml and weekly_training.yaml
    pipeline.py run NAME [--with a=b ...]   here, by subprocesses

Runs in an environment of its own (`make env-kfp`). On a cluster a step runs in the image of
`pipelines`, which holds no KFP: the step brings it, without its requirements, when it starts.
"""

# No `from __future__ import annotations`: KFP reads the types of a step as objects.
import argparse
from pathlib import Path
from typing import Any

from kfp import compiler, dsl, local

IMAGE = "rankstream/pipelines:latest"
RETRIES = 3


def daily_batch(python: str, home: str, lake: str, out: str, engine: str, until_date: str) -> None:
    """Write the daily features, labels and rows that are due."""
    import subprocess

    command = [python, "-m", "pipelines.features", "batch", "--lake", lake, "--out", out]
    command += ["--engine", engine, *(["--until-date", until_date] if until_date else [])]
    subprocess.run(command, cwd=home, check=True)


def train_all(
    python: str, home: str, lake: str, artifacts: str, registry: str, bootstrap: str
) -> None:
    """Validate, train, compare, register and publish."""
    import subprocess

    command = [python, "-m", "pipelines", "run", "--lake", lake, "--artifacts", artifacts]
    command += ["--registry", registry, "--bootstrap", bootstrap, "--why", "weekly training"]
    subprocess.run(command, cwd=home, check=True)


def pipelines(*, on_cluster: bool) -> dict[str, Any]:
    """The pipelines by name; a step on a cluster must bring KFP itself."""

    def step(function: Any) -> Any:
        return dsl.component(function, base_image=IMAGE, install_kfp_package=on_cluster)

    batch, train = step(daily_batch), step(train_all)

    def daily_features(
        lake: str,
        out: str,
        engine: str = "duckdb",
        until_date: str = "",
        python: str = "python",
        home: str = "/app",
    ) -> None:
        task = batch(
            python=python, home=home, lake=lake, out=out, engine=engine, until_date=until_date
        )
        _as_users_expect(task)

    def weekly_training(
        lake: str,
        artifacts: str,
        registry: str,
        bootstrap: str,
        python: str = "python",
        home: str = "/app",
    ) -> None:
        task = train(
            python=python,
            home=home,
            lake=lake,
            artifacts=artifacts,
            registry=registry,
            bootstrap=bootstrap,
        )
        _as_users_expect(task)

    return {
        "daily_features": dsl.pipeline(daily_features, name="daily-features"),
        "weekly_training": dsl.pipeline(weekly_training, name="weekly-training"),
    }


def _as_users_expect(task: Any) -> None:
    """Tried again, and never answered from the cache: the lake has grown since."""
    task.set_retry(num_retries=RETRIES, backoff_duration="300s", backoff_factor=2.0)
    task.set_caching_options(False)


def main() -> int:
    """Command line: see above."""
    parser = argparse.ArgumentParser(description="Kubeflow pipelines of rankstream.")
    actions = parser.add_subparsers(dest="action", required=True)
    compiling = actions.add_parser("compile", help="write a YAML file for each")
    compiling.add_argument("folder", type=Path)
    running = actions.add_parser("run", help="run one here, by subprocesses")
    running.add_argument("name", choices=sorted(pipelines(on_cluster=False)))
    running.add_argument("--with", dest="given", action="append", default=[], metavar="NAME=VALUE")
    arguments = parser.parse_args()
    if arguments.action == "compile":
        arguments.folder.mkdir(parents=True, exist_ok=True)
        for name, pipeline in pipelines(on_cluster=True).items():
            compiler.Compiler().compile(pipeline, str(arguments.folder / f"{name}.yaml"))
        return 0
    local.init(runner=local.SubprocessRunner(use_venv=False), raise_on_error=True)
    given = dict(pair.split("=", 1) for pair in arguments.given)
    pipelines(on_cluster=False)[arguments.name](**given)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
