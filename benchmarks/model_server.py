"""The server of a model under load: requests a second, latencies and memory.

    python benchmarks/model_server.py [--backbone resnet50] [--seconds 60] [--minutes 10]

`mlflow models serve` serves an untrained network, as `pipeline.tracking` logs models. A request
sends a JPEG of 256x128, a portrait of a synthetic person. Each client is a thread with a connection
of its own, and sends the next request after the answer:

| load | clients | seconds |
|---|---|---|
| latency | 1 | `--seconds` |
| throughput | 8 | `--seconds` |
| minute 1, 2, ... | 8 | 60, `--minutes` times |

Milliseconds are those of a request, from its first byte to the last byte of the answer. Memory is
the PSS of all processes of the server, after the first answer and after each load. Growth is that
from the first minute to the last. The clients run on the same machine; no other program may run.
Prints a table and writes benchmarks/model_server.json, or model_server-gpu.json.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import http.client
import io
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import psutil
import torch
from device import describe_machine, results
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema, TensorSpec
from PIL import Image

from ianet.model import save_model
from ianet.network import Network, describe
from ianet.options import BACKBONES, NetworkOptions
from ianet.synthetic.cameras import CAMERAS
from ianet.synthetic.portrait import portrait
from pipeline.tracking.training import MODEL_PACKAGES, SERVED

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from project import kill_all, wait_for  # noqa: E402
from servers import answers, free_port  # noqa: E402

HEIGHT, WIDTH = 256, 128
PHOTOS, CLIENTS = 64, 8
WARM_UP = 5  # seconds
HEADERS = {"Content-Type": "application/json"}


def save(folder: Path, backbone: str) -> Path:
    """A model of MLflow with an untrained network."""
    torch.manual_seed(0)
    network = Network(751, NetworkOptions(backbone)).eval()
    description = describe(network, dataset="none", height=HEIGHT, width=WIDTH)
    save_model(network, description, folder / "model", name="benchmark", terms="None.")
    mlflow.pyfunc.save_model(
        folder / "served",
        loader_module=SERVED.stem,
        data_path=str(folder / "model"),
        code_paths=[str(ROOT / "ianet"), str(ROOT / SERVED)],
        pip_requirements=list(MODEL_PACKAGES),
        signature=ModelSignature(
            inputs=Schema([ColSpec("binary", "image")]),
            outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, -1))]),
        ),
    )
    return folder / "served"


def draw_bodies() -> list[bytes]:
    """Requests, each with the photo of another person."""
    bodies = []
    for person in range(PHOTOS):
        pixels, _ = portrait(
            person,
            facing=0.5 * person,
            stride=0.3,
            phase=1,
            stature=0.9,
            camera=1 + person % len(CAMERAS),
            height=HEIGHT,
            width=WIDTH,
            seed=0,
        )
        photo = io.BytesIO()
        Image.fromarray(pixels).save(photo, "JPEG", quality=90)
        text = base64.b64encode(photo.getvalue()).decode()
        table = {"dataframe_split": {"columns": ["image"], "data": [[text]]}}
        bodies.append(json.dumps(table).encode())
    return bodies


@contextlib.contextmanager
def serve(model: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The process and the port of a server that answers."""
    port = free_port()
    log = model.with_name("log")
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", str(model),
                "--env-manager", "local", "--host", "127.0.0.1", "--port", str(port),
            ],
            cwd=model.parent,
            env={**variables, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
    try:
        wait_for(lambda: answers(port) or process.poll() is not None, "the server", 300)
        if process.poll() is not None:
            raise RuntimeError(log.read_text(errors="replace"))
        yield process, port
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            kill_all(process)


def send(port: int, bodies: Sequence[bytes], seconds: float) -> list[float]:
    """Send requests for so many seconds, one at least; the milliseconds of each.

    Raises:
        RuntimeError: the server refused a request.
    """
    milliseconds: list[float] = []
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    end = time.perf_counter() + seconds
    with contextlib.closing(connection):
        for body in itertools.cycle(bodies):
            start = time.perf_counter()
            if start > end and milliseconds:
                break
            connection.request("POST", "/invocations", body, HEADERS)
            answer = connection.getresponse()
            content = answer.read()
            milliseconds.append(1000 * (time.perf_counter() - start))
            if answer.status != 200:
                raise RuntimeError(f"{answer.status}: {content[:500]!r}")
    return milliseconds


def measure(port: int, bodies: Sequence[bytes], clients: int, seconds: float) -> dict[str, Any]:
    """The speed of a load."""
    start = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        # Each client begins with another photo.
        shifts = [client * len(bodies) // clients for client in range(clients)]
        calls = [pool.submit(send, port, [*bodies[at:], *bodies[:at]], seconds) for at in shifts]
        milliseconds = [value for call in calls for value in call.result()]
    passed = time.perf_counter() - start
    return {
        "clients": clients,
        "requests": len(milliseconds),
        "requests/s": round(len(milliseconds) / passed, 2),
        "p50, ms": round(float(np.percentile(milliseconds, 50)), 1),
        "p99, ms": round(float(np.percentile(milliseconds, 99)), 1),
    }


def read_memory(process: subprocess.Popen[bytes]) -> int:
    """MB of a process and of those that it started, shared pages by their share."""
    root = psutil.Process(process.pid)
    size = 0
    for each in (root, *root.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            size += each.memory_full_info().pss
    return round(size / 2**20)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", choices=BACKBONES, default="resnet50")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--minutes", type=int, default=10)
    arguments = parser.parse_args()
    loads = [("latency", 1, arguments.seconds), ("throughput", CLIENTS, arguments.seconds)]
    loads += [(f"minute {each + 1}", CLIENTS, 60) for each in range(arguments.minutes)]
    bodies = draw_bodies()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        model = save(Path(folder), arguments.backbone)
        with serve(model) as (process, port):
            send(port, bodies, 0)
            rows.append({"load": "begin", "MB": read_memory(process)})
            measure(port, bodies, CLIENTS, WARM_UP)
            for name, clients, seconds in loads:
                speed = measure(port, bodies, clients, seconds)
                rows.append({"load": name, **speed, "MB": read_memory(process)})
                print(rows[-1], flush=True)
    print(pd.DataFrame(rows).astype(object).fillna("").to_markdown(index=False))
    content: dict[str, Any] = {
        "machine": describe_machine(),
        "backbone": arguments.backbone,
        "rows": rows,
    }
    if arguments.minutes > 1:
        content["growth, MB"] = rows[-1]["MB"] - rows[-arguments.minutes]["MB"]
        print(f"growth from minute 1 to minute {arguments.minutes}: {content['growth, MB']} MB")
    results("model_server").write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
