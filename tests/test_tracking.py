"""MLflow's records of trainings: what is sent, once, and how runs end."""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from mlflow_runs import Sent, metric, tracked
from tiny_models import tiny_model

from pipeline.plan.runs import Run
from pipeline.tracking import recorder as recording
from pipeline.tracking import server, training
from pipeline.tracking.recorder import Recorder, send_safely

ROOT = Path(__file__).parents[1]
RUN = Run("synthetic", "base", "quick", 0)
RECORD = {
    "id": "0123",
    "digest": "4567",
    "source": "data/synthetic.zip",
    "configuration": {
        "network": {"block": "ia", "after": {"stage2": {"sigma": [1, 2]}}, "options": {}},
        "recipe": {"epochs": 3, "lr": 0.1},
        "hold_out": False,
        "size": "64x32",
        "seed": 0,
    },
    "environment": {"torch": "2", "device": "CPU"},
    "commit": "abc1234",
    "date": "2026-11-29 02:30",
}
HISTORY = [
    {"epoch": number, "loss": 1 / number, "triplet": 2 / number, "lr": 0.1} for number in (1, 2, 3)
]
SCORES = {
    "key": RUN.key,
    "dataset": "synthetic",
    "on": "synthetic",
    "split": "test",
    "mAP": 0.5,
    "mINP": 0.25,
    "top-1": 0.75,
    "top-5": 0.875,
    "top-10": None,  # not defined by the data set
    "entropy": 3.5,
    "cmc": [0.75, 0.8, 0.825, 0.85, 0.875],
}


def sync(history: Sequence[Mapping[str, float]], status: str = "RUNNING") -> str:
    return training.sync_training(RUN, RECORD, history, status)


def names(*epochs: int) -> list[tuple[int, str]]:
    return [(epoch, name) for epoch in epochs for name in ("loss", "triplet", "lr")]


def write_run(record: Mapping[str, Any] = RECORD, weights: bytes = b"weights") -> None:
    RUN.folder.mkdir(parents=True, exist_ok=True)
    (RUN.folder / "training.json").write_text(json.dumps(record))
    (RUN.folder / "weights.safetensors").write_bytes(weights)
    (RUN.folder / "network.json").write_text("{}")
    history = pd.DataFrame(HISTORY).assign(accuracy=0.5, seconds=2.0, images_per_second=50.0)
    history.to_csv(RUN.folder / "history.csv", index=False)


