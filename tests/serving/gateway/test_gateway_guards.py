"""Hosts, the page, and what is open without a key."""

from __future__ import annotations

import re

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.serving.gateway.fake_orchestrator import DEFAULT_TOKENS, MODEL, PROMPT_TOKENS
from tests.serving.gateway.house import MESSAGES, keeping_house

import freehold
from freehold.errors import ConfigError
from freehold.serving.gateway import GatewaySettings, serve
from freehold.serving.gateway.errors import HostNotAllowed
from freehold.serving.gateway.guard import Guard
from freehold.serving.gateway.pages import load_page


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8080", "127.0.0.1:1", "[::1]:8080", "127.9.9.9", "LOCALHOST"]
)
async def test_loopback_names_are_answered(house, host):
    assert (await house.http.get("/version", headers={"Host": host})).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evil.example:8080",
        "localhost@evil.example",
        "",
        "localhost:8080:1",
        "169.254.1.1",
        "0.0.0.0",
    ],
)
@pytest.mark.parametrize("path", ["/", "/health", "/metrics", "/v1/models"])
async def test_other_hosts_are_refused_everywhere(house, host, path):
    response = await house.http.get(path, headers={"Host": host})
    assert response.status_code == 403
    assert response.json()["error"]["code"] == "host_not_allowed"


def guard(**settings) -> Guard:
    return Guard(GatewaySettings("o:1", "keys", **settings), None)


def test_beyond_loopback_any_name_unless_some_are_given():
    guard(host="0.0.0.0").check_host({"host": "ai.example:443"})
    named = guard(host="0.0.0.0", allowed_hosts=("ai.example",))
    named.check_host({"host": "AI.example:443"})
    with pytest.raises(HostNotAllowed):
        named.check_host({"host": "evil.example"})


def test_a_name_can_be_allowed_on_loopback():
    guard(allowed_hosts=("ai.example",)).check_host({"host": "ai.example"})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"host": "0.0.0.0"}, "allow_remote"),
        ({"host": "192.168.1.5"}, "allow_remote"),
        ({"port": 70000}, "65535"),
        ({"max_body_bytes": 0}, "max_body_bytes"),
    ],
)
async def test_unsafe_or_impossible_settings_are_refused(tmp_path, settings, words):
    with pytest.raises(ConfigError, match=words):
        async with serve(GatewaySettings("127.0.0.1:1", tmp_path / "keys.db", **settings)):
            pass
    assert not (tmp_path / "keys.db").exists()


async def test_a_taken_port_is_said_in_one_sentence(house, tmp_path):
    port = int(house.gateway.address.split(":")[1])
    with pytest.raises(ConfigError, match="Cannot listen"):
        async with serve(GatewaySettings("127.0.0.1:1", tmp_path / "other.db", port=port)):
            pass


@pytest.fixture
def built_page(tmp_path):
    folder = tmp_path / "page"
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_text("<!doctype html><title>Freehold</title>")
    (folder / "assets" / "index-CXknyhdJ.js").write_text("let a = 1;\n" * 500)
    (folder / "assets" / "plain.css").write_text("a{}")
    (folder / ".hidden").write_text("x")
    (tmp_path / "outside.txt").write_text("outside")
    (folder / "link.txt").symlink_to(tmp_path / "outside.txt")
    return folder


async def page_house_get(monkeypatch, tmp_path, folder, path, **options):
    monkeypatch.setattr("freehold.serving.gateway.app.load_page", lambda: load_page(folder))
    async with keeping_house(tmp_path) as house:
        del house.http.headers["Authorization"]
        return await house.http.get(path, **options)


async def test_the_page_is_served_under_a_strict_policy(monkeypatch, tmp_path, built_page):
    response = await page_house_get(monkeypatch, tmp_path, built_page, "/")
    assert response.status_code == 200
    assert "<title>Freehold</title>" in response.text
    assert response.headers["content-security-policy"] == (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"
    assert response.headers["cache-control"] == "no-cache"


async def test_hashed_assets_are_cached_for_good_and_compressed(monkeypatch, tmp_path, built_page):
    get = page_house_get
    hashed = await get(monkeypatch, tmp_path / "a", built_page, "/assets/index-CXknyhdJ.js")
    assert hashed.headers["content-type"].startswith("text/javascript")
    assert "immutable" in hashed.headers["cache-control"]
    assert hashed.headers["content-encoding"] == "gzip"
    assert hashed.text == "let a = 1;\n" * 500
    plain = await get(monkeypatch, tmp_path / "b", built_page, "/assets/plain.css")
    assert plain.headers["cache-control"] == "no-cache"
    same = await get(
        monkeypatch,
        tmp_path / "c",
        built_page,
        "/assets/plain.css",
        headers={"If-None-Match": plain.headers["etag"]},
    )
    assert (same.status_code, same.content) == (304, b"")


def test_only_ordinary_files_of_the_folder_are_known(built_page):
    assert set(load_page(built_page)) == {
        "/",
        "/index.html",
        "/assets/index-CXknyhdJ.js",
        "/assets/plain.css",
    }


@pytest.mark.parametrize(
    "path",
    [
        b"/../outside.txt",
        b"/assets/../../outside.txt",
        b"/%2e%2e/outside.txt",
        b"/assets/%2e%2e%2f%2e%2e%2foutside.txt",
        b"/..%5coutside.txt",
        b"//etc/passwd",
        b"/link.txt",
        b"/.hidden",
        b"/assets/",
        b"/assets/index-CXknyhdJ.js/",
    ],
)
async def test_no_path_leads_out_of_the_page(monkeypatch, tmp_path, built_page, path):
    import asyncio

    monkeypatch.setattr("freehold.serving.gateway.app.load_page", lambda: load_page(built_page))
    async with keeping_house(tmp_path) as house:
        reader, writer = await asyncio.open_connection(*house.gateway.address.split(":"))
        writer.write(b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), 2)
        assert answer.startswith(b"HTTP/1.1 404 ")
        assert b"outside" not in answer.partition(b"\r\n\r\n")[2]
        writer.close()


