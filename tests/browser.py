"""A headless Chromium that uses the page, served from this machine; and what is missing where there is none."""

import contextlib
import functools
import http.server
import importlib.util
import shutil
import threading

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def missing():
    """What keeps the page from being used here, in words, or None."""
    if importlib.util.find_spec("playwright") is None:
        return "there is no Playwright: pip install -e '.[page]'"
    return None if CHROMIUM else "there is no Chromium: apt-get install chromium"


@contextlib.contextmanager
def chromium():
    """A browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextlib.contextmanager
def served(folder):
    """The address of a server on this machine that serves a folder."""
    handler = functools.partial(Silent, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


class Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *words):
        """Nothing."""


def opened(browser, address, **options):
    """The page, ready. Its `requests` are the addresses that it asked for, its `complaints` what it wrote or raised."""
    page = browser.new_context(**options).new_page()
    page.set_default_timeout(120_000)
    page.requests, page.complaints = [], []
    page.on("request", lambda request: page.requests.append(request.url))
    page.on("console", lambda message: page.complaints.append(message.text))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.goto(address)
    page.wait_for_selector("body[data-ready], #status.failed")
    assert page.evaluate("document.body.dataset.ready"), page.inner_text("#status")
    return page


def run_to_its_end(page, panel):
    """Press a panel's Go and wait until it can be pressed again."""
    page.click(f"#{panel} .go")
    page.wait_for_selector(f"#{panel} .go:not(:disabled)")


def grey_levels(page, canvas):
    """What a canvas shows, as rows of grey levels."""
    return page.evaluate(
        """id => { const canvas = document.getElementById(id), { width, height } = canvas;
        const data = canvas.getContext("2d").getImageData(0, 0, width, height).data;
        return Array.from({ length: height }, (_, y) => Array.from({ length: width }, (_, x) => data[4 * (y * width + x)])); }""",
        canvas,
    )
