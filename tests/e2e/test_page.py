"""The chat page in a real Chromium, on a real Freehold: what a person sees, and what never happens.

It asks nothing of the model but that it answers "What is Freehold?" with more than a few tokens.
Read next: web/src/features/chat/useChat.ts.
"""

from __future__ import annotations

import json
import re
import shutil
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Stack

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed.")
Browser, Page, expect = sync_api.Browser, sync_api.Page, sync_api.expect

pytestmark = pytest.mark.e2e

PAGE = Path(__file__).parents[2] / "src/freehold/serving/gateway/page/index.html"
FIXTURES = Path(__file__).parent / "page_fixtures"
QUESTION = "What is Freehold?"
LENGTH_OF_ANSWER = "() => document.querySelector('.answer-text')?.textContent.length ?? 0"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("Chromium is not installed (apt-get install chromium).")
    expect.set_options(timeout=30_000)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def stack(browser: Browser, request: pytest.FixtureRequest) -> Stack:
    if not PAGE.exists():
        pytest.skip("The page is not built (make page).")
    found: Stack = request.getfixturevalue("freehold_stack")
    return found


@pytest.fixture
def page(browser: Browser, stack: Stack) -> Iterator[Page]:
    """An English page in light; at its end, nothing has left the host and nothing was blocked."""
    context = browser.new_context(locale="en-US", color_scheme="light")
    context.set_default_timeout(30_000)
    page = context.new_page()
    addresses: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: addresses.append(request.url))
    page.on("websocket", lambda socket: addresses.append(socket.url))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda line: "Policy" in line.text and complaints.append(line.text))
    yield page
    context.close()
    origins = (f"{stack.url}/", f"{stack.url.replace('http', 'ws', 1)}/")
    assert addresses
    assert [address for address in addresses if not address.startswith(origins)] == []
    assert complaints == []


def _open(page: Page, stack: Stack) -> None:
    page.goto(f"{stack.url}/#key={stack.api_key}")
    expect(page.get_by_label("Model", exact=True)).to_have_value("freehold-nano")


def _ask(page: Page, question: str = QUESTION) -> None:
    page.get_by_role("textbox").fill(question)
    page.get_by_role("textbox").press("Enter")


def _answer_text(page: Page) -> str:
    text: str = page.locator(".answer-text").last.inner_text()
    return text


def _stored_turn(question: str, answer: str, reasoning: str = "") -> str:
    """A conversation of one turn as the page keeps it (web/src/features/chat/keeping.ts)."""
    [turn] = json.loads((FIXTURES / "conversation.json").read_text())
    turn["question"] = question
    turn["answer"] |= {"text": answer, "reasoning": reasoning}
    return json.dumps([turn])


def _show_stored(page: Page, stored: str) -> None:
    """Have the page draw a conversation that it finds in its own storage after a reload."""
    page.evaluate("() => window.addEventListener('pagehide', e => e.stopImmediatePropagation())")
    page.add_init_script(f"sessionStorage.setItem('freehold.conversation.1', {json.dumps(stored)})")
    page.reload()


def test_an_answer_grows_while_it_streams_and_ends_with_its_figures(
    page: Page, stack: Stack
) -> None:
    """The wire is let go frame by frame: the shipped model ends within two frames of a screen."""
    waiting: deque[tuple[Any, str]] = deque()

    def hold(route: Any) -> None:
        server = route.connect_to_server()
        route.on_message(server.send)
        server.on_message(lambda message: waiting.append((route, message)))

    page.route_web_socket(re.compile("/v1/stream"), hold)
    _open(page, stack)
    _ask(page)
    lengths = [0]
    while page.locator("[data-status=done]").count() == 0:
        page.wait_for_timeout(40)  # longer than the page gathers tokens for
        if waiting:
            route, message = waiting.popleft()
            route.send(message)
            lengths.append(page.evaluate(LENGTH_OF_ANSWER))
    assert lengths == sorted(lengths)
    assert len(set(lengths)) >= 5
    figures = page.locator(".stats").inner_text()
    assert re.search(r"TTFT \d+\.\d\d s", figures)
    assert re.search(r"[\d,.]+ tokens/s", figures)
    expect(page.locator("[aria-live=polite][aria-busy=false]")).to_have_count(1)


