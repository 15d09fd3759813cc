"""MLflow while work goes on: no failure of the server stops the work."""

from __future__ import annotations

import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

import mlflow

from pipeline.failures import CodeError, explain
from pipeline.secrecy import hide_secrets
from pipeline.tracking.server import explain_failures, first_line

FAILURE, TRACEBACK = "failure", "traceback.txt"  # the tag and the artifact of work that failed
LONGEST = 1000  # characters of the tag
PAUSE = 10  # seconds from a call that failed to the next

log = logging.getLogger(__name__)


class Recorder:
    """Sends what happens, and lets no failure of MLflow stop the work."""

    def __init__(self, sync: Callable[[Any], object]) -> None:
        """`sync`: sends what the server lacks of a content."""
        self.sync = sync
        self.failed = -math.inf  # when the last call did

    def send(self, content: Any) -> None:
        """Send a content, unless a call failed a moment ago: the next one sends all."""
        if time.monotonic() - self.failed <= PAUSE:
            return
        try:
            with hold_signals():
                self.sync(content)
        except Exception as error:  # whatever MLflow raises, the training is worth more
            if self.failed == -math.inf:
                _warn(error)
            self.failed = time.monotonic()


def send_safely(send: Callable[[], object]) -> None:
    """Call what sends results from the disk, and let no failure of MLflow stop the work."""
    try:
        with hold_signals():
            send()
    except Exception as error:
        _warn(error)


@contextmanager
def hold_signals() -> Iterator[None]:
    """Hold Ctrl-C and SIGTERM back until the block ends; a second signal ends the block.

    A write to MLflow's database that is cut short leaves the database locked.

    Raises:
        KeyboardInterrupt: a signal came.
    """
    if threading.current_thread() is not threading.main_thread():  # signals reach the main thread
        yield
        return
    is_held = False

    def hold(number: int, frame: FrameType | None) -> None:
        nonlocal is_held
        if is_held:
            signal.default_int_handler(number, frame)
        is_held = True

    handlers = {stop: signal.signal(stop, hold) for stop in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for stop, handler in handlers.items():
            signal.signal(stop, handler)
        if is_held:
            raise KeyboardInterrupt


def _warn(error: Exception) -> None:
    log.warning(
        "MLflow went away (%s): all results are on disk, and `python -m pipeline.sync` sends them",
        first_line(error),
    )


@contextmanager
def open_run(sync: Callable[[str], str]) -> Iterator[None]:
    """An MLflow run that records the machine's load, how the work ends, and why it failed."""
    mlflow.set_system_metrics_sampling_interval(5)
    with explain_failures(), hold_signals():
        mlflow.start_run(run_id=sync("RUNNING"), log_system_metrics=True)
    status = "FAILED"
    try:
        yield
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    except Exception as error:
        with suppress(Exception), hold_signals():  # MLflow went away
            mlflow.set_tag(FAILURE, hide_secrets(str(error))[:LONGEST])
            text = error.text if isinstance(error, CodeError) else explain(error).text
            mlflow.log_text(text, TRACEBACK)
        raise
    else:
        with suppress(Exception), hold_signals():  # the tag of an earlier try, if any
            mlflow.delete_tag(FAILURE)
    finally:
        with suppress(Exception), hold_signals():  # MLflow went away
            mlflow.end_run(status)
