"""The command line as a person uses it: real processes, exit codes, one-sentence errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from freehold.config import load_settings, shipped_model
from freehold.errors import ConfigError


def _run(*words: str, home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "freehold", *words],
        env=os.environ | {"FREEHOLD_HOME": str(home), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_generate_is_the_same_twice_and_as_json(tmp_path: Path) -> None:
    words = ["generate", str(shipped_model()), "--prompt", "Hello", "--max-tokens", "8"]
    plain = _run(*words, home=tmp_path)
    report = json.loads(_run(*words, "--json", home=tmp_path).stdout)
    assert plain.returncode == 0
    assert plain.stdout.rstrip("\n") == report["text"].rstrip("\n")
    assert report["num_output_tokens"] == len(report["token_ids"]) <= 8
    sampled = [*words, "--temperature", "1.5", "--seed", "7", "--json"]
    assert (
        _run(*sampled, home=tmp_path).stdout.split('"load')[0]
        == (_run(*sampled, home=tmp_path).stdout.split('"load')[0])
    )


def test_bench_measures_the_shipped_model_and_says_what_memory_allows(tmp_path: Path) -> None:
    found = json.loads(
        _run("bench", "--quick", "--quantize", "int8", "--json", home=tmp_path).stdout
    )
    assert found["quantize"] == "int8"
    assert list(found["streams"]) == ["1", "8"]
    assert found["streams"]["8"]["ttft_max_seconds"] >= found["streams"]["8"]["ttft_p50_seconds"]
    assert found["resident_bytes"] > found["weight_and_cache_bytes"] > 0
    assert "of the" in _run("bench", "--quick", home=tmp_path).stdout


def test_inspect_reads_headers_only_and_says_whether_it_fits(tmp_path: Path) -> None:
    report = json.loads(_run("inspect", str(shipped_model()), "--json", home=tmp_path).stdout)
    assert report["architecture"] == "DeepseekV3ForCausalLM"
    assert report["attention"] == "latent"
    assert report["fits"]
    assert report["stored_bytes"] <= 24_000_000
    table = _run("inspect", str(shipped_model()), "--quantize", "int4", home=tmp_path)
    assert "experts" in table.stdout
    assert "fits" in table.stdout


def test_keys_are_shown_once_and_never_stored_plain(tmp_path: Path) -> None:
    key = _run("keys", "add", "laptop", home=tmp_path).stdout.strip()
    assert key.startswith("fh-")
    assert key.encode() not in (tmp_path / "keys.db").read_bytes()
    listed = _run("keys", "list", home=tmp_path).stdout
    assert "laptop" in listed
    assert key not in listed
    assert _run("keys", "revoke", "laptop", home=tmp_path).returncode == 0
    unknown = _run("keys", "revoke", "nobody", home=tmp_path)
    assert unknown.returncode == 1
    assert "nobody" in unknown.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["inspect", "no/such/directory"], "no/such/directory"),
        (["generate", ".", "--prompt", "x"], "config.json"),
        (["generate", str(shipped_model()), "--prompt", "x", "--temperature", "-1"], "temperature"),
        (["worker", "--port", "0", "--model", "nowhere"], "nowhere"),
        (["gateway", "--host", "0.0.0.0"], "allow_remote"),
    ],
)
def test_a_wrong_word_is_one_sentence_on_stderr(
    words: list[str], said: str, tmp_path: Path
) -> None:
    result = _run(*words, home=tmp_path)
    assert result.returncode in (1, 2)
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_flags_win_over_environment_and_toml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "freehold.toml").write_text('port = 1111\nquantize = "int8"\n')
    monkeypatch.setenv("FREEHOLD_CONFIG", str(tmp_path / "freehold.toml"))
    assert load_settings().port == 1111
    monkeypatch.setenv("FREEHOLD_PORT", "2222")
    assert load_settings().port == 2222
    assert load_settings(port=3333).port == 3333
    assert load_settings().quantize == "int8"


def test_a_wrong_setting_names_the_field_and_where_it_may_be_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="port"):
        load_settings(port=70000)
    (tmp_path / "freehold.toml").write_text("prot = 1\n")
    monkeypatch.setenv("FREEHOLD_CONFIG", str(tmp_path / "freehold.toml"))
    with pytest.raises(ConfigError, match="prot"):
        load_settings()
