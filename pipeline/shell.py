"""What every command shares: its options, its log, and how an error ends it."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import psutil
from filelock import FileLock, Timeout

from ianet.files import write_whole
from ianet.messages import has_message
from pipeline.config.settings import SettingsError
from pipeline.failures import ROOT, CodeError, explain
from pipeline.secrecy import hide_secrets

DVC = (sys.executable, "-m", "dvc", "--wait-for-lock")
LOGS = Path("build/logs")
PATIENCE = 30.0  # seconds in which DVC ends after its stages
EVENTS = "IANET_EVENTS"  # variable: the file to which a command appends its events
DEBUG = "IANET_DEBUG"  # variable: a traceback in place of one line
VERBOSE = "IANET_VERBOSE"  # variable: as -v, for the commands that a command starts


def command(main: Callable[[], None]) -> None:
    """Run a command: one clear line for an error, a quiet end for Ctrl-C and SIGTERM.

    A mistake in an input is one line. Any other ValueError or OSError may be a defect: its line
    names a file with the traceback. IANET_DEBUG=1 shows tracebacks at once. Exceptions of other
    types are defects and show their traceback. So does code that failed in another process.

    PATH begins with the folder of this process's Python.
    """
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, signal.default_int_handler)
    _configure_log()
    _put_python_on_path()
    emit("started", command=sys.argv[0], arguments=sys.argv[1:])
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("stopped; the same command resumes from here")
    except CodeError as error:
        print(error.text, file=sys.stderr)
        message = f"error: {error}"
        emit("error", message=message)
        sys.exit(message)
    except (ValueError, OSError) as error:
        message = hide_secrets(f"error: {error}")
        if os.environ.get(DEBUG):
            emit("error", message=message)
            _exit_with_traceback(error)
        if not (isinstance(error, SettingsError) or has_message(error, ROOT)):
            with suppress(OSError):  # such as a full disk
                message += f" (traceback: {_keep_traceback(error)})"
        emit("error", message=message)
        sys.exit(message)
    except Exception as error:
        emit("error", message=f"error: {explain(error)}")
        _exit_with_traceback(error)
    emit("finished")


def _put_python_on_path() -> None:
    """Let the stages, which DVC starts as `python`, run in the environment of this process."""
    folder, path = str(Path(sys.executable).parent), os.environ.get("PATH") or os.defpath
    if path.split(os.pathsep)[0] != folder:
        os.environ["PATH"] = f"{folder}{os.pathsep}{path}"


def parser(document: str | None, module: str) -> argparse.ArgumentParser:
    """The command line of `python -m MODULE`, described by the module's docstring."""
    options = argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=document,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("-v", "--verbose", action=_Verbose, nargs=0, help="log more, with times")
    return options


class _Verbose(argparse.Action):
    def __call__(self, *_: Any) -> None:
        os.environ[VERBOSE] = "1"
        _configure_log()


def _configure_log() -> None:
    """Messages of the pipeline to standard error; with -v also those of libraries, with times."""
    verbose = bool(os.environ.get(VERBOSE))
    form = "%(asctime)s %(levelname)s %(name)s: %(message)s" if verbose else "%(message)s"
    logging.basicConfig(format=form, level=logging.INFO if verbose else logging.ERROR, force=True)
    logging.getLogger("pipeline").setLevel(logging.DEBUG if verbose else logging.INFO)


def _exit_with_traceback(error: Exception) -> NoReturn:
    """End as Python does after an error, without secrets in the traceback."""
    sys.stderr.write(explain(error).text)
    sys.exit(1)


def _keep_traceback(error: Exception) -> Path:
    """Write the traceback to a file of its own."""
    name = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}.txt"
    path = LOGS / "errors" / name
    write_whole(path, explain(error).text)
    return path


def emit(event: str, **fields: Any) -> None:
    """Append an event as a line of JSON to the file that IANET_EVENTS names, if any."""
    path = os.environ.get(EVENTS)
    if path:
        with suppress(OSError), Path(path).open("a") as file:  # a full disk costs a display only
            file.write(json.dumps({"event": event, **fields}) + "\n")


@contextmanager
def lock_work(lock: Path, work: str) -> Iterator[None]:
    """Refuse work that another process of this folder does.

    Args:
        lock: a file of the work.
        work: for the message, such as "making results in this folder".

    Raises:
        SettingsError: another process does the work.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    file = FileLock(lock)
    try:
        file.acquire(blocking=False)
    except Timeout:
        raise SettingsError(
            f"another process is {work}: wait for that process, or stop it "
            f"(`fuser {lock}` shows its id)"
        ) from None
    try:
        yield
    finally:
        file.release()


class Interrupt:
    """Stops a process of DVC by its stages, as a signal to DVC itself might leave half a dvc.lock.

    DVC ends when a stage fails. Each stage has SIGINT once, as by Ctrl-C, and cleans up after
    itself. A DVC that waits for a lock has no stage: it has SIGINT after `PATIENCE`.
    """

    def __init__(self, process: subprocess.Popen[Any]) -> None:
        """`process` is of DVC, and leads a session of its own."""
        self.process = process
        self.start = time.monotonic()
        self.receivers: set[tuple[int, str]] = set()

    def send(self) -> None:
        """Send the signals that are due; to be called until the process ends."""
        with suppress(psutil.Error):
            for stage in self._find_stages():
                # Before its program runs, a new process has the command line of its parent.
                receiver = stage.pid, " ".join(stage.cmdline())
                if receiver not in self.receivers:
                    self.receivers.add(receiver)
                    self._reach(stage, *stage.children(recursive=True))
            # A DVC that runs a stage ignores the signal.
            if time.monotonic() - self.start > PATIENCE:
                self.start = time.monotonic()
                self._reach(psutil.Process(self.process.pid))

    def _find_stages(self) -> Iterator[psutil.Process]:
        """The Python processes of stages. A shell that ended before its stage would mislead DVC."""
        for child in psutil.Process(self.process.pid).children():
            yield from [child] if child.name().startswith("python") else child.children()

    def _reach(self, *processes: psutil.Process) -> None:
        for process in processes:
            with suppress(psutil.Error, ProcessLookupError):
                if os.getpgid(process.pid) == self.process.pid:  # Ray's own processes are not
                    process.send_signal(signal.SIGINT)


def run_command(*words: str) -> None:
    """Run a command to its end, in a session of its own: it is stopped when this process is.

    Raises:
        SystemExit: the command failed, and has said why.
    """
    with subprocess.Popen(words, start_new_session=True) as process:
        try:
            code = process.wait()
        except KeyboardInterrupt:
            if words[: len(DVC)] == DVC:
                interrupt = Interrupt(process)
                while process.poll() is None:
                    interrupt.send()
                    time.sleep(0.1)
            else:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGINT)
                process.wait()
            raise
    if code:
        sys.exit(code)


def format_runs(number: int) -> str:
    """A number of runs as people say it."""
    return "1 run" if number == 1 else f"{number} runs"


def format_minutes(number: float) -> str:
    """A number of minutes as people say it."""
    return "a minute" if number < 1.5 else f"{number:.0f} minutes"
