"""No text for a person holds a secret of an address, whatever the secret's form."""

from __future__ import annotations

import re
from pathlib import Path

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from test_shell import run

from pipeline.cluster.storage import Storage
from pipeline.config.settings import SettingsError
from pipeline.failures import CodeError, explain
from pipeline.secrecy import hide_secrets
from pipeline.tracking import recorder, reproduction, server

FORMS = {
    "s3://AKIA:SECRET@bucket/x?bogus=1": "s3://bucket/x?bogus=1",
    "s4://AKIA:SECRET@bucket/x": "s4://bucket/x",
    "s3://AKIA:SEC/RET@bucket/x": "s3://bucket/x",
    "postgresql://mlflow:SEC/RET@host/db": "postgresql://host/db",
    "postgresql://mlflow:SEC?RET@host/db": "postgresql://host/db",
    "http://ada:SEC@RET@host:5000": "http://host:5000",
    "http://SECRET@host": "http://host",
    "redis://:SECRET@host": "redis://host",
    "postgresql://host/db?user=ada&password=SECRET": "postgresql://host/db?user=ada&password=***",
    "s3://bucket/x?secret_key=SEC'RET&region=a": "s3://bucket/x?secret_key=***&region=a",
    "https://host/x?X-Amz-Security-Token=SECRET": "https://host/x?X-Amz-Security-Token=***",
    "https://host/x?X-Amz-Signature=SECRET": "https://host/x?X-Amz-Signature=***",
    "https://host/x?sslpassword=SEC;RET": "https://host/x?sslpassword=***",
}
"""Addresses, and what is left of them."""

PARTS = ("AKIA", "SEC", "RET")
URL = "postgresql://mlflow:SEC/RET@host/db?password=SECRET"


def has_secret(text: str) -> bool:
    return any(part in text for part in PARTS)


@pytest.mark.parametrize(("address", "rest"), FORMS.items())
def test_an_address_loses_its_secrets_alone(address: str, rest: str) -> None:
    assert hide_secrets(address) == rest
    assert hide_secrets(f"to {address} and {address}\nno") == f"to {rest} and {rest}\nno"


@pytest.mark.parametrize(
    "text",
    [
        "mlflow.db",
        "sqlite:////home/ada/mlflow.db",
        "https://host:5000/#/experiments/1?view=a",
        "sorted(names, key=len) of ada@host, password=3",
        "/home/ada@work/x: no such file",
    ],
)
def test_other_texts_stay(text: str) -> None:
    assert hide_secrets(text) == text


def test_the_host_that_a_driver_made_of_a_password_is_hidden() -> None:
    text = 'could not translate host name "SEC@RET@127.0.0.1" to address'
    assert hide_secrets(text) == 'could not translate host name "127.0.0.1" to address'