def test_a_second_question_goes_with_the_first_and_its_answer(page: Page, stack: Stack) -> None:
    sent: list[dict[str, Any]] = []
    sockets: list[Any] = []

    def watch(socket: Any) -> None:
        sockets.append(socket)
        socket.on("framesent", lambda payload: sent.append(json.loads(payload)))

    page.on("websocket", watch)
    _open(page, stack)
    _ask(page)
    expect(page.locator("[data-status=done]")).to_have_count(1)
    _ask(page, "And who are you?")
    expect(page.locator("[data-status=done]")).to_have_count(2)
    assert [message["role"] for message in sent[-1]["messages"]] == ["user", "assistant", "user"]
    assert sent[-1]["messages"][0]["content"] == QUESTION
    assert len(sockets) == 1  # one connection carries both


def test_stop_cancels_the_request_and_keeps_what_had_arrived(page: Page, stack: Stack) -> None:
    """The wire is held after a few tokens, so that the stop falls in mid-answer on any machine."""
    arrived: list[str] = []
    sent: list[dict[str, Any]] = []

    def hold(route: Any) -> None:
        server = route.connect_to_server()

        def from_page(message: str) -> None:
            sent.append(json.loads(message))
            server.send(message)

        def from_server(message: str) -> None:
            arrived.append(message)
            if len(arrived) <= 3:
                route.send(message)

        route.on_message(from_page)
        server.on_message(from_server)

    page.route_web_socket(re.compile("/v1/stream"), hold)
    _open(page, stack)
    _ask(page)
    expect(page.locator("[data-status=answering]")).to_be_attached()
    page.wait_for_function("() => document.querySelector('.answer-text').textContent.length > 0")
    page.get_by_role("button", name="Stop answering").click()
    expect(page.get_by_text("Stopped.")).to_be_visible()
    kept = _answer_text(page)
    assert kept
    assert [frame["type"] for frame in sent] == ["start", "cancel"]
    assert sent[1]["id"] == sent[0]["id"]
    page.wait_for_timeout(500)
    assert _answer_text(page) == kept
    expect(page.get_by_role("button", name="Send", exact=True)).to_be_visible()


def test_a_connection_lost_in_mid_answer_says_so_and_can_be_retried(
    page: Page, stack: Stack
) -> None:
    num_connections = 0

    def cut_the_first(route: Any) -> None:
        nonlocal num_connections
        num_connections += 1
        is_first = num_connections == 1
        num_passed = 0
        server = route.connect_to_server()

        def from_server(message: str) -> None:
            nonlocal num_passed
            num_passed += 1
            if not is_first or num_passed <= 3:
                route.send(message)
            elif num_passed == 4:
                route.close(code=1011)

        server.on_message(from_server)

    page.route_web_socket(re.compile("/v1/stream"), cut_the_first)
    _open(page, stack)
    _ask(page)
    expect(page.get_by_role("alert")).to_contain_text("connection was lost in mid-answer")
    assert _answer_text(page)
    page.get_by_role("button", name="Retry").click()
    expect(page.locator("[data-status=done]")).to_have_count(1)
    expect(page.get_by_role("alert")).to_have_count(0)
    assert num_connections == 2


def test_a_wrong_key_is_asked_for_again(page: Page, stack: Stack) -> None:
    page.goto(f"{stack.url}/#key=fh-not-the-key")
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("alert")).to_contain_text("not accepted")
    dialog.get_by_label("API key", exact=True).fill("has a space")
    dialog.get_by_role("button", name="Continue").click()
    expect(dialog.get_by_role("alert")).to_contain_text("cannot be a key")
    dialog.get_by_label("API key", exact=True).fill(stack.api_key)
    dialog.get_by_label("API key", exact=True).press("Enter")
    expect(dialog).to_have_count(0)
    expect(page.get_by_label("Model", exact=True)).to_have_value("freehold-nano")


