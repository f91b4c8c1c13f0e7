"""The model card of a model folder: README.md with the front matter that the Hub reads."""

import json
from pathlib import Path
from typing import Any

NAME = "README.md"
MARK = (
    "<!-- Written with the weights and again with the next; a card without this line is kept. -->"
)
TAGS = ["audio-source-separation", "sound-separation", "query-based", "pytorch"]
NON_COMMERCIAL = "CC BY-NC-SA 4.0"
LABELS = 200  # that a card lists at most


def write(
    folder: Path, former: Path, config: dict[str, Any], parameters: int, licence: str
) -> None:
    """Write the card of a new model folder, or take over one of the user's own.

    Args:
        folder: the new model folder.
        former: the folder that it replaces, which need not exist.
        config: what config.json holds.
        parameters: number of weights.
        licence: of the query encoder, empty where none is known.
    """
    own = former / NAME
    if own.is_file() and MARK.encode() not in own.read_bytes():
        (folder / NAME).write_bytes(own.read_bytes())
    else:
        (folder / NAME).write_text(card(config, parameters, licence), encoding="utf-8")


def card(config: dict[str, Any], parameters: int, licence: str = "") -> str:
    """The text of a card; arguments as in `write`."""
    from huggingface_hub import ModelCardData

    if NON_COMMERCIAL in licence:
        terms = {"license": "cc-by-nc-sa-4.0"}
    else:
        terms = {"license": "other", "license_name": "as-the-data-it-was-trained-on"}
    head = ModelCardData(
        **terms, library_name="sep", pipeline_tag="audio-to-audio", tags=TAGS
    ).to_yaml()
    return f"---\n{head}\n---\n{MARK}\n\n" + "\n\n".join(_body(config, parameters, licence)) + "\n"


def _body(config: dict[str, Any], parameters: int, licence: str) -> list[str]:
    model, encoder = config["model"], config.get("encoder") or {}
    grid, known = model.get("spectrogram") or {}, dict(config.get("provenance") or {})
    rate = grid.get("sample_rate", 16_000)
    labels = known.pop("labels", [])
    queries = f"the encoder `{encoder['name']}`" if encoder.get("name") else "an encoder of its own"
    if encoder.get("fingerprint"):
        queries += f" (`{encoder['fingerprint']}`)"
    parts = [
        "# A separator that takes queries",
        "It takes the sound that a text, a recording or a picture names out of a mixture: a U-Net "
        "proposes a mask on the log-frequency spectrogram.",
        "```python\nfrom sep import Separator\n\n"
        'separator = Separator.from_pretrained("this folder")\n'
        'result = separator.separate("street.wav", text="a dog barking")\n```',
        f"- network `{config.get('kind', 'query')}`: {parameters / 1e6:.2f} million weights, width "
        f"{model['width']}, {model['levels']} levels, {model['mask_channels']} maps, "
        f"{grid.get('log_bins', 256)} rows\n"
        f"- sample rate {rate} Hz; what lies above {rate / 2000:g} kHz goes to the residual\n"
        f"- queries of {model['embed_dim']} numbers by {queries}"
        + (f"\n- licence of that encoder: {licence}" if licence else ""),
    ]
    if labels:
        more = f" and {len(labels) - LABELS} more" if len(labels) > LABELS else ""
        named = ", ".join(map(str, labels[:LABELS]))
        parts.append(f"## Trained on\n\n{len(labels)} classes: {named}{more}.")
    if known:
        facts = json.dumps(known, indent=1, ensure_ascii=False)
        parts.append(f"## How it was made\n\n```json\n{facts}\n```")
    return parts