@pytest.mark.parametrize(
    ("name", "value", "rest"),
    [
        ("AWS_SECRET_ACCESS_KEY", "wJalr/XUtn+FEMI", "no access with *** here"),
        ("RAY_AUTH_TOKEN", "0123456789abcdef", "no access with *** here"),
        ("MLFLOW_TRACKING_PASSWORD", "8 letter", "no access with *** here"),
        ("mlflow_tracking_password", "of (a) [regex].*", "no access with *** here"),
        ("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE", "no access with *** here"),
        ("MLFLOW_TRACKING_PASSWORD", "7 chars", "no access with 7 chars here"),
        ("MLFLOW_TRACKING_USERNAME", "ada of the lab", "no access with ada of the lab here"),
        ("DB_PASSPHRASE", "of a keyring", "no access with *** here"),
        ("GNOME_KEYRING_CONTROL", "/run/ada/keyring", "no access with /run/ada/keyring here"),
        ("KEYCLOAK_URL", "https://a.example", "no access with https://a.example here"),
        ("KEY_STORE", str(Path(__file__)), f"no access with {Path(__file__)} here"),
        ("RAY_AUTH_TOKEN", "a" * 5000, "no access with *** here"),
        ("RAY_AUTH_TOKEN_PATH", "/home/ada/token", "no access with /home/ada/token here"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "/run/aws/token", "no access with /run/aws/token here"),
    ],
)
def test_the_value_of_a_variable_that_names_a_secret_is_hidden(
    name: str, value: str, rest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f"no access with {value} here"
    assert hide_secrets(text) == text
    monkeypatch.setenv(name, value)
    assert hide_secrets(text) == rest


def test_of_variables_of_which_one_holds_another_both_are_hidden(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("A_TOKEN", "12345678")
    monkeypatch.setenv("B_TOKEN", "12345678-90")
    assert hide_secrets("12345678-90 and 12345678 of s3://ada:12345678@b/x") == (
        "*** and *** of s3://b/x"
    )


REFUSED = [address for address in FORMS if address.startswith("s") and "secret_key" not in address]


@pytest.mark.parametrize("address", [*REFUSED, "s3://bucket/x?secret_key=SECRET"])
def test_a_storage_that_is_refused(address: str) -> None:
    with pytest.raises(SettingsError, match=r"^params\.yaml: cluster\.storage is 's.://") as error:
        Storage(address)
    assert not has_secret(str(error.value))


@pytest.mark.parametrize(("address", "rest"), FORMS.items())
def test_an_mlflow_that_cannot_be_used(
    address: str, rest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(name: str) -> None:
        raise MlflowException(f"no answer of {address} to ianet")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(mlflow, "set_experiment", fail)
    monkeypatch.setattr(mlflow, "set_tracking_uri", lambda uri: None)
    monkeypatch.setattr(mlflow, "get_tracking_uri", lambda: address)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with pytest.raises(ConnectionError) as error:
        server.connect()
    start = f"MLflow at {rest} cannot be used (no answer of {rest} to ianet): start the server"
    assert str(error.value).startswith(start)


def test_a_run_in_mlflow_and_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []
    monkeypatch.setattr(mlflow, "start_run", lambda **_: None)
    monkeypatch.setattr(mlflow, "end_run", sent.append)
    monkeypatch.setattr(mlflow, "set_tag", lambda name, value: sent.append(f"{name}: {value}"))
    monkeypatch.setattr(mlflow, "log_text", lambda text, name: sent.append(f"{name}: {text}"))
    with pytest.raises(OSError, match="SECRET"), recorder.open_run(lambda status: "id"):
        raise OSError(f"{URL} is away")
    tag, text, status = sent
    assert tag == "failure: postgresql://host/db?password=*** is away"
    assert text.startswith("traceback.txt: Traceback (most recent call last):\n")
    assert text.endswith("OSError: postgresql://host/db?password=*** is away\n")
    assert status == "FAILED"


def test_an_error_of_code() -> None:
    error = explain(ValueError(URL))
    assert isinstance(error, CodeError)
    assert str(error) == "ValueError: postgresql://host/db?password=***"
    assert error.text == "ValueError: postgresql://host/db?password=***\n"


def test_links_of_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reproduction, "connect", lambda: None)
    monkeypatch.setattr(reproduction, "read_record", lambda run: {"id": "1"})
    monkeypatch.setattr(reproduction, "find", lambda tags: "abc")
    monkeypatch.setattr(reproduction, "find_experiment", lambda: "1")
    monkeypatch.setattr(mlflow, "get_tracking_uri", lambda: "http://ada:SECRET@host:5000")
    name = "http://host:5000/#/experiments/1/runs/abc?workflowType=machine_learning"
    assert list(reproduction.find_run_pages(["run"]).values()) == [name]  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("body", "variables"),
    [
        ("raise SettingsError(url)", {}),
        ("raise OSError(url)", {}),
        ("raise OSError(url)", {"IANET_DEBUG": "1"}),
        ("raise RuntimeError(url)", {}),
    ],
)
def test_a_command_that_fails(tmp_path: Path, body: str, variables: dict[str, str]) -> None:
    events = tmp_path / "events"
    body = f"url = f\"{{os.environ['URL']}} with {{os.environ['MLFLOW_TRACKING_TOKEN']}}\"\n{body}"
    secrets = {"URL": URL, "MLFLOW_TRACKING_TOKEN": "of SECRET words"}
    status, output, messages = run(tmp_path, body, IANET_EVENTS=str(events), **secrets, **variables)
    assert (status, output) == (1, "")
    assert "postgresql://host/db?password=*** with ***" in messages
    logs = [path.read_text() for path in (tmp_path / "build").rglob("*.txt")]
    assert len(logs) == ("raise OSError" in body and not variables)
    for text in (messages, events.read_text(), *logs):
        assert not has_secret(text)


@pytest.mark.parametrize("value", ["password", "signature"])
def test_a_secret_that_is_a_word_of_an_address_shows_no_other_secret(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", value)
    for address, rest in FORMS.items():
        left = re.sub(rf"\b{value}=", "***=", rest)
        assert hide_secrets(address) == left


def test_a_part_of_a_word_and_blanks_are_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "training")
    monkeypatch.setenv("RAY_AUTH_TOKEN", " " * 8)
    text = "training of trainings:\n        retraining"
    assert hide_secrets(text) == "*** of trainings:\n        retraining"
