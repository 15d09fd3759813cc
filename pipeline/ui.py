"""MLflow's pages of all runs, until Ctrl-C.

    python -m pipeline.ui --port 5001

The pages show the records of mlflow.db in this folder.
"""

from __future__ import annotations

import os
import sys

from pipeline.shell import command, parser
from pipeline.tracking.server import LOCAL, connect, view_address

SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # eight processes for jobs on LLM traces
}


def main() -> None:
    options = parser(__doc__, "pipeline.ui")
    options.add_argument("--port", type=int, default=5000, help="default 5000")
    port = options.parse_args().port
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    connect()  # makes the database: a server and a training that both make it would break it
    print("All runs, the best first:", view_address(f"http://127.0.0.1:{port}"), flush=True)
    os.environ.update(SETTINGS)
    server = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", LOCAL]
    os.execv(server[0], [*server, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"])


if __name__ == "__main__":
    command(main)
