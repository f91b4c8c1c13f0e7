"""Separations for the page of `sep serve`: checked uploads in; files, a picture and a line out."""

import copy
import math
import re
import shutil
import tempfile
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from encoders.preprocess import PIXEL_LIMIT
from sep import audio as recording
from sep.commands.verdict import ABSENT_DB, ABSENT_SIMILARITY
from sep.device import out_of_memory
from sep.errors import AudioFileError, QueryError, SepError
from sep.figure import Picture
from sep.filenames import shortened
from sep.query import subtract

if TYPE_CHECKING:
    from sep.results import FileSplit
    from sep.separator import Separator

TEXT_LIMIT = 300  # characters
SOUND_LIMIT_S = 60.0  # of an example sound
NO_ROOM = "memory ran out; free some, or start sep serve --device cpu"


class Result(NamedTuple):
    """What `Service.separate` returns: the files of the parts, their picture and what to say."""

    target: Path
    residual: Path
    picture: Path
    message: str


class Service:
    """Separates uploaded files, one at a time, within limits.

    Args:
        separator: the model, loaded once.
        folder: where results go.
        max_minutes: longest recording.
        max_mb: largest file.
    """

    def __init__(
        self, separator: "Separator", folder: Path, max_minutes: float = 20, max_mb: float = 400
    ):
        self.separator, self.folder = separator, folder
        self.apart = copy.copy(separator)  # the same model, with a mask for each channel
        self.apart.each_channel = True
        self.max_minutes, self.max_mb = max_minutes, max_mb
        self.busy, self.closed = threading.Lock(), threading.Event()

    def separate(
        self,
        source: str | Path | None,
        text: str | None = None,
        sound: str | Path | None = None,
        image: str | Path | None = None,
        negative: str | None = None,
        refine: bool | None = None,
        each_channel: bool = False,
        progress: Callable[[float, str], None] = lambda share, doing: None,
    ) -> Result:
        """Separate a recording.

        Args:
            source: the recording.
            text: what to look for in words.
            sound: a recording of such a sound.
            image: a picture of what makes it.
            negative: what is not wanted, in words.
            refine: as in `sep.separator.Separator.separate`.
            each_channel: as of `sep.separator.Separator`.
            progress: called with the share that is done and what is being done; what it raises
                ends the work, and nothing is kept.

        Raises:
            SepError: something that cannot be used, in one line with file names without folders.
        """
        home = Path(tempfile.mkdtemp(dir=self.folder))
        try:
            with self.busy, warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                asked = text, sound, image, negative
                result = self._separate(home, source, asked, refine, each_channel, progress)
        except BaseException as error:
            shutil.rmtree(home, ignore_errors=True)
            if isinstance(error, SepError):
                raise type(error)(self._without_folders(str(error))) from None
            if out_of_memory(error):
                raise SepError(NO_ROOM) from None
            raise
        notices = dict.fromkeys(str(w.message) for w in said if w.category is UserWarning)
        told = [result.message, *(f"Notice: {self._without_folders(n)}." for n in notices)]
        return result._replace(message=" ".join(told))

    def _without_folders(self, line: str) -> str:
        return re.sub(rf"{re.escape(str(self.folder))}/[^/]*/", "", line)

    def close(self) -> None:
        """End the work that is going on, and wait until it has ended."""
        self.closed.set()
        with self.busy:
            pass

    def _separate(
        self,
        home: Path,
        source: str | Path | None,
        asked: tuple,
        refine: bool | None,
        each_channel: bool,
        progress: Callable[[float, str], None],
    ) -> Result:
        def step(share: float, doing: str) -> None:
            if self.closed.is_set():
                raise SepError("the server is stopping")
            progress(share, doing)

        step(0, "reading")
        if not source:
            raise AudioFileError("no recording yet: drop a file, record one or take an example")
        source = Path(source)
        head = self._check_sound(source, 60 * self.max_minutes, "start with a higher --max-minutes")
        query = self._query(*asked)
        stem = shortened(source.stem, ".residual.wav")
        parts = [home / f"{stem}.{part}.wav" for part in ("target", "residual")]
        if refine is None:
            refine = self.separator.refines
        picture = Picture(self.separator.model, ["target"], query[None], refine)
        found = (self.apart if each_channel else self.separator).split_file(
            source,
            parts[:1],
            parts[1],
            queries=[query],
            refine=refine,
            subtype=recording.kept_subtype(head.subtype, parts[0]),
            progress=lambda done, total: step(0.95 * done / total, "separating"),
            ears=picture.ears,
        )
        step(0.95, "drawing")
        drawn = home / f"{stem}.png"
        picture.write(drawn)
        step(1, "done")
        return Result(*parts, drawn, describe(found))

    def _query(
        self,
        text: str | None,
        sound: str | Path | None,
        image: str | Path | None,
        negative: str | None,
    ) -> Tensor:
        """The query (D,); empty fields are left out."""
        text, negative = (text or "").strip(), (negative or "").strip()
        for words in (text, negative):
            if len(words) > TEXT_LIMIT:
                raise QueryError(
                    f"the words are {len(words)} characters long; use at most {TEXT_LIMIT}"
                )
        if not (text or sound or image):
            raise QueryError("nothing to look for yet: give words, an example sound or a picture")
        if sound:
            self._check_sound(Path(sound), SOUND_LIMIT_S, "cut out the sound to look for")
        if image:
            self._check_image(Path(image))
        query = self.separator.query(text=text or None, audio=sound or None, image=image or None)
        # negative words go by `text`: as `negative` they could name a file of this machine
        return subtract(query, self.separator.query(text=negative)) if negative else query

    def _check_sound(self, path: Path, longest_s: float, advice: str) -> recording.AudioInfo:
        self._check_size(path)
        head = recording.info(path, longest_s + 1)
        if head.duration_s > longest_s:
            raise AudioFileError(
                f"{path}: lasts longer than the {_duration(longest_s)} allowed here; {advice}"
            )
        return head

    def _check_image(self, path: Path) -> None:
        from PIL import Image

        self._check_size(path)
        try:
            with Image.open(path) as picture:
                width, height = picture.size
        except Image.DecompressionBombError:
            raise QueryError(f"{path}: has too many pixels; make the picture smaller") from None
        except (OSError, ValueError, SyntaxError):
            raise QueryError(f"{path}: not a readable picture; give a PNG or JPEG") from None
        if width * height > PIXEL_LIMIT:
            raise QueryError(
                f"{path}: has {width} x {height} pixels, more than {PIXEL_LIMIT // 10**6} million; "
                "make the picture smaller"
            )

    def _check_size(self, path: Path) -> None:
        megabytes = path.stat().st_size / 1e6 if path.exists() else 0
        if megabytes > self.max_mb:
            raise SepError(
                f"{path}: has {megabytes:.0f} MB, more than the {self.max_mb:g} MB allowed here; "
                "start with a higher --max-mb"
            )


def describe(found: "FileSplit") -> str:
    """One line on a separation: how near recording and target are to the query."""
    before, after, level_db = (
        found.mixture_similarities[0],
        found.similarities[0],
        found.levels_db[0],
    )
    if math.isnan(before):
        return "The recording is silent, and so are both parts."
    line = f"Done. Similarity to the query: recording {before:.2f}"
    if level_db < ABSENT_DB or math.isnan(after):
        return f"{line}. The sound was hardly found ({level_db:.0f} dB of the recording)."
    line += f", target {after:.2f} (1 is the same)."
    if after < ABSENT_SIMILARITY:
        line += " The sound may not be in the recording."
    return line


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds > 90 else f"{seconds:.0f} s"