async def test_without_a_built_page_the_way_to_build_it_is_said(monkeypatch, tmp_path):
    response = await page_house_get(monkeypatch, tmp_path, tmp_path / "nothing", "/")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain")
    assert "make page" in response.text


async def test_head_is_get_without_a_body(house):
    response = await house.http.head("/version")
    assert (response.status_code, response.content) == (200, b"")


async def test_health_says_whether_a_question_would_be_answered(house):
    del house.http.headers["Authorization"]
    response = await house.http.get("/health")
    assert (response.status_code, response.json()) == (200, {"status": "ready"})
    house.gateway.app.is_draining = True
    response = await house.http.get("/health")
    assert (response.status_code, response.json()) == (503, {"status": "draining"})
    assert (await house.http.get("/version")).json() == {"version": freehold.__version__}


async def test_a_draining_gateway_takes_no_question(house):
    house.gateway.app.is_draining = True
    response = await house.http.post(
        "/v1/chat/completions", json={"model": MODEL, "messages": MESSAGES}
    )
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) >= 1


async def test_without_an_orchestrator_questions_get_503_and_health_says_so(tmp_path):
    settings = GatewaySettings("127.0.0.1:1", tmp_path / "keys.db", port=0)
    import httpx

    async with serve(settings) as gateway:
        key = gateway.keys.add("test")
        headers = {"Authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(base_url=f"http://{gateway.address}", headers=headers) as http:
            for path in ("/v1/chat/completions", "/v1/models", "/tokenize"):
                body = {"model": MODEL, "messages": MESSAGES}
                method = "GET" if path == "/v1/models" else "POST"
                response = await http.request(method, path, json=body)
                assert response.status_code == 503, path
                assert response.json()["error"]["code"] == "unavailable"
                assert "127.0.0.1" not in response.text
            assert (await http.get("/health")).json() == {"status": "unavailable"}
            assert "freehold_orchestrator_up 0.0" in (await http.get("/metrics")).text


def samples(text: str) -> dict[str, float]:
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


async def test_metrics_count_what_happened_under_both_names(house):
    for stream in (False, True):
        body = {"model": MODEL, "messages": MESSAGES, "stream": stream, "n": 2}
        assert (await house.http.post("/v1/chat/completions", json=body)).status_code == 200
    await house.http.post("/v1/chat/completions", json={"model": "x" * 50, "messages": MESSAGES})
    await house.http.get("/nowhere")
    del house.http.headers["Authorization"]
    text = (await house.http.get("/metrics")).text
    found = samples(text)
    label = f"{{model_name={MODEL}}}"
    for prefix in ("freehold_", "vllm:"):
        assert found[f"{prefix}time_to_first_token_seconds_count{label}"] == 2
        assert found[f"{prefix}e2e_request_latency_seconds_count{label}"] == 2
        gaps = 4 * (DEFAULT_TOKENS - 1)
        assert found[f"{prefix}inter_token_latency_seconds_count{label}"] == gaps
        assert found[f"{prefix}num_requests_running{{}}"] == 2
        assert found[f"{prefix}num_requests_waiting{{}}"] == 7
        assert found[f"{prefix}prompt_tokens_total{label}"] == 2 * PROMPT_TOKENS
    assert found[f"vllm:generation_tokens_total{label}"] == 4 * DEFAULT_TOKENS
    assert found["vllm:kv_cache_usage_perc{}"] == pytest.approx(0.6)
    for name in ("freehold_worker_", "vllm:spec_decode_num_"):
        assert found[f"{name}draft_tokens_total{{worker=w1}}"] == 8
        assert found[f"{name}accepted_tokens_total{{worker=w1}}"] == 5
    requests = "freehold_http_requests_total"
    assert found[f"{requests}{{route=/v1/chat/completions,status=200}}"] == 2
    assert found[f"{requests}{{route=/v1/chat/completions,status=404}}"] == 1
    assert found[f"{requests}{{route=unknown,status=404}}"] == 1
    assert found["freehold_gateway_streams{}"] == 0
    assert "x" * 50 not in text  # a client chooses no label
    assert re.search("^# TYPE vllm:time_to_first_token_seconds histogram$", text, re.M)


async def test_metrics_can_need_a_key(tmp_path):
    async with keeping_house(tmp_path, open_metrics=False) as house:
        assert (await house.http.get("/metrics")).status_code == 200
        del house.http.headers["Authorization"]
        assert (await house.http.get("/metrics")).status_code == 401


async def test_tokenize_counts_text_and_messages(house):
    response = await house.http.post("/tokenize", json={"model": MODEL, "prompt": "abc"})
    assert response.json() == {"count": 3, "max_model_len": 4096, "tokens": [97, 98, 99]}
    response = await house.http.post("/tokenize", json={"model": MODEL, "messages": MESSAGES})
    assert response.json()["count"] == 5
    response = await house.http.post("/tokenize", json={"model": "nobody", "prompt": "abc"})
    assert (response.status_code, response.json()["error"]["param"]) == (404, "model")
