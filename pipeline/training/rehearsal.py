"""A network's first step, tried before Ray starts.

    python -m pipeline.training.rehearsal synthetic.base.quick.0 search_sigma ...

Four images of noise go through each network, on the CPU: forward, loss and backward. An error in a
block then shows in seconds. A name is the key of a run, or the file of a search, whose first trial
is tried. The user's cache holds a mark of each network that passed, named by the digest of options,
recipe and code. A network with a mark is not tried again.

A command starts this module as a process, as the command itself imports no torch.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path

from platformdirs import user_cache_path

from pipeline.cluster.address import is_cluster
from pipeline.config.experiments import SEARCH_PREFIX
from pipeline.config.settings import SettingsError
from pipeline.failures import CodeError, code_errors
from pipeline.plan.plan import Plan, load_plan
from pipeline.plan.runs import parse_run
from pipeline.plan.sources import Code, network_roots
from pipeline.search import space
from pipeline.training.configuration import Configuration, configure, configure_trial

IMAGES = 4  # of two identities


class Rehearsals:
    """The networks of runs and searches, and how each is remembered."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.code = Code()

    def configure(self, name: str) -> Configuration:
        """The configuration of a run or a search's first trial.

        Data set, seed, held-out identities and weights in a file are of no account.
        """
        settings = self.plan.settings
        if name.startswith(SEARCH_PREFIX) and "." not in name:
            search = self.plan.search(name.removeprefix(SEARCH_PREFIX))
            network, recipe = settings.networks[search.network], settings.recipes[search.recipe]
            configuration = configure_trial(search, next(space.examples(search)), network, recipe)
        else:
            run = parse_run(name, settings)
            network, recipe = settings.networks[run.network], settings.recipes[run.recipe]
            configuration = configure(run, network, recipe)
        downloads = configuration.network.weights == "imagenet" and not is_cluster()
        weights = "imagenet" if downloads else "none"
        options = replace(configuration.network, weights=weights)
        return replace(configuration, dataset="", hold_out=False, seed=0, network=options)

    def mark(self, configuration: Configuration) -> Path:
        """The file that is there if this network passed."""
        roots = network_roots(asdict(configuration.network), "train")
        content = [configuration.parameters(), self.code.follow_imports(roots), version("torch")]
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        return user_cache_path("ianet") / "rehearsals" / digest


def rehearse(names: Sequence[str], plan: Plan) -> dict[str, Exception]:
    """Try the networks that were not tried yet; return the names of those that fail.

    ImageNet's weights are downloaded where this machine trains.

    Args:
        names: keys of runs, and files of searches such as search_sigma.
        plan: of params.yaml and experiments/.

    Returns:
        For each network that fails a CodeError, or a SettingsError if options do not fit each other
        or a download fails.

    Raises:
        OSError: the process that tries was lost.
    """
    rehearsals = Rehearsals(plan)
    marks = {name: rehearsals.mark(rehearsals.configure(name)) for name in names}
    missing = {mark: name for name, mark in marks.items() if not mark.exists()}
    if not missing:
        return {}
    command = [sys.executable, "-m", "pipeline.training.rehearsal", *missing.values()]
    process = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    failures: dict[str, Exception] = {}
    for line in process.stdout.splitlines():
        name, reason, text = json.loads(line)
        failures[name] = CodeError(reason, text) if text else SettingsError(reason)
    if process.returncode:
        names = [
            name for mark, name in missing.items() if not mark.exists() and name not in failures
        ]
        raise OSError(f"the first step of {', '.join(names)} was not tried to its end")
    return {
        name: failures[twin]
        for name, mark in marks.items()
        if (twin := missing.get(mark)) in failures
    }


def try_step(configuration: Configuration) -> None:
    """Compute the gradients of a network for four images.

    Raises:
        CodeError: code of the network fails.
        OSError: ImageNet's weights cannot be downloaded, or a block cannot open a file.
        ValueError: options that do not fit each other.
    """
    import torch

    from ianet.images import normalize
    from ianet.network import Network
    from ianet.training.step import compute_gradients

    recipe = configuration.recipe
    with code_errors():
        torch.manual_seed(0)
        network = Network(2, configuration.network).train()
        images = torch.randint(256, (IMAGES, recipe.height, recipe.width, 3), dtype=torch.uint8)
        labels = torch.arange(IMAGES) % 2
        compute_gradients(
            network,
            normalize(images),
            labels,
            torch.arange(IMAGES),
            recipe=recipe,
            mixed=False,
            workers=1,
        )


def main() -> None:
    """Print a line of JSON for each name of the command line whose network fails."""
    rehearsals = Rehearsals(load_plan())
    for name in sys.argv[1:]:
        configuration = rehearsals.configure(name)
        try:
            with redirect_stdout(sys.stderr):  # what a block prints is no result
                try_step(configuration)
        except (ValueError, OSError, CodeError) as error:
            text = error.text if isinstance(error, CodeError) else None
            print(json.dumps([name, str(error), text]), flush=True)
        else:
            mark = rehearsals.mark(configuration)
            with suppress(OSError):  # a full disk costs the next trial only
                mark.parent.mkdir(parents=True, exist_ok=True)
                mark.touch()


if __name__ == "__main__":
    main()
