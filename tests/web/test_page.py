"""`sep serve` as its users meet it: a page in a browser, one line where it cannot be served."""

import http.client
import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from sep import cli

ROOT = Path(cli.__file__).parents[1]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
REQUIRED = os.environ.get("SEP_BROWSER") == "1"  # what is missing fails
needs_gradio = pytest.mark.skipif(
    not REQUIRED and importlib.util.find_spec("gradio") is None,
    reason="gradio is not installed (extra ui)",
)
needs_browser = pytest.mark.skipif(
    not REQUIRED and (CHROMIUM is None or importlib.util.find_spec("playwright") is None),
    reason="chromium (apt-get install chromium) or playwright (extra dev) is not installed",
)
WAIT_MS = 90_000  # of a busy machine
LIMITS = ("--max-minutes", "20", "--max-mb", "25")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture(scope="module")
def server(model_dir, tmp_path_factory):
    """A server of its own process: its address, the process and its temporary folder."""
    home, port = tmp_path_factory.mktemp("serve"), free_port()
    command = [sys.executable, "-m", "sep.cli", "serve", "--port", str(port), *LIMITS]
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "SEP_MODEL": str(model_dir),
        "TMPDIR": str(home),
    }
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )
    first = process.stdout.readline()
    assert first.startswith(f"http://127.0.0.1:{port}/ "), first + process.stdout.read()
    yield f"http://127.0.0.1:{port}", process, home
    process.kill()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A browser whose microphone hears noise of one level."""
    from playwright.sync_api import sync_playwright

    heard = tmp_path_factory.mktemp("microphone") / "noise.wav"
    soundfile.write(heard, 0.1 * np.random.default_rng(0).standard_normal(3 * 44_100), 44_100)
    options = ["--no-sandbox", "--use-fake-device-for-media-stream"]
    options += [f"--use-file-for-fake-audio-capture={heard}"]
    with sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=CHROMIUM, args=options)
        yield running
        running.close()


@pytest.fixture
def page(server, browser):
    """The page, freshly opened, with the addresses it asked for in `page.asked`."""
    page = browser.new_page(permissions=["microphone"])
    page.set_default_timeout(WAIT_MS)
    page.asked = []
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(server[0])
    page.get_by_role("group", name="Recording").wait_for()
    yield page
    page.close()


def upload(page, name: str, path: Path) -> None:
    group = page.get_by_role("group", name=name)
    group.locator("input[type=file]").set_input_files(path)
    group.get_by_role("button", name="Clear").wait_for()


def answer(page) -> str:
    page.get_by_role("button", name="Separate").click()
    line = page.locator(".message .fine, .message .fault")
    line.wait_for()
    return line.inner_text()


def save(page, name: str, folder: Path, stem: str = "street") -> np.ndarray:
    with page.expect_download() as caught:
        page.get_by_role("button", name=f"Download {name}").click()
    caught.value.save_as(folder / caught.value.suggested_filename)
    assert caught.value.suggested_filename == f"{stem}.{name}.wav"
    return soundfile.read(folder / caught.value.suggested_filename, dtype="int16")[0]


@needs_gradio
@needs_browser
def test_a_recording_goes_in_and_two_parts_that_add_up_come_out(page, make_wav, tmp_path):
    source = make_wav("street.wav", 2.0, 44_100, channels=2)
    upload(page, "Recording", source)
    page.get_by_label("What to take out").fill("a bell")
    assert answer(page).startswith("Done. Similarity to the query: recording ")
    parts = [save(page, name, tmp_path) for name in ("target", "residual")]
    assert parts[0].any() and parts[1].any()
    np.testing.assert_array_equal(parts[0] + parts[1], soundfile.read(source, dtype="int16")[0])
    picture = page.get_by_role("img", name="Spectrograms of the recording")
    picture.wait_for()
    assert picture.evaluate("image => image.naturalWidth") > 300
    asked = [url for url in page.asked if not url.startswith(("data:", "blob:"))]
    assert asked and all(url.startswith("http://127.0.0.1:") for url in asked)


@needs_gradio
@needs_browser
def test_queries_are_refined_where_that_is_ticked(page, separator, make_wav, tmp_path):
    source = make_wav("street.wav", 2.0)
    upload(page, "Recording", source)
    page.get_by_label("What to take out").fill("rain on a roof")
    page.get_by_label("Refine").check()
    assert answer(page).startswith("Done. ")
    found = save(page, "target", tmp_path) / 2**15
    plain, refined = (
        separator.separate(source, text="rain on a roof", refine=refine).target[0].numpy()
        for refine in (False, True)
    )
    assert np.abs(found - refined).max() < 1e-4 < np.abs(found - plain).max()


@needs_gradio
@needs_browser
def test_each_channel_has_its_mask_where_that_is_ticked(page, separator, make_wav, tmp_path):
    source = make_wav("street.wav", 2.0, channels=2)
    upload(page, "Recording", source)
    page.get_by_label("What to take out").fill("a bell")
    page.get_by_label("Each channel by itself").check()
    assert answer(page).startswith("Done. ")
    found = save(page, "target", tmp_path).T / 2**15
    left = soundfile.read(source)[0][:, 0]
    alone = separator.separate(left, 16_000, text="a bell").target
    together = separator.separate(source, text="a bell").target.numpy()
    assert np.abs(found[0] - alone).max() < 1e-4 < np.abs(found - together).max()


@needs_gradio
@needs_browser
def test_what_the_microphone_hears_is_separated_as_it_is(page, tmp_path):
    group = page.get_by_role("group", name="Recording")
    group.get_by_role("button", name="Record audio").click()
    group.get_by_role("button", name="Record", exact=True).click()
    group.get_by_role("button", name="Stop", exact=True).wait_for()
    page.wait_for_timeout(2000)
    group.get_by_role("button", name="Stop", exact=True).click()
    group.get_by_role("button", name="Play", exact=True).wait_for()
    page.get_by_label("What to take out").fill("a bell")
    assert answer(page).startswith("Done. ")
    parts = [save(page, name, tmp_path, stem="audio") for name in ("target", "residual")]
    wave = (parts[0] + parts[1]).reshape(len(parts[0]), -1)[:, 0] / 2**15
    assert 1.5 < len(wave) / 44_100 < 10 and parts[0].any()
    levels = [piece.std() for piece in np.array_split(wave, 8)[1:-1]]
    assert min(levels) > 0.05 and max(levels) < 1.2 * min(levels)  # nothing took noise away


@needs_gradio
@needs_browser
def test_an_example_asks_by_a_sound(page):
    page.get_by_role("button", name="the drums, by the sound of one").click()
    for name in ("Recording", "Example of the sound"):
        page.get_by_role("group", name=name).get_by_role("button", name="Clear").wait_for()
    assert answer(page).startswith("Done. ")


@needs_gradio
@needs_browser
def test_a_picture_asks_and_what_is_not_wanted_is_taken_away(page, make_wav, tmp_path):
    Image.new("RGB", (64, 64), "red").save(tmp_path / "bell.png")
    upload(page, "Recording", make_wav("street.wav", 1.0))
    page.get_by_role("button", name="Example sound, picture, not wanted").click()
    group = page.get_by_role("group", name="Picture of what makes it")
    group.locator("input[type=file]").set_input_files(tmp_path / "bell.png")
    group.get_by_role("img").first.wait_for()
    page.get_by_label("Not wanted").fill("rain")
    assert answer(page).startswith("Done. Similarity to the query: recording ")


@needs_gradio
@needs_browser
def test_long_work_shows_how_far_it_is_and_can_be_cancelled(page, make_wav):
    upload(page, "Recording", make_wav("street.wav", 600.0))
    page.get_by_label("What to take out").fill("a bell")
    page.get_by_role("button", name="Separate").click()
    page.get_by_text(re.compile(r"separat.*\d", re.IGNORECASE)).first.wait_for()
    page.get_by_role("button", name="Cancel").click()
    line = page.locator(".message .fault")
    line.wait_for()
    assert line.inner_text() == "cancelled; nothing was kept"
    assert not page.get_by_role("button", name="Download target").is_visible()
    page.get_by_role("button", name="Separate", exact=True).wait_for()


@needs_gradio
@needs_browser
def test_limits_of_length_and_size_are_told(page, make_wav):
    upload(page, "Recording", make_wav("long.wav", 1201.0, 200))
    page.get_by_label("What to take out").fill("a bell")
    assert "long.wav" in (said := answer(page)) and "the 20.0 min allowed" in said
    group = page.get_by_role("group", name="Recording")
    group.get_by_role("button", name="Clear").click()
    group.locator("input[type=file]").set_input_files(make_wav("large.wav", 300.0, 48_000))
    page.get_by_text("exceed the maximum allowed size of 25").wait_for()


@needs_gradio
@needs_browser
def test_a_bad_file_is_one_line_on_the_page(page, tmp_path):
    (tmp_path / "notes.wav").write_text("hello")
    upload(page, "Recording", tmp_path / "notes.wav")
    page.get_by_label("What to take out").fill("a bell")
    assert answer(page).startswith("notes.wav: not a readable recording")
    assert not page.get_by_role("button", name="Download target").is_visible()
    assert page.get_by_role("button", name="Separate").is_enabled()


@needs_gradio
@needs_browser
def test_a_narrow_window_needs_no_sideways_scrolling(page):
    page.set_viewport_size({"width": 360, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


@needs_gradio
@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, 200),
        ({"Host": "localhost:7860", "Origin": "http://127.0.0.1:7860"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "evil.example:7860", "Origin": "http://evil.example:7860"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://[localhost"}, 403),
    ],
)
def test_only_pages_of_this_machine_are_served(server, headers, code):
    connection = http.client.HTTPConnection(server[0].removeprefix("http://"), timeout=30)
    connection.request("GET", "/config", headers=headers)
    assert connection.getresponse().status == code
    connection.close()


@needs_gradio
def test_examples_outlive_what_is_deleted_after_a_time(separator, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    from gradio import Audio
    from gradio.route_utils import delete_files_created_by_app

    from sep.web.page import build_page
    from sep.web.service import Service

    page = build_page(Service(separator, tmp_path))
    other = tmp_path / "other.wav"
    other.touch()
    examples = sorted(tmp_path.glob("examples/*.wav"))
    recording = next(block for block in page.blocks.values() if isinstance(block, Audio))
    for path in (*examples, other):  # what showing a file in the page does
        recording.move_resource_to_block_cache(path)
    delete_files_created_by_app(page, None)
    assert len(examples) == 3 and sorted(tmp_path.glob("examples/*.wav")) == examples
    assert not other.exists()


@needs_gradio
def test_a_signal_ends_it_and_deletes_its_files(server):
    _, process, home = server
    assert list(home.glob("sep-serve-*/examples/*.wav"))
    process.send_signal(signal.SIGTERM)
    assert "stopped" in process.communicate(timeout=60)[0]
    assert process.returncode == 0 and not list(home.glob("sep-serve-*"))


@needs_gradio
def test_a_port_in_use_is_told_before_the_model_is_loaded(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert cli.main(["serve", "--port", str(port), "--model", "gone"]) == 2
    error = capsys.readouterr().err
    assert f"cannot listen on 127.0.0.1:{port}" in error and error.count("\n") == 1


@needs_gradio
def test_a_host_that_is_no_name_is_one_line(capsys):
    assert cli.main(["serve", "--host", "h" * 70, "--model", "gone"]) == 2
    error = capsys.readouterr().err
    assert "cannot listen on hhh" in error and error.count("\n") == 1


@needs_gradio
def test_a_missing_model_is_one_line(capsys):
    assert cli.main(["serve", "--port", str(free_port()), "--model", "gone"]) == 2
    assert capsys.readouterr().err.startswith("error: gone: no such model folder")


def test_a_missing_gradio_is_one_line_with_the_way_to_it(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert cli.main(["serve"]) == 2
    error = capsys.readouterr().err
    assert "pip install -e '.[ui]'" in error and error.count("\n") == 1


@pytest.mark.parametrize("option", ["--port=0", "--port=x", "--max-minutes=0", "--max-mb=nan"])
def test_wrong_numbers_are_refused(option):
    with pytest.raises(SystemExit) as caught:
        cli.main(["serve", option])
    assert caught.value.code == 2
