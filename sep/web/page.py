"""The page of `sep serve`, made of Gradio's parts; it asks for nothing from outside."""

import functools
import html
import os
import threading
import traceback
from pathlib import Path
from typing import Any

import gradio
from starlette.middleware import Middleware

from sep.commands.serve import LOCAL
from sep.errors import SepError
from sep.web.examples import write_examples
from sep.web.guard import LocalOnly
from sep.web.service import Service

KEPT_S = 24 * 3600  # files are deleted after this time where the page stays up
WAITING = 8  # separations that may queue up
STYLE = """
.gradio-container {max-width: 1120px !important; margin: auto}
.message {min-height: 5em}
.message p {padding: .6em .9em; border-left: 4px solid #9ca3af; border-radius: 0 8px 8px 0}
.message .fine {border-color: #15803d; background: #15803d1a}
.message .fault {border-color: #b91c1c; background: #b91c1c1a}
"""

# Tells screen readers which input a button belongs to, of inputs that appear later, too; and has
# the microphone recorded as it is: browsers clean it for speech, which takes other sounds away.
ON_LOAD = """() => {
  const name = () => document.querySelectorAll("[data-testid=block-label]").forEach((label) => {
    const block = label.closest(".block");
    block.setAttribute("role", "group");
    block.setAttribute("aria-label", label.innerText.trim());
  });
  name();
  new MutationObserver(name).observe(document.body, {childList: true, subtree: true});
  const devices = navigator.mediaDevices;
  if (!devices) return;
  const ask = devices.getUserMedia.bind(devices);
  const plain = {echoCancellation: false, noiseSuppression: false, autoGainControl: false};
  devices.getUserMedia = (wanted) => ask({...wanted, audio: {...wanted.audio, ...plain}});
}"""


