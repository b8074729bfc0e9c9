"""Retakes docs/page.png: the page on the shipped model, as `make up` starts it.

python tests/e2e/take_screenshot.py OUT.png [--dark] [--lang zh-CN]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).parent))
from conftest import start_stack, stop_stack

QUESTIONS = {
    "en-US": ["Hello", "What is Freehold?", "Who are you?"],
    "zh-CN": ["你好，你是谁？", "Freehold 是什么？"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out")
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--lang", default="en-US", choices=QUESTIONS)
    args = parser.parse_args()
    stack = start_stack(Path(tempfile.mkdtemp()))
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path="/usr/bin/chromium", args=["--no-sandbox"]
            )
            page = browser.new_page(
                viewport={"width": 1100, "height": 780},
                locale=args.lang,
                color_scheme="dark" if args.dark else "light",
            )
            page.goto(f"{stack.url}/#key={stack.api_key}")
            for question in QUESTIONS[args.lang]:
                page.get_by_role("textbox").fill(question)
                page.keyboard.press("Enter")
                page.wait_for_timeout(4000)
            page.screenshot(path=args.out)
            browser.close()
    finally:
        stop_stack(stack)


if __name__ == "__main__":
    main()
