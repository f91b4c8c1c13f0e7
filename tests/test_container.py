"""Sound and pictures that come through ffmpeg."""

import subprocess

import numpy as np
import pytest
import torch

from sep import audio, container
from sep.errors import AudioFileError

try:
    PROGRAM = container.ffmpeg()
except AudioFileError:
    PROGRAM = ""
needs_ffmpeg = pytest.mark.skipif(not PROGRAM, reason="ffmpeg is not installed")


def make(path, *options: str):
    """Write a file with ffmpeg from its own test signals."""
    command = [PROGRAM, "-v", "error", "-y"]
    subprocess.run([*command, *" ".join(options).split(), str(path)], check=True)
    return path


TONE = "-f lavfi -i sine=440:r=44100:d=1.5 -ac 2"


@needs_ffmpeg
@pytest.mark.parametrize("name", ["x.m4a", "x.mkv", "x.aac", "x.mp4"])
def test_sound_of_containers_is_read_as_it_was(tmp_path, name):
    path = make(tmp_path / name, TONE, "-c:a aac -b:a 128k")
    head = audio.info(path)
    assert (head.sample_rate, head.channels, head.subtype) == (44_100, 2, "FLOAT")
    assert abs(head.duration_s - 1.5) < 0.05
    wave, _ = audio.read(path)
    assert wave.shape == (2, head.frames)
    spectrum = torch.fft.rfft(wave[0, :44_100]).abs()
    assert abs(int(spectrum.argmax()) - 440) <= 1
    part, _ = audio.read(path, 0.5, 0.25)
    assert torch.equal(part, wave[:, 22_050 : 22_050 + 11_025])
    assert abs(audio.info(path, longest_s=0.5).frames - 22_050) < 2048
    assert audio.info(path, longest_s=5.0) == head
    blocks = list(audio.blocks(path, size=1000))
    assert torch.equal(torch.cat(blocks, -1), wave) and max(b.shape[-1] for b in blocks) == 1000
    at_once, rate = container.samples(path)
    assert rate == 44_100 and torch.equal(torch.from_numpy(at_once).T, wave)
    assert abs(len(container.samples(path, 0.5)[0]) - 22_050) < 2048


@needs_ffmpeg
def test_lossless_sound_comes_exactly(tmp_path, make_wav):
    source = make_wav(rate=48_000, channels=2)
    path = make(tmp_path / "x.mkv", f"-i {source} -c:a flac")
    assert torch.equal(audio.read(path)[0], audio.read(source)[0])


@needs_ffmpeg
@pytest.mark.parametrize("coding", ["-q:a 4", "-b:a 96k"])
def test_an_mp3_that_does_not_say_how_long_it_is_is_read_to_its_end(tmp_path, coding):
    quiet = "-f lavfi -i anoisesrc=r=44100:d=20:a=0.3,volume='if(lt(t,2),1,0.001)':eval=frame"
    path = make(tmp_path / "x.mp3", quiet, f"-c:a libmp3lame {coding} -write_xing 0")
    wave, rate = audio.read(path)
    assert abs(wave.shape[-1] / rate - 20) < 0.1 and audio.info(path).frames == wave.shape[-1]


@needs_ffmpeg
def test_a_container_is_known_by_its_first_bytes_too(tmp_path):
    path = make(tmp_path / "x.m4a", TONE).rename(tmp_path / "x.wav")
    assert audio.info(path).channels == 2


@needs_ffmpeg
def test_the_frame_of_a_video(tmp_path):
    colours = "-f lavfi -i color=red:s=32x24:d=1:r=10 -f lavfi -i color=blue:s=32x24:d=1:r=10"
    path = make(tmp_path / "x.mp4", colours, "-filter_complex concat=n=2 -pix_fmt yuv420p")
    for at, dominant in ((0.0, 0), (0.00001, 0), (1.5, 2)):
        picture = np.asarray(container.picture(path, at).convert("RGB"))
        assert picture.shape == (24, 32, 3) and picture.mean((0, 1)).argmax() == dominant
    with pytest.raises(AudioFileError, match="no picture at 9 s"):
        container.picture(path, 9)
    with pytest.raises(AudioFileError, match="has no sound track"):
        audio.info(path)


@needs_ffmpeg
def test_what_is_no_recording_is_refused_in_one_line(tmp_path):
    good = make(tmp_path / "x.m4a", TONE).read_bytes()
    make_list = b"#EXTM3U\n#EXTINF:1,\nx.m4a\n#EXT-X-ENDLIST\n"  # would read another file
    for name, content in (("a", b"hello"), ("b", good[:2000]), ("c", make_list), ("d", b"\0" * 99)):
        path = tmp_path / f"{name}.mp4"
        path.write_bytes(content)
        with pytest.raises(AudioFileError, match=f"{name}.mp4: not a readable") as caught:
            audio.info(path)
        assert "\n" not in str(caught.value)


def test_without_ffmpeg_the_way_to_it_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(container, "which", lambda name: None)
    monkeypatch.setitem(__import__("sys").modules, "imageio_ffmpeg", None)
    (tmp_path / "x.m4a").write_bytes(b"something")
    with pytest.raises(AudioFileError, match=r"x\.m4a: ffmpeg is needed .*pip install"):
        audio.info(tmp_path / "x.m4a")