def write_scores(key: str, weights: str, **changes: Any) -> None:
    path = Path("results", changes.get("on", "synthetic"), "scores", f"{key}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**SCORES, "torch": "2.99.0", "weights": weights, **changes}))


@pytest.mark.slow
def test_a_training_has_its_parameters_tags_and_epochs(tracked_project: Path, sent: Sent) -> None:
    run_id = sync([report | {"seconds": 2.0} for report in HISTORY[:2]])
    [run] = tracked()
    assert run.info.run_id == run_id
    assert run.info.run_name == "synthetic.base.quick.0"
    assert run.info.status == "RUNNING"
    assert run.data.params == {
        "dataset": "synthetic",
        "network": "base",
        "recipe": "quick",
        "seed": "0",
        "network.block": "ia",
        "network.after.stage2.sigma.0": "1",
        "network.after.stage2.sigma.1": "2",
        "network.options": "{}",
        "training.epochs": "3",
        "training.lr": "0.1",
        "hold_out": "False",
    }
    tags = {name: run.data.tags[name] for name in ("id", "run", "digest", "network", "seed")}
    assert tags == {
        "id": "0123", "run": RUN.key, "digest": "4567", "network": "base", "seed": "0",
    }  # fmt: skip
    assert metric(run_id, "loss") == [(1, 1.0), (2, 0.5)]
    assert metric(run_id, "triplet") == [(1, 2.0), (2, 1.0)]
    assert set(run.data.metrics) == {"loss", "triplet", "lr"}


@pytest.mark.slow
def test_a_run_describes_what_is_trained_once(tracked_project: Path) -> None:
    run = RUN._replace(network="stage_2")
    network = {"block": "ia", "weights": "<b>*a*</b>", "after": {"stage2": {"sigma": [1, 2]}}}
    record = {**RECORD, "configuration": {**RECORD["configuration"], "network": network}}
    run_id = training.sync_training(run, record, [], "RUNNING")
    assert mlflow.get_run(run_id).data.tags["mlflow.note.content"].splitlines() == [
        r"Network stage\_2, trained on synthetic by recipe quick with seed 0. Folder of the model: "
        r"models/synthetic.stage\_2.quick.0",
        "",
        "- network.block: ia",
        r"- network.weights: \<b\>\*a\*\</b\>",
        "- network.after.stage2.sigma.0: 1",
        "- network.after.stage2.sigma.1: 2",
    ]
    for text in ("What a person wrote.", ""):
        mlflow.MlflowClient().set_tag(run_id, "mlflow.note.content", text)
        training.sync_training(run, record, HISTORY, "FINISHED")
        assert mlflow.get_run(run_id).data.tags["mlflow.note.content"] == text
    mlflow.MlflowClient().delete_tag(run_id, "mlflow.note.content")  # as of an earlier version
    training.sync_training(run, record, HISTORY, "FINISHED")
    assert mlflow.get_run(run_id).data.tags["mlflow.note.content"].startswith(r"Network stage\_2,")


@pytest.mark.slow
def test_a_description_is_no_longer_than_mlflow_takes(tracked_project: Path) -> None:
    network = {"options": {f"option{number}": "a" * 200 for number in range(90)}}
    record = {**RECORD, "configuration": {**RECORD["configuration"], "network": network}}
    run_id = training.sync_training(RUN, record, [], "RUNNING")
    assert len(mlflow.get_run(run_id).data.tags["mlflow.note.content"]) == training.LONGEST_NOTE


@pytest.mark.slow
def test_the_record_and_the_history_are_files_of_the_run_once(tracked_project: Path) -> None:
    write_run()
    training.sync_run(RUN)
    [run] = tracked()
    files = Path(run.info.artifact_uri)
    names = ["history.csv", "training.json"]
    for name in names:
        assert (files / name).read_bytes() == (RUN.folder / name).read_bytes()
    content = mlflow.artifacts.load_dict(f"runs:/{run.info.run_id}/training.json")
    assert content == RECORD
    (files / "history.csv").unlink()
    (files / "training.json").write_text("sent")
    training.sync_run(RUN)
    assert [path.name for path in sorted(files.iterdir())] == names
    assert (files / "history.csv").read_bytes() == (RUN.folder / "history.csv").read_bytes()
    assert (files / "training.json").read_text() == "sent"


@pytest.mark.slow
def test_an_epoch_is_sent_once(tracked_project: Path, sent: Sent) -> None:
    run_id = sync([])
    assert sent == []
    for epochs in (1, 1, 3, 3):
        assert sync(HISTORY[:epochs]) == run_id
    assert sent == [names(1), names(2, 3)]
    assert metric(run_id, "loss") == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert len(tracked()) == 1


@pytest.mark.slow
def test_a_history_that_the_server_holds_in_part_is_completed(
    tracked_project: Path, sent: Sent
) -> None:
    run_id = sync(HISTORY[1:2])
    sync(HISTORY)
    assert sent == [names(2), names(1, 3)]
    assert sorted(metric(run_id, "lr")) == [(1, 0.1), (2, 0.1), (3, 0.1)]


@pytest.mark.slow
def test_a_request_holds_whole_epochs(
    tracked_project: Path, sent: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that fails would else leave an epoch of which the server lacks a part."""
    monkeypatch.setattr(server, "BATCH", 8)
    sync(HISTORY)
    assert sent == [names(1, 2), names(3)]
    monkeypatch.setattr(server, "BATCH", 2)
    training.sync_training(RUN, {**RECORD, "id": "other"}, HISTORY, "RUNNING")
    assert sent[2:] == [names(1), names(2), names(3)]


@pytest.mark.slow
def test_the_status_is_that_of_the_last_call(tracked_project: Path) -> None:
    for status in ("RUNNING", "KILLED", "RUNNING", "FAILED", "FINISHED"):
        sync(HISTORY, status)
        [run] = tracked()
        assert run.info.status == status


@pytest.mark.slow
def test_a_training_that_began_anew_is_another_run(tracked_project: Path) -> None:
    first = sync(HISTORY)
    second = training.sync_training(RUN, {**RECORD, "id": "8901"}, HISTORY[:1], "RUNNING")
    assert first != second
    assert [run.info.run_id for run in tracked()] == [second, first]
    assert metric(second, "loss") == [(1, 1.0)]


@pytest.mark.slow
def test_the_data_set_is_named_where_it_is_prepared(tracked_project: Path) -> None:
    table = RUN.prepared / "table.parquet"
    table.parent.mkdir(parents=True)
    table.write_bytes(b"table")
    sync([])
    [run] = tracked()
    assert run.inputs is not None
    [entry] = run.inputs.dataset_inputs
    assert entry.dataset.name == "synthetic"
    assert entry.dataset.digest == "0d4fc4a7"  # of SHA-256
    assert json.loads(entry.dataset.source) == {"uri": "data/synthetic.zip"}


@pytest.mark.slow
def test_a_run_with_its_model_and_scores_is_sent_once(tracked_project: Path, sent: Sent) -> None:
    tiny_model(RUN.model)
    write_run(weights=(RUN.model / "model.safetensors").read_bytes())
    weights = RUN.weights_digest()
    write_scores(RUN.key, weights)
    write_scores(
        f"{RUN.key}.market1501",
        weights,
        on="market1501",
        mAP=0.125,
        cameras="ignore",
        **{"top-10": 0.9},
    )
    write_scores(f"{RUN.key}.dukemtmc", "of other weights", on="dukemtmc")
    write_scores("synthetic.base.quick.01", weights, mAP=0.0)  # of another run
    for _ in range(2):
        training.sync_run(RUN)
        [run] = tracked()
        assert run.info.status == "FINISHED"
        scores = {name: value for name, value in run.data.metrics.items() if "test" in name}
        assert scores == {
            "test_mAP": 0.5,
            "test_mINP": 0.25,
            "test_top_1": 0.75,
            "test_top_5": 0.875,
            "market1501_test_mAP": 0.125,
            "market1501_test_mINP": 0.25,
            "market1501_test_top_1": 0.75,
            "market1501_test_top_5": 0.875,
            "market1501_test_top_10": 0.9,
        }
        assert run.data.tags["cameras"] == "respect"
        assert run.data.tags["market1501_cameras"] == "ignore"
        assert run.data.metrics["entropy"] == 3.5
        assert run.data.metrics["market1501_entropy"] == 3.5
        files = mlflow.MlflowClient().list_artifacts(run.info.run_id)
        assert {file.path for file in files} >= {"cmc.png", "market1501_cmc.png"}
        assert "dukemtmc_cmc.png" not in {file.path for file in files}
        assert run.data.tags["model"] == "synthetic.base"
        [model] = mlflow.MlflowClient().search_model_versions("name = 'synthetic.base'")
        assert model.run_id == run.info.run_id
        assert "## Intended use" in str(model.description)
        registered = mlflow.MlflowClient().get_registered_model("synthetic.base")
        assert registered.description == (
            "Network base, trained on synthetic. Each version is of one training, and has its "
            r"model card. Aliases are \<recipe\>-\<seed\>, and best for the best mAP on held-out "
            "people."
        )
        assert registered.aliases == {"quick-0": 1}
        steps = [[step for step, _ in request] for request in sent]
        assert steps[:3] == [5 * [1] + 5 * [2] + 5 * [3], [0] * 6, [0] * 5]
        assert len(steps) == 4  # MLflow itself links a model with the metrics of its run
    write_scores(RUN.key, weights, mAP=0.625)
    training.sync_run(RUN)
    [run] = tracked()
    assert run.data.metrics["test_mAP"] == 0.625
    assert len(sent) == 5
    assert metric(run.info.run_id, "loss") == [(1, 1.0), (2, 0.5), (3, 1 / 3)]


@pytest.mark.slow
def test_a_model_whose_sending_was_cut_short_is_registered_once(
    tracked_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process is killed before the aliases are set; the next one goes on from there."""
    tiny_model(RUN.model)
    write_run(weights=(RUN.model / "model.safetensors").read_bytes())

    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    mlflow.MlflowClient().create_registered_model("production")
    with monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, "set_registered_model_alias", die)
        with pytest.raises(KeyboardInterrupt):
            training.sync_run(RUN)
    assert mlflow.MlflowClient().get_registered_model("synthetic.base").aliases == {}
    [first] = mlflow.MlflowClient().search_model_versions("name = 'synthetic.base'")
    for _ in range(2):  # a person's own versions of the run are not those of the pipeline
        mlflow.MlflowClient().create_model_version("production", first.source, first.run_id)
    training.sync_run(RUN)
    versions = mlflow.MlflowClient().search_model_versions("name = 'synthetic.base'")
    assert len(versions) == 1
    assert mlflow.MlflowClient().get_registered_model("synthetic.base").aliases == {"quick-0": 1}
    assert tracked()[0].data.tags["model"] == "synthetic.base"


@pytest.mark.slow
def test_a_version_gets_its_alias_later_and_a_model_that_was_deleted_stays_so(
    tracked_project: Path,
) -> None:
    tiny_model(RUN.model)
    write_run(weights=(RUN.model / "model.safetensors").read_bytes())
    training.sync_run(RUN)
    client = mlflow.MlflowClient()
    client.delete_registered_model_alias("synthetic.base", "quick-0")  # as of an earlier version
    training.sync_run(RUN)
    assert client.get_registered_model("synthetic.base").aliases == {"quick-0": 1}
    assert len(client.search_model_versions("name = 'synthetic.base'")) == 1
    client.delete_registered_model("synthetic.base")
    training.sync_run(RUN)
    assert client.search_registered_models() == []


@pytest.mark.slow
def test_a_model_of_an_earlier_training_is_not_registered(
    tracked_project: Path, sent: Sent
) -> None:
    tiny_model(RUN.model)
    write_run()  # of other weights
    training.sync_run(RUN)
    [run] = tracked()
    assert "model" not in run.data.tags


@pytest.mark.slow
def test_a_run_that_was_not_trained_is_an_error(tracked_project: Path) -> None:
    with pytest.raises(FileNotFoundError, match=RUN.key):
        training.sync_run(RUN)
    assert tracked() == []


def test_a_recorder_lets_no_failure_through_and_sends_all_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now, away, calls, received = 50.0, False, [], []

    def send(content: list[int]) -> None:
        calls.append(content)
        if away:
            raise MlflowException("no answer\nat all")
        received.append(content)

    monkeypatch.setattr(time, "monotonic", lambda: now)
    recorder = Recorder(send)
    recorder.send([1])
    assert received == [[1]]
    away = True
    recorder.send([1, 2])
    for seconds in (0.1, 9.9):  # a moment ago: not tried
        now = 50 + seconds
        recorder.send([1, 2, 3])
    assert calls == [[1], [1, 2]]
    now = 61
    recorder.send([1, 2, 3, 4])  # tried, and fails again
    assert len(calls) == 3
    away = False
    now = 70
    recorder.send([1, 2, 3, 4, 5])
    assert len(calls) == 3
    now = 71.1
    recorder.send([1, 2, 3, 4, 5, 6])
    assert received == [[1], [1, 2, 3, 4, 5, 6]]
    assert [record.getMessage() for record in caplog.records] == [
        "MLflow went away (no answer): all results are on disk, and `python -m pipeline.sync` "
        "sends them"
    ]


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_waits_for_a_write_to_mlflow(stop: signal.Signals) -> None:
    written = []

    def send(parts: list[int]) -> None:
        for part in parts:
            signal.raise_signal(stop)
            written.append(part)

    handler = signal.signal(stop, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            Recorder(send).send([1])
        assert written == [1]
        with pytest.raises(KeyboardInterrupt):  # the second signal ends a write that hangs
            Recorder(send).send([2, 3])
        assert written == [1, 2]
        with pytest.raises(KeyboardInterrupt):
            send_safely(lambda: send([4]))
        assert written == [1, 2, 4]
        assert signal.getsignal(stop) is signal.default_int_handler
    finally:
        signal.signal(stop, handler)


@pytest.mark.slow
def test_a_training_outlives_an_mlflow_that_goes_away_and_comes_back(
    tracked_project: Path, sent: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "PAUSE", 0)
    with training.open_training_run(RUN, RECORD) as recorder:
        recorder.send(HISTORY[:1])
        with monkeypatch.context() as patch:
            patch.setattr(training, "find", lambda tags: 1 / 0)
            recorder.send(HISTORY[:2])
        [run] = tracked()
        assert run.info.status == "RUNNING"
        assert metric(run.info.run_id, "loss") == [(1, 1.0)]
        recorder.send(HISTORY)
    [run] = tracked()
    assert run.info.status == "FINISHED"
    assert sorted(metric(run.info.run_id, "loss")) == [(1, 1.0), (2, 0.5), (3, 1 / 3)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "status"), [(KeyboardInterrupt, "KILLED"), (OSError, "FAILED"), (None, "FINISHED")]
)
def test_a_run_says_how_its_work_ended(
    tracked_project: Path, error: type[BaseException] | None, status: str
) -> None:
    def work() -> None:
        with training.open_training_run(RUN, RECORD) as recorder:
            recorder.send(HISTORY[:1])
            if error:
                raise error

    if error:
        with pytest.raises(error):
            work()
    else:
        work()
    assert mlflow.active_run() is None
    [run] = tracked()
    assert run.info.status == status
    with training.open_training_run(RUN, RECORD) as recorder:  # the same command resumes
        assert [again.info.run_id for again in tracked()] == [run.info.run_id]
        assert mlflow.get_run(run.info.run_id).info.status == "RUNNING"
        recorder.send(HISTORY)
    [run] = tracked()
    assert run.info.status == "FINISHED"
    assert len(metric(run.info.run_id, "loss")) == 3


@pytest.mark.slow
def test_work_ends_well_where_mlflow_is_away_at_its_end(
    tracked_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(status: str) -> None:
        raise MlflowException("no answer")

    with monkeypatch.context() as patch, training.open_training_run(RUN, RECORD):
        patch.setattr(mlflow, "end_run", fail)
    [run] = tracked()
    assert run.info.status == "RUNNING"


@pytest.mark.slow
def test_a_loss_that_is_no_number_is_sent(tracked_project: Path) -> None:
    run_id = sync([{"epoch": 1, "loss": math.nan, "lr": 0.5}])
    [(step, value)] = metric(run_id, "loss")
    assert step == 1
    assert math.isnan(value)
    sync([{"epoch": 1, "loss": math.nan, "lr": 0.5}])
    assert metric(run_id, "lr") == [(1, 0.5)]


def test_a_blank_address_counts_as_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uris: list[str] = []

    def stop(uri: str) -> None:
        uris.append(uri)
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(mlflow, "set_tracking_uri", stop)
    for address in ("   ", " http://127.0.0.1:9 "):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        with pytest.raises(KeyboardInterrupt):
            server.connect()
    assert uris == ["sqlite:///mlflow.db", "http://127.0.0.1:9"]