def launch(service: Service, host: str, port: int, browser: bool = False) -> gradio.Blocks:
    """Start serving the page in a thread, offline and without Gradio's own extras."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = str(service.folder)
    # Gradio calls its own page once; a proxy must not be asked for it
    others = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
    os.environ["no_proxy"] = ",".join(filter(None, (others, host, "localhost")))
    page = build_page(service)
    page.queue(default_concurrency_limit=1, max_size=WAITING)
    try:
        page.launch(
            server_name=host,
            server_port=port,
            inbrowser=browser,
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            enable_monitoring=False,
            run_history=False,
            app_kwargs={"middleware": [Middleware(LocalOnly)]} if host in LOCAL else {},
            footer_links=[],
            max_file_size=round(service.max_mb * 2**20),
            theme=gradio.themes.Default(
                primary_hue="teal",
                font=["system-ui", "sans-serif"],
                font_mono=["ui-monospace", "monospace"],
            ).set(
                button_primary_background_fill="*primary_700",
                button_primary_background_fill_hover="*primary_800",
                block_info_text_color="*neutral_600",
                block_info_text_color_dark="*neutral_300",
            ),
            css=STYLE,
            js=ON_LOAD,
        )
    except (OSError, ValueError) as error:
        raise SepError(f"the page cannot be served on {host}:{port} ({error})") from None
    return page


def build_page(service: Service) -> gradio.Blocks:
    """The page: what is asked on the left, what was found on the right (below, where narrow)."""
    stops: dict[str, threading.Event] = {}  # of each open page

    def begin(request: gradio.Request) -> tuple:
        stops[request.session_hash] = threading.Event()
        return gradio.update(interactive=False), gradio.update(interactive=True), ""

    def cancel(request: gradio.Request) -> None:
        stops.setdefault(request.session_hash, threading.Event()).set()

    def leave(request: gradio.Request) -> None:
        stops.pop(request.session_hash, threading.Event()).set()

    def work(
        recording: dict | None,
        text: str | None,
        sound: dict | None,
        image: dict | None,
        negative: str | None,
        refine: bool | None,
        apart: bool | None,
        request: gradio.Request,
        show: gradio.Progress = gradio.Progress(),  # noqa: B008  (how Gradio hands it over)
    ) -> tuple:
        stop = stops.setdefault(request.session_hash, threading.Event())

        def progress(share: float, doing: str) -> None:
            if stop.is_set():
                raise SepError("cancelled; nothing was kept")
            show(share, desc=doing)

        try:
            files = [_uploaded(service.folder, item) for item in (recording, sound, image)]
            asked = text, *files[1:], negative, bool(refine), bool(apart)
            result = service.separate(files[0], *asked, progress)
        except SepError as error:
            return failed(str(error))
        except Exception as error:
            traceback.print_exc()
            kind = type(error).__name__
            return failed(f"this failed unexpectedly ({kind}); see the server's terminal")
        target, residual, picture = (str(path) for path in result[:3])
        return (
            _message(result.message, "fine"),
            gradio.update(visible=True),
            *(target, target, residual, residual),
            gradio.update(value=picture, visible=True),
        )

    def failed(line: str) -> tuple:
        hidden = gradio.update(visible=False)
        return _message(line, "fault"), hidden, *[None] * 4, hidden

    def finish() -> tuple:
        return gradio.update(interactive=True), gradio.update(interactive=False)

    def reveal(sound: dict | None) -> Any:
        return gradio.update(open=True) if sound else gradio.skip()

    audio = functools.partial(gradio.Audio, type="filepath", editable=False, buttons=[])
    with gradio.Blocks(title="sep", analytics_enabled=False, delete_cache=(3600, KEPT_S)) as page:
        gradio.Markdown(
            "# Take any sound out of a recording\n"
            "Say what to look for, play an example of it or show a picture, or all of them. "
            f"Recordings up to {service.max_minutes:g} minutes and {service.max_mb:g} MB; "
            "they stay with the server, which deletes them when it stops."
        )
        with gradio.Row():
            with gradio.Column(min_width=300):
                recording = audio(label="Recording")
                text = gradio.Textbox(label="What to take out", placeholder="a dog barking")
                refine = gradio.Checkbox(
                    label="Refine",
                    value=service.separator.refines,
                    info="Finds more of the sound in most recordings; takes about twice as long.",
                )
                apart = gradio.Checkbox(
                    label="Each channel by itself",
                    info="For sounds that lie in different channels; takes two to three times as "
                    "long. The picture shows the mask of their middle.",
                )
                with gradio.Accordion("Example sound, picture, not wanted", open=False) as more:
                    sound = audio(label="Example of the sound")
                    image = gradio.Image(
                        label="Picture of what makes it",
                        sources=["upload", "clipboard"],
                        type="filepath",
                        height=200,
                        buttons=[],
                    )
                    negative = gradio.Textbox(label="Not wanted", placeholder="traffic")
                examples = write_examples(service.folder)
                # where files are deleted after a time, these stay
                recording.keep_in_cache |= {row[0] for row in examples.values()}
                sound.keep_in_cache |= {row[2] for row in examples.values() if row[2]}
                gradio.Examples(
                    list(examples.values()),
                    inputs=[recording, text, sound],
                    example_labels=list(examples),
                    label="Try one of these, made by formula",
                )
                with gradio.Row():
                    start = gradio.Button("Separate", variant="primary", min_width=120)
                    stop = gradio.Button("Cancel", interactive=False, min_width=120)
            with gradio.Column(min_width=300):
                message = gradio.HTML(
                    _message("The sound and everything else will be here.", "idle"),
                    elem_classes="message",
                )
                with gradio.Column(visible=False) as results:
                    target = audio(label="Target: the sound", interactive=False)
                    residual = audio(label="Residual: everything else", interactive=False)
                    with gradio.Row():
                        save_target = gradio.DownloadButton("Download target", min_width=120)
                        save_residual = gradio.DownloadButton("Download residual", min_width=120)
        picture = gradio.Image(
            label="Spectrograms",
            show_label=False,
            interactive=False,
            visible=False,
            buttons=[],
            alt_text="Spectrograms of the recording and of the target, and the mask between them",
        )
        asked = [recording, text, sound, image, negative, refine, apart]
        found = [message, results, target, save_target, residual, save_residual, picture]
        buttons = [start, stop]
        started = start.click(begin, None, [*buttons, message], queue=False)
        worked = started.then(
            work, asked, found, preprocess=False, show_progress_on=message, concurrency_limit=1
        )
        worked.then(finish, None, buttons, queue=False)
        stop.click(cancel, queue=False)
        sound.change(reveal, sound, more, queue=False, preprocess=False)
        page.unload(leave)
    return page


def _uploaded(folder: Path, item: dict | None) -> str | None:
    """The file of an input; a request can name any file, and only those of the page are taken."""
    if not item:
        return None
    path = Path(item["path"]).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise SepError(f"{path.name}: not uploaded here; drop it on the page")
    return str(path)


def _message(text: str, kind: str) -> str:
    """A line for the page; `kind` is its class: idle, fine or fault."""
    role = "alert" if kind == "fault" else "status"
    return f'<p class="{kind}" role="{role}">{html.escape(text)}</p>'
