"""The parts of a recording on their way into files: names, and samples beyond full scale."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from sep import audio as recording
from sep.errors import AudioFileError, OptionError
from sep.stream import peak_of


def outputs(
    source: str | Path,
    targets: Sequence[str | Path] | None,
    residual: str | Path | None,
    count: int,
) -> list[Path | None]:
    """Files of `count` targets and the residual, None for what is not written.

    Raises:
        OptionError: no files, too few, or one twice.
        AudioFileError: one of them is the recording or a folder.
    """
    if targets is not None and len(targets) != count:
        raise OptionError(f"{len(targets)} target files for {count} queries; give one for each")
    names = [*(targets or [None] * count), residual]
    paths = [None if name is None else Path(name) for name in names]
    written = [path for path in paths if path is not None]
    if not written:
        raise OptionError("nothing to write: name a target or a residual file")
    if len(set(written)) < len(written):
        raise OptionError(f"{written[0]}: two parts would have this name; name them apart")
    for path in written:
        if path.is_dir():
            raise AudioFileError(f"{path}: is a folder; name a file to write")
        if path.exists() and Path(source).exists() and path.samefile(source):
            raise AudioFileError(
                f"{source}: would be overwritten by its own result; choose another output"
            )
    return paths


def clipped(
    mixture: Tensor, parts: list[Tensor], clip: str, gain: float, subtype: str
) -> list[Tensor]:
    """Targets and residual (C, m) as they are written, see `sep.audio.apply_clip`.

    Where nothing exceeds full scale, no rule changes anything and sums are exact.
    """
    whole = (mixture, *parts, mixture - sum(parts))
    exact = clip == "none" or (gain == 1 and all(peak_of(wave) <= 1 for wave in whole))
    waves, rest = [], mixture
    for part in parts:
        if exact:
            wave, rest = recording.exact_parts(rest, part, subtype)
        else:
            wave, rest = part, rest - part
        waves.append(wave)
    if clip == "rescale":
        return [wave / gain for wave in (*waves, rest)]
    return recording.apply_clip([*waves, rest], clip)