def test_a_key_that_the_stream_refuses_is_asked_for_again(page: Page, stack: Stack) -> None:
    """A browser is not told why a socket failed, so the page has to find out."""
    page.route("**/v1/models", lambda route: route.fulfill(json={"data": [{"id": "x"}]}), times=1)
    page.goto(f"{stack.url}/#key=fh-revoked-meanwhile")
    expect(page.get_by_label("Model", exact=True)).to_have_value("x")
    _ask(page)
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("alert")).to_contain_text("not accepted")
    dialog.get_by_label("API key", exact=True).fill(stack.api_key)
    dialog.get_by_role("button", name="Continue").click()
    page.get_by_role("button", name="Retry").click()
    expect(page.locator("[data-status=done]")).to_have_count(1)


def test_a_page_without_a_key_asks_for_one(page: Page, stack: Stack) -> None:
    page.goto(stack.url)
    expect(page.get_by_role("dialog")).to_be_visible()
    expect(page.get_by_label("API key", exact=True)).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.get_by_role("button", name="Enter key").click()
    expect(page.get_by_role("dialog")).to_be_visible()


def test_the_key_leaves_the_address_and_outlives_a_reload(page: Page, stack: Stack) -> None:
    _open(page, stack)
    assert page.url == f"{stack.url}/"
    assert stack.api_key not in page.evaluate("() => JSON.stringify({ ...localStorage })")
    page.reload()
    expect(page.get_by_label("Model", exact=True)).to_have_value("freehold-nano")


def test_a_conversation_outlives_a_reload_and_a_new_chat_forgets_it(
    page: Page, stack: Stack
) -> None:
    _open(page, stack)
    _ask(page)
    expect(page.locator("[data-status=done]")).to_have_count(1)
    text = _answer_text(page)
    page.reload()
    assert _answer_text(page) == text
    page.get_by_role("button", name="New chat").click()
    expect(page.locator(".answer")).to_have_count(0)
    page.reload()
    expect(page.get_by_role("heading", name="What would you like to know?")).to_be_visible()


def test_the_language_switches_and_is_remembered(page: Page, stack: Stack) -> None:
    _open(page, stack)
    expect(page.locator("html")).to_have_attribute("lang", "en")
    page.get_by_role("button", name="中文").click()
    expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
    expect(page.get_by_role("heading", name="想了解些什么？")).to_be_visible()
    page.reload()
    expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
    page.get_by_role("button", name="English").click()
    expect(page.locator("html")).to_have_attribute("lang", "en")


def test_a_chinese_browser_is_greeted_in_chinese(browser: Browser, stack: Stack) -> None:
    page = browser.new_page(locale="zh-CN")
    page.goto(f"{stack.url}/#key={stack.api_key}")
    expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
    expect(page.get_by_role("heading", name="想了解些什么？")).to_be_visible()
    page.close()


def _lightness(page: Page) -> float:
    """How light the page's ground is, 0 to 1, as it is really painted."""
    value: float = page.evaluate(
        """() => {
          const context = document.createElement("canvas").getContext("2d");
          context.fillStyle = getComputedStyle(document.documentElement).backgroundColor;
          context.fillRect(0, 0, 1, 1);
          const [r, g, b] = context.getImageData(0, 0, 1, 1).data;
          return (r + g + b) / 765;
        }"""
    )
    return value


def test_dark_follows_the_system_until_a_person_chooses(page: Page, stack: Stack) -> None:
    _open(page, stack)
    assert _lightness(page) > 0.9
    page.emulate_media(color_scheme="dark")
    assert _lightness(page) < 0.2
    page.get_by_role("button", name="Use light colours").click()
    assert _lightness(page) > 0.9
    page.reload()
    assert _lightness(page) > 0.9
    page.get_by_role("button", name="Use dark colours").click()
    assert _lightness(page) < 0.2
    page.emulate_media(color_scheme="light")  # the choice agreed with the system: it is followed
    assert _lightness(page) > 0.9


