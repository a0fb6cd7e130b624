"""`patchattn demo`: its options."""

from __future__ import annotations

import signal
import sys

import pytest
from typer.testing import CliRunner

from patchattn.cli.app import app


def test_without_gradio_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    numbers = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
    before = [signal.getsignal(number) for number in numbers]
    result = CliRunner().invoke(app, ["demo"])
    assert result.exit_code == 2
    assert 'gradio is not installed; install it with: pip install "patchattn[demo]"' in result.stderr
    assert [signal.getsignal(number) for number in numbers] == before


def test_help() -> None:
    result = CliRunner().invoke(app, ["demo", "--help"])
    assert result.exit_code == 0
    for option in ("host", "port", "password", "allow-host", "max-megapixels", "max-megabytes"):
        assert f"--{option} " in result.stdout
    for limit in ("visitor", "total"):
        assert f"--{limit}-megabytes" in result.stdout
    assert "PATCHATTN_DEMO_PASSWORD" in result.stdout


@pytest.mark.parametrize("password", ["", "a", "secret", "1234567"])
def test_a_password_is_not_short(password: str) -> None:
    for options, variable in ((["--password", password], {}), ([], {"PATCHATTN_DEMO_PASSWORD": password})):
        if not options and not password:
            continue  # a variable that is empty is none
        result = CliRunner().invoke(app, ["demo", *options], env=variable)
        assert result.exit_code == 2
        assert f"--password: expected at least 8 characters, got {len(password)}." in result.stderr
