"""`sep serve`: a page in the browser that separates recordings, on this machine.

What is uploaded and made lies in one temporary folder that is deleted when the server stops.
"""

import argparse
import importlib.util
import signal
import socket
import tempfile
import threading
from pathlib import Path
from typing import Any

from sep.errors import SepError

LOCAL = ("127.0.0.1", "localhost")


def add(commands: Any) -> None:
    """Add the subcommand and its options."""
    parser = commands.add_parser(
        "serve",
        help="a page in the browser to separate recordings with",
        description="Serve a page to separate recordings with. What is uploaded stays on this "
        "machine and is deleted when Ctrl-C stops the server.",
        epilog="needs the ui extra: pip install -e '.[ui]'",
    )
    parser.set_defaults(run=run)
    add = parser.add_argument
    add(
        "--model",
        metavar="DIR",
        help="model folder (default: $SEP_MODEL, or the one that ships)",
    )
    add("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: %(default)s)")
    add("--port", type=_port, default=7860, help="port to listen on (default: %(default)s)")
    add(
        "--host",
        default="127.0.0.1",
        help="address to listen on; 0.0.0.0 lets the network in (default: %(default)s)",
    )
    add(
        "--max-minutes",
        type=_amount,
        default=20.0,
        metavar="MIN",
        help="longest recording (default: %(default)g)",
    )
    add(
        "--max-mb",
        type=_amount,
        default=400.0,
        metavar="MB",
        help="largest file (default: %(default)g)",
    )
    add("--open", action="store_true", help="open the page in the browser")


def run(options: argparse.Namespace) -> int:
    """Load the model once and serve the page until Ctrl-C or a signal to end."""
    if importlib.util.find_spec("gradio") is None:
        raise SepError(
            "sep serve needs gradio; run: pip install -e '.[ui]' in the toolkit's folder"
        )
    _check_free(options.host, options.port)
    from sep.separator import Separator, default_model

    model = Path(options.model or default_model())
    separator = Separator.from_pretrained(model, options.device)
    from sep.web.page import launch
    from sep.web.service import Service

    for name in ("SIGTERM", "SIGHUP"):
        signal.signal(getattr(signal, name), signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="sep-serve-", ignore_cleanup_errors=True) as folder:
        service = Service(separator, Path(folder), options.max_minutes, options.max_mb)
        try:
            page = launch(service, options.host, options.port, options.open)
            print(f"{page.local_url} (model {model}); Ctrl-C stops it", flush=True)
            if options.host not in LOCAL:
                print(f"notice: --host {options.host}: others on the network can use it, too")
            threading.Event().wait()
        except KeyboardInterrupt:
            print("\nstopped; uploads and results are deleted")
        finally:
            service.close()
    return 0


def _check_free(host: str, port: int) -> None:
    """Refuse an address that cannot be listened on, before the model is loaded."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "not the name of a host"
        raise SepError(
            f"cannot listen on {host}:{port} ({reason}); choose another --port or --host"
        ) from None


def _port(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 65_535:
        raise argparse.ArgumentTypeError(f"{text} is not a port from 1 to 65535")
    return int(text)


def _amount(text: str) -> float:
    try:
        amount = float(text)
    except ValueError:
        amount = 0.0
    if not 0 < amount < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return amount
