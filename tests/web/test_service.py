"""What the page of `sep serve` does with files and words, without the page."""

import numpy as np
import pytest
import soundfile
from PIL import Image

from sep.errors import SepError
from sep.web.examples import write_examples
from sep.web.service import TEXT_LIMIT, Service


@pytest.fixture
def service(separator, tmp_path) -> Service:
    (tmp_path / "results").mkdir()
    return Service(separator, tmp_path / "results", max_minutes=0.1, max_mb=1)


def refusal(service, *arguments, **options) -> str:
    with pytest.raises(SepError) as caught:
        service.separate(*arguments, **options)
    line = str(caught.value)
    assert "\n" not in line and len(line) < 300 and str(service.folder) not in line
    assert not list(service.folder.iterdir())
    return line


def test_parts_add_up_and_the_picture_is_one(service, make_wav):
    source = make_wav("mix.wav", 1.5, 44_100, channels=2)
    shares = []
    result = service.separate(source, "a bell", progress=lambda share, doing: shares.append(share))
    parts = [soundfile.read(path, dtype="int16")[0] for path in (result.target, result.residual)]
    np.testing.assert_array_equal(parts[0] + parts[1], soundfile.read(source, dtype="int16")[0])
    assert result.target.name == "mix.target.wav" and "Similarity to the query" in result.message
    assert shares == sorted(shares) and shares[0] == 0 and shares[-1] == 1
    with Image.open(result.picture) as picture:
        assert min(picture.size) > 200


def test_every_kind_of_query_and_their_mix_change_the_result(service, make_wav, tmp_path):
    source, picture = make_wav(), tmp_path / "bell.png"
    bell = make_wav("bell.wav", 0.5, 44_100)
    Image.new("RGB", (40, 30), "gold").save(picture)
    asked = [
        {"text": "a bell"},
        {"sound": bell},
        {"image": picture},
        {"text": "a bell", "sound": bell, "image": picture},
        {"text": "a bell", "negative": "wind"},
    ]
    targets = [soundfile.read(service.separate(source, **query).target)[0] for query in asked]
    for k, wave in enumerate(targets):
        assert all(np.abs(wave - other).max() > 1e-4 for other in targets[:k])


def test_queries_are_refined_on_request(service, make_wav):
    source, text = make_wav(seconds=2.0), "rain on a roof"
    found = [
        soundfile.read(service.separate(source, text, refine=refine).target)[0]
        for refine in (False, True)
    ]
    refined = service.separator.separate(source, text=text, refine=True).target[0].numpy()
    assert np.abs(found[1] - refined).max() < 1e-4 < np.abs(found[0] - refined).max()


def test_each_channel_gets_a_mask_of_its_own_on_request(service, make_wav, tmp_path):
    waves = np.stack([soundfile.read(make_wav(seconds=2.0))[0], np.zeros(32_000)], 1)
    soundfile.write(source := tmp_path / "left.wav", waves, 16_000)
    found = [
        soundfile.read(service.separate(source, "a bell", each_channel=each).target)[0]
        for each in (False, True)
    ]
    alone = service.separator.separate(waves[:, 0], 16_000, text="a bell").target
    assert np.abs(found[1][:, 0] - alone).max() < 1e-4 < np.abs(found[0] - found[1]).max()


def test_names_of_uploads_may_be_as_long_as_files_have_them(service, make_wav):
    result = service.separate(make_wav(f"{'鐘' * 83}.wav", 0.3), "a bell")
    assert result.target.exists() and result.residual.name.startswith("鐘" * 70)


def test_a_recording_without_sound_is_no_fault(service, tmp_path):
    soundfile.write(tmp_path / "quiet.wav", np.zeros(8000), 16_000)
    assert "silent" in service.separate(tmp_path / "quiet.wav", "a bell").message