def test_enter_inside_an_input_method_does_not_send(page: Page, stack: Stack) -> None:
    _open(page, stack)
    box = page.get_by_role("textbox")
    box.focus()
    ime = page.context.new_cdp_session(page)
    ime.send("Input.imeSetComposition", {"text": "ni", "selectionStart": 2, "selectionEnd": 2})
    for fields in ({"isComposing": True}, {"keyCode": 229}):
        box.evaluate(
            """(box, fields) => box.dispatchEvent(new KeyboardEvent(
                 "keydown", { key: "Enter", bubbles: true, cancelable: true, ...fields }))""",
            fields,
        )
    page.wait_for_timeout(200)
    expect(page.locator(".answer")).to_have_count(0)
    ime.send("Input.insertText", {"text": "你好"})
    expect(box).to_have_value("你好")
    box.press("Shift+Enter")
    expect(box).to_have_value("你好\n")
    box.press("Enter")
    expect(box).to_have_value("")
    expect(page.locator(".answer")).to_have_count(1)


def test_html_in_a_message_is_shown_and_never_run(page: Page, stack: Stack) -> None:
    attack = (FIXTURES / "attack.md").read_text()
    _open(page, stack)
    _show_stored(page, _stored_turn(attack, attack))
    answer = page.locator(".answer-text")
    expect(answer).to_contain_text("window.hacked = 'img'")
    expect(page.locator("article").first).to_contain_text("<script>")
    for tag in ("script", "img", "svg[onload]", "iframe", "style", "b"):
        expect(answer.locator(tag)).to_have_count(0)
    assert page.locator(".answer-text a").evaluate_all("all => all.map(a => a.href)") == [
        "https://evil.invalid/pixel.png"
    ]
    page.get_by_text("go", exact=True).click()
    page.wait_for_timeout(300)
    assert page.evaluate("window.hacked") is None


def test_reasoning_is_folded_under_an_answer_and_opens(page: Page, stack: Stack) -> None:
    _open(page, stack)
    _show_stored(page, _stored_turn("q", "The answer.", reasoning="First, let me think."))
    fold = page.get_by_role("button", name="Thought for 4.2 s")
    expect(fold).to_have_attribute("aria-expanded", "false")
    expect(page.get_by_text("First, let me think.")).to_be_hidden()
    fold.press("Enter")
    expect(fold).to_have_attribute("aria-expanded", "true")
    expect(page.get_by_text("First, let me think.")).to_be_visible()


def test_a_code_block_is_copied_as_it_was_written(page: Page, stack: Stack) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    _open(page, stack)
    code = 'def f(x):\n    return "<b>&amp;"  # two'
    _show_stored(page, _stored_turn("q", f"```python\n{code}\n```"))
    page.get_by_role("button", name="Copy code").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == code


def test_a_narrow_telephone_needs_no_sideways_scrolling(page: Page, stack: Stack) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    _open(page, stack)
    wide = "| a | b | c | d |\n|--|--|--|--|\n" + "| " + "wide cell text | " * 4 + "\n\n"
    answer = wide + "```\n" + "x = 1; " * 60 + "\n```\n\n" + "unbroken" * 60
    _show_stored(page, _stored_turn("long" * 100, answer))
    expect(page.locator(".answer-text table")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert page.evaluate("document.querySelector('main > div').scrollWidth") <= 360
    box = page.get_by_role("button", name="Send", exact=True).bounding_box()
    assert box is not None
    assert box["x"] + box["width"] <= 360


def test_the_page_is_served_under_a_strict_content_security_policy(
    page: Page, stack: Stack
) -> None:
    response = page.goto(f"{stack.url}/#key={stack.api_key}")
    assert response is not None
    policy = response.headers["content-security-policy"]
    assert {"default-src 'none'", "script-src 'self'"} <= set(policy.split("; "))
    expect(page.get_by_label("Model", exact=True)).to_have_value("freehold-nano")