def test_what_cannot_be_used_is_one_line_and_leaves_nothing(service, make_wav, tmp_path):
    good = make_wav(seconds=0.5)
    (tmp_path / "words.wav").write_text("hello")
    (tmp_path / "empty.wav").touch()
    (tmp_path / "big.wav").write_bytes(b"RIFF" + bytes(2_000_000))
    soundfile.write(tmp_path / "nan.wav", np.array([0.0, np.nan] * 4000), 16_000, "FLOAT")
    soundfile.write(tmp_path / "headers.wav", np.zeros(0), 16_000)
    make_wav("long.wav", 7.0, 8000)
    Image.new("1", (9000, 9000)).save(tmp_path / "large.png")
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
    (tmp_path / "words.png").write_text("hello")
    faults = [
        ((None, "a bell"), "no recording yet"),
        ((good,), "nothing to look for"),
        ((good, "  \n "), "nothing to look for"),
        ((good, "bell " * 2000), f"9999 characters long; use at most {TEXT_LIMIT}"),
        ((good, "a bell", None, None, "x" * 10_000), "10000 characters"),
        ((tmp_path / "words.wav", "a bell"), "words.wav: not a readable recording"),
        ((tmp_path / "empty.wav", "a bell"), "empty.wav: is empty"),
        ((tmp_path / "headers.wav", "a bell"), "headers.wav: has no samples"),
        ((tmp_path / "nan.wav", "a bell"), "nan.wav: contains NaN"),
        ((tmp_path / "big.wav", "a bell"), "big.wav: has 2 MB, more than the 1 MB"),
        ((tmp_path / "long.wav", "a bell"), "long.wav: lasts longer than the 6 s allowed"),
        ((tmp_path / "gone.wav", "a bell"), "gone.wav: no such file"),
        ((good, "", tmp_path / "words.wav"), "words.wav: not a readable recording"),
        ((good, "", None, tmp_path / "words.png"), "words.png: not a readable picture"),
        ((good, "", None, tmp_path / "large.png"), "large.png: has 9000 x 9000 pixels"),
        ((good, "", None, tmp_path / "bomb.png"), "bomb.png: has too many pixels"),
    ]
    for arguments, reason in faults:
        assert reason in refusal(service, *arguments)


def test_what_is_missing_of_a_recording_is_said_on_the_page(service, make_wav):
    upload = make_wav("results/0123abcd/cut.wav", 2.0)
    upload.write_bytes(upload.read_bytes()[:-32_000])
    told = service.separate(upload, "a bell").message
    assert told.startswith("Done.") and "Notice: " in told and "cut.wav: ends 1.0 s before" in told
    assert (
        str(service.folder) not in told
        and "Notice" not in service.separate(make_wav("whole.wav", 1.0), "a bell").message
    )


def test_folders_of_uploads_are_not_shown(service):
    upload = service.folder.parent / "results" / "0123abcd" / "talk.wav"
    upload.parent.mkdir()
    upload.write_text("hello")
    with pytest.raises(SepError, match=r"^talk\.wav: not a readable"):
        service.separate(upload, "a bell")


def test_damaged_uploads_separate_or_are_refused(service, make_wav, tmp_path):
    draw = np.random.default_rng(0)
    plain = make_wav(seconds=0.3, rate=8000).read_bytes()
    outcomes = set()
    for k in range(300):
        damaged = bytearray(plain[: draw.integers(20, len(plain))] if k % 3 == 0 else plain)
        for place in draw.integers(0, 44 if k % 2 else len(damaged), 4):
            damaged[place % len(damaged)] = draw.integers(256)
        path = tmp_path / f"damaged{k}.wav"
        path.write_bytes(damaged)
        try:
            outcomes.add(service.separate(path, "a bell").target.exists())
        except SepError as error:
            assert "\n" not in str(error)
            outcomes.add(False)
    assert outcomes == {True, False}


def test_negative_words_never_name_a_file_of_the_machine(service, make_wav):
    source, private = make_wav(), make_wav("private.wav", 0.5)
    as_words = service.separate(source, "a bell", negative=str(private))
    as_file = service.separator.separate(source, text="a bell", negative=[private])
    difference = soundfile.read(as_words.target)[0] - as_file.target[0].numpy()
    assert np.abs(difference).max() > 1e-4  # rounding to 16 bits is 1.5e-5


def test_what_progress_raises_ends_the_work_and_keeps_nothing(service, make_wav):
    def cancel(share, doing):
        if share > 0:
            raise SepError("cancelled")

    assert refusal(service, make_wav(), "a bell", progress=cancel) == "cancelled"

    def fill(share, doing):
        raise MemoryError

    assert "memory ran out" in refusal(service, make_wav(), "a bell", progress=fill)
    service.close()
    assert "stopping" in refusal(service, make_wav(), "a bell")


def test_examples_can_be_separated(service, tmp_path):
    service.max_minutes = 1
    for recording, text, sound in write_examples(tmp_path / "made").values():
        assert service.separate(recording, text, sound).target.exists()
