"""run.sh from recordings to scores, with tiny networks, on clips that the test makes."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from safetensors import safe_open

from sep import hub
from sep.data.bank import QueryBank
from sep.metrics.evaluation import EvaluationSet
from sep.networks.published import PublishedNet

ROOT = Path(__file__).parents[2]
RATE = 16_000


def make_sounds(root: Path) -> None:
    """Three classes of six clips: chirps, filtered noise and beats; one class has a picture."""
    draw = np.random.default_rng(0)
    for name in ("bird", "rain", "drum"):
        (root / name).mkdir(parents=True)
        for k in range(6):
            time = np.arange(round((1 + 0.2 * k) * RATE)) / RATE
            noise = draw.normal(0, 0.2, len(time))
            wave = {
                "bird": 0.5 * np.sin(2 * np.pi * (2_000 + 50 * k + 800 * np.sin(9 * time)) * time),
                "rain": noise,
                "drum": np.convolve(noise, np.ones(40) / 20, "same") * np.exp(-9 * (time % 0.4)),
            }[name]
            soundfile.write(root / name / f"{k}.wav", wave.clip(-1, 1), RATE)
    Image.new("RGB", (64, 64), "green").save(root / "bird" / "bird.png")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """A copy of the recipe's scripts beside links to the programs, so that egs/ stays untouched."""
    tmp_path = tmp_path_factory.mktemp("recipe")
    (tmp_path / "egs").mkdir()
    shutil.copytree(
        ROOT / "egs" / "mini_sounds",
        tmp_path / "egs" / "mini_sounds",
        ignore=shutil.ignore_patterns("downloads", "data", "exp", "__pycache__"),
    )
    (tmp_path / "egs" / "common").symlink_to(ROOT / "egs" / "common")
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    make_sounds(tmp_path / "sounds")
    (tmp_path / "sounds" / "rain" / "broken.wav").write_bytes(b"not a recording")
    return tmp_path


def call(recipe, *arguments):
    environment = {
        **os.environ,
        "SEP_VENV": "none",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    command = ["egs/mini_sounds/run.sh", "--sounds", "sounds", "--debug", "--device", "cpu"]
    return subprocess.run(
        [*command, *arguments], cwd=recipe, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def finished(recipe):
    """A whole run: what it said, and its experiment folder."""
    done = call(recipe)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done, recipe / "egs/mini_sounds/exp/main"


def program(exp: Path, name: str, *options: str, environment: dict[str, str] | None = None):
    """Run a program of recipes/ on the data of the finished run."""
    command = [sys.executable, ROOT / "recipes" / name, *options]
    if name != "join.py":  # which takes no data
        command.insert(2, f"data={next((exp.parents[1] / 'data').glob('sounds-*'))}")
    return subprocess.run(
        command, cwd=exp.parents[1], env={**os.environ, **(environment or {})},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def succeed(exp: Path, name: str, *options: str, environment: dict[str, str] | None = None):
    done = program(exp, name, *options, environment=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return done


def test_recipe_runs_from_recordings_to_scores(finished):
    done, exp = finished
    assert "broken.wav: not a readable recording" in done.stdout
    assert "SI-SDR" in done.stdout and "separated sounds" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert sorted(p.name for p in (exp / ".done").iterdir()) == list("234567")
    for system in ("supervised", "control", "rl"):
        for name in ("config.json", "model.safetensors"):
            assert (exp / system / "best" / name).is_file()
        config = json.loads((exp / system / "best" / "config.json").read_text())
        assert len(config["provenance"]["labels"]) > 1
        waves = sorted((exp / "separated" / system).glob("*.wav"))
        assert len(waves) == 4
        for wave in waves:
            assert soundfile.info(wave).frames == 65_535
    for name in ("per_clip.csv", "per_class.csv", "summary.json", "table.md"):
        assert (exp / "scores" / name).stat().st_size > 0


def test_finished_stages_are_skipped(recipe, finished):
    again = call(recipe)
    assert again.returncode == 0 and again.stdout.count("done before, skipped") == 7
    assert "SI-SDR" in again.stdout


@pytest.mark.slow
@pytest.mark.parametrize("stop", ["4", "5"])
def test_two_processes_on_the_cpu_train_from_run_sh(recipe, finished, stop):
    _, exp = finished
    two = exp.with_name(f"two{stop}")
    for name in ("encoder", "judge", "queries"):
        shutil.copytree(exp / name, two / name)
    (two / ".done").mkdir()
    for stage in "23":
        shutil.copy(exp / ".done" / stage, two / ".done" / stage)
    done = call(recipe, "--tag", two.name, "--ngpu", "2", "--stop-stage", stop)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    # the separator, and in stage 5 its control; said by one process of two
    assert done.stdout.count(" on cpu, 2 x ") == {"4": 1, "5": 2}[stop]
    for system in {"4": ["supervised"], "5": ["supervised", "rl", "control"]}[stop]:
        assert (two / system / "best" / "model.safetensors").is_file()


def running(exp: Path, name: bytes) -> list[int]:
    """Processes whose command line has this name, in the folder where programs are called."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if name in (process / "cmdline").read_bytes():
                if (process / "cwd").readlink() == exp.parents[1]:
                    found.append(int(process.name))
    return found


@pytest.mark.slow
def test_ray_separates_and_scores_the_same_whoever_is_killed(finished):
    pytest.importorskip("ray", reason="Ray is not installed (extra dist)")
    _, exp = finished
    own = exp.with_name("ray")
    for name in ("encoder", "judge", "queries", "supervised", "rl"):
        shutil.copytree(exp / name, own / name)
    one = {"OMP_NUM_THREADS": "1"}  # as a worker has
    options = ["tag=ray", "device=cpu", "systems=[supervised,rl]", "queries=[text]"]
    asked = [*options, "batch=1", "examples=0"]
    for line in (["separate.py", *asked], ["score.py", *options, "check=1"]):
        succeed(exp, *line, environment=one)
    for name in ("separated", "scores"):
        (own / name).rename(own / f"local_{name}")

    data = next((exp.parents[1] / "data").glob("sounds-*"))
    line = [sys.executable, ROOT / "recipes" / "separate.py", f"data={data}", *asked]
    ray = ["launcher=ray", "workers=2"]
    staging, inode = own / ".separated.part", lambda path: path.stat().st_ino
    with subprocess.Popen([*line, *ray], cwd=exp.parents[1], stdout=subprocess.PIPE) as first:
        while not (kept := {path: inode(path) for path in staging.rglob("*.wav")}):
            assert first.poll() is None
            time.sleep(0.005)
        first.kill()
    assert not (own / "separated").exists()
    with subprocess.Popen(
        [*line, *ray], cwd=exp.parents[1], stdout=subprocess.PIPE, text=True
    ) as second:
        while not (workers := running(exp, b"ray::_Worker")):
            assert second.poll() is None
            time.sleep(0.005)
        os.kill(workers[0], signal.SIGKILL)
        said = second.communicate()[0]
    assert second.returncode == 0 and "8 parts were done before" in said
    for path, number in kept.items():
        assert inode(own / "separated" / path.relative_to(staging)) == number
    assert not staging.exists()
    succeed(exp, "score.py", *options, "check=1", *ray)
    assert not (own / ".scores.part").exists()
    for name in ("separated", "scores"):
        files = [{p.relative_to(own / f): p.read_bytes() for p in (own / f).rglob("*.[wcjm]*")}
                 for f in (name, f"local_{name}")]  # fmt: skip
        assert files[0] and files[0] == files[1]


def test_encoders_are_assessed(finished):
    _, exp = finished
    done = succeed(exp, "assess.py", "mixtures=8")
    assert "image-text R@5" in done.stdout and "| monotone |" in done.stdout
    assert {p.name for p in (exp / "assess").iterdir()} == {"table.md", "assess.csv", "snr.png"}


def test_rl_takes_rewards_of_ones_own_and_names_what_it_does_not_know(finished):
    _, exp = finished
    tune = ["rl.py", "rl=debug", "steps=1", "out=own", "valid_mixtures=2"]
    tune += ["rl.options.tas=event", "rl.explore=copula"]
    succeed(exp, *tune, "rl.rewards={mine: {_target_: sep.rl.reward.MaskIoU, weight: 0.5}}")
    assert "train/reward/mine" in (exp / "own" / "log.csv").read_text()
    for wrong, said in (
        ("rl.rewards={mine: {_target_: sep.rl.reward.Nothing}}", "rl.rewards.mine"),
        ("+rl.reward.applause=1", "reward 'applause' is unknown"),
        ("rl.explore=pixel", "explore 'pixel' is unknown"),
    ):
        done = program(exp, *tune, wrong)
        assert done.returncode == 1 and said in done.stderr and "Traceback" not in done.stderr


def test_a_critic_is_trained_and_rewards_and_is_not_the_judge(finished):
    _, exp = finished
    tune = ["rl.py", "rl=debug", "steps=1", "out=heard", "valid_mixtures=2", "rl.reward.critic=1"]
    tune.append("rl.reward.hit=1")
    shutil.rmtree(exp / "critic", ignore_errors=True)
    done = program(exp, *tune)
    assert done.returncode == 1 and "out=critic" in done.stderr
    succeed(exp, "judge.py", "out=critic", "seed=100", "--config-name", "judge_debug")
    succeed(exp, *tune)
    log = (exp / "heard" / "log.csv").read_text()
    assert "train/reward/critic" in log and "train/reward/hit" in log
    succeed(exp, "rl.py", "rl=choice", "steps=1", "out=chosen", "valid_mixtures=2", "rl.batch=2")
    log = (exp / "chosen/log.csv").read_text()
    assert "train/reward/critic" in log and "train/ratio_max" in log
    shutil.rmtree(exp / "critic")
    shutil.copytree(exp / "judge", exp / "critic")
    done = program(exp, *tune)
    assert done.returncode == 1 and "is the held-out judge" in done.stderr


def test_an_ablation_is_run_once_and_written_as_a_page(finished):
    _, exp = finished
    sweep = ["ablate.py", "masks=8", "rows=[base,BCE alone]", "seeds=[0]", "valid_mixtures=2"]
    sweep += ["points=1", "common=['rl.batch=2']", "control=['batch=2']", "shortest_s=1"]
    succeed(exp, *sweep, "results=ABLATION.md")
    assert (exp / "ablation" / "table.md").is_file() and (exp / "ablation" / "trade.png").is_file()
    assert "- BCE alone: `rl=bce`" in (exp.parents[1] / "ABLATION.md").read_text()
    trained = {p: p.stat().st_mtime for p in (exp / "ablation").rglob("model.safetensors")}
    blended = succeed(exp, *sweep, "candidates=3")
    assert "3 candidates are blended" in blended.stdout
    assert all(path.stat().st_mtime == time for path, time in trained.items())
    refined = succeed(exp, *sweep, "refine=true")
    assert "are refined by what they find" in refined.stdout
    assert (exp / "ablation" / "base" / "0" / "scores_test_4_refined.csv").is_file()
    done = program(exp, *sweep, "candidates=12", "rows=[direct]")
    assert done.returncode == 1 and "candidates 12: try 1 to 9" in done.stderr
    assert not (exp / "ablation" / "direct").exists()
    done = program(exp, *sweep, "rows=[tea]")
    assert done.returncode == 1 and "row 'tea' is unknown; use base" in done.stderr


def test_training_and_tuning_stream_from_tars(finished):
    _, exp = finished
    done = succeed(exp, "shard.py", "clips=4")
    tars = exp / "tars" / "train"
    assert "0 left out" in done.stdout and (tars / "index.json").is_file()
    few = ["tars=exp/main/tars/train", "steps=2", "valid_mixtures=2", "tar_buffer=8"]
    done = succeed(exp, "train.py", *few, "out=streamed", "batch=2")
    assert "mixtures a step of 12 clips, 3 labels" in done.stdout
    succeed(exp, "rl.py", *few, "rl=debug", "out=streamed_rl")
    first = sorted(tars.glob("*.tar"))[0]
    first.write_bytes(first.read_bytes()[:-512])
    done = program(exp, "train.py", *few, "out=broken")
    said = "exp/main/tars/train/train-00000.tar: missing or cut off"
    assert done.returncode == 1 and said in done.stderr and "Traceback" not in done.stderr


def test_a_network_that_looks_again_leaves_traces(finished):
    _, exp = finished
    succeed(exp, "rl.py", "rl=videoseg", "steps=1", "out=looks", "valid_mixtures=2", "rl.batch=2")
    succeed(exp, "trace.py", "systems=[looks]", "mixtures=4", "examples=1")
    written = {p.name for p in (exp / "trace" / "looks").iterdir()}
    assert written == {"summary.json", "mix0000.json", "mix0000.png"}


def test_a_heat_map_is_trained_and_acted_in(finished):
    _, exp = finished
    few = ["steps=1", "valid_mixtures=2"]
    prior = ["out=prior", "init=exp/main/supervised/best", "batch=2", "network={kind: prior}"]
    succeed(exp, "train.py", *prior, "prior={weight: 0.3}", *few)
    acting = ["rl=coprs", "out=coprs", "init=exp/main/prior/best", "rl.batch=2"]
    succeed(exp, "rl.py", *acting, *few)
    assert "train/prior/iou" in (exp / "coprs" / "log.csv").read_text()


def test_a_backbone_starts_from_what_an_encoder_or_pictures_have_taught(finished):
    _, exp = finished
    lite = ["model=lite0", "model.width=2", "model.spectrogram.log_bins=32", "batch=2", "steps=1"]
    lite += ["valid_every=1", "valid_mixtures=2", "samples=16383"]
    for start in ("encoder", "pictures"):
        succeed(exp, "train.py", *lite, f"start={start}", f"out=from_{start}")
        assert (exp / f"from_{start}" / "best" / "model.safetensors").is_file()
    done = program(exp, "train.py", "model=debug", "start=pictures", "out=odd")
    assert done.returncode == 1 and "start=pictures needs a backbone" in done.stderr
    done = program(exp, "train.py", *lite, "start=nowhere", "out=odd")
    assert done.returncode == 1 and "use encoder, pictures or null" in done.stderr


def test_queries_pass_a_memory_of_the_training_classes(finished):
    _, exp = finished
    few = ["model=debug", "steps=1", "batch=2", "valid_mixtures=2", "recall=7"]
    succeed(exp, "train.py", *few, "out=remembering")
    config = json.loads((exp / "remembering/best/config.json").read_text())
    assert config["model"]["recall"] == {"count": 3, "beta": 7.0}
    with safe_open(exp / "remembering/best/model.safetensors", "pt") as file:
        memory = file.get_tensor("recall.known")
    assert memory.any(-1).all()
    # a trained model gets one, and one that has it keeps it
    more = ["steps=1", "batch=2", "valid_mixtures=2", "recall=3"]
    succeed(exp, "train.py", *few[:-1], "out=plain")
    succeed(exp, "train.py", *more, "init=exp/main/plain/best", "out=reminded")
    config = json.loads((exp / "reminded/best/config.json").read_text())
    assert config["model"]["recall"] == {"count": 3, "beta": 3.0}
    succeed(exp, "train.py", *more, "init=exp/main/remembering/best", "out=kept")
    config = json.loads((exp / "kept/best/config.json").read_text())
    assert config["model"]["recall"] == {"count": 3, "beta": 7.0}
    done = program(exp, "train.py", *few[:-1], "recall=-1", "out=odd")
    assert done.returncode == 1 and "recall=-1 must be 0 or more" in done.stderr


def test_separators_of_several_seeds_become_one(finished):
    _, exp = finished
    few = ["model=debug", "steps=1", "batch=2", "valid_mixtures=2"]
    for seed in (0, 1):
        succeed(exp, "train.py", *few, f"out=net{seed}", f"seed={seed}")
    done = succeed(exp, "join.py", "models=[net0,net1]", "out=joined")
    assert "2 separators as one" in done.stdout
    config = json.loads((exp / "joined/best/config.json").read_text())
    assert [member["seed"] for member in config["provenance"]["joined"]] == [0, 1]
    assert len(config["provenance"]["labels"]) == 3
    tuned = ["init=exp/main/joined/best", "out=joined_rl", "rl=debug", "steps=1"]
    succeed(exp, "rl.py", *tuned, "valid_mixtures=2")
    done = program(exp, "join.py", "models=[net0]", "out=joined")
    assert done.returncode == 1 and "models: name two runs or more" in done.stderr
    done = program(exp, "join.py", "models=[net0,nowhere]", "out=joined")
    assert done.returncode == 1 and "exp/main/nowhere/best: no model here" in done.stderr


def test_an_encoder_learns_more_words_and_they_become_queries(finished, tmp_path):
    _, exp = finished
    table = tmp_path / "wordings.tsv"
    table.write_text("class\twordings\nbird\ta chirp|a tweet\n*\t{} nearby\n")
    words = ["exp=exp/words", "encoder.weights=exp/main/encoder", f"wordings={table}", "words=0.1"]
    words += ["align.tune=queries", "stages.text.steps=0", "stages.audio.steps=0"]
    succeed(exp, "align.py", *words, "--config-name", "align_debug")
    done = program(exp, "align.py", "exp=exp/odd", "words=0.1", "--config-name", "align_debug")
    assert done.returncode == 1 and "words needs wordings and encoder.weights" in done.stderr
    succeed(exp, "embed.py", "exp=exp/words", f"wordings={table}")
    with safe_open(exp.parent / "words/queries/train.safetensors", "pt") as file:
        text, audio = file.get_tensor("text"), file.get_tensor("audio")
    with safe_open(exp / "queries/train.safetensors", "pt") as file:
        assert text.shape == (len(audio), 8, audio.shape[1])
        assert torch.equal(audio, file.get_tensor("audio"))
        assert file.get_tensor("text").shape[1] == 3


def test_a_second_pass_is_trained_tuned_and_measured(finished):
    _, exp = finished
    few = ["steps=1", "valid_mixtures=2"]
    reflective = ["out=reflective", "init=exp/main/supervised/best", "batch=2"]
    varied = "scene={room: 0.5, band: 0.5, noise: 0.5, loudness_db: 20, family: 0.5, company: 0.5}"
    succeed(exp, "train.py", *reflective, "network={kind: reflect}", "reflect.pool=2", varied, *few)
    tuned = ["rl=aurora", "out=aurora", "init=exp/main/reflective/best", "rl.batch=2"]
    succeed(exp, "rl.py", *tuned, "rl.freeze_head=1", varied, *few)
    done = succeed(exp, "reflect.py", "separator=exp/main/aurora/best")
    assert "| hard |" in done.stdout and "| easy |" in done.stdout
    assert "train/reflect/kept" in (exp / "reflective" / "log.csv").read_text()
    assert "train/distill/cka" in (exp / "aurora" / "log.csv").read_text()
    config = json.loads((exp / "aurora" / "best" / "config.json").read_text())
    assert config["kind"] == "reflect"
    assert {p.name for p in (exp / "reflect").iterdir()} == {
        "table.md", "summary.json", "per_clip.csv"
    }  # fmt: skip


def test_refined_queries_are_a_system_of_their_own(finished):
    _, exp = finished
    asked = ["systems=[rl,rl+refine]", "queries=[text,audio]", "device=cpu"]
    done = succeed(exp, "separate.py", *asked, "examples=1")
    assert "rl+refine: 4 by text, 4 by audio" in done.stdout
    shown = next((exp / "separated" / "examples").iterdir())
    outputs = [exp / "separated" / name / f"{shown.name}.wav" for name in ("rl", "rl+refine")]
    plain, own, target = (soundfile.read(x)[0] for x in (*outputs, shown / "target.wav"))
    assert np.abs(target - own).max() < np.abs(plain - own).max()  # of the last system, as is said
    for name in ("rl+refine", "rl+refine-audio"):
        assert len(list((exp / "separated" / name).glob("*.wav"))) == 4
    done = succeed(exp, "score.py", *asked, "check=0", "absent=true", "pairs=[[rl+refine,rl]]")
    assert "| rl+refine - rl |" in done.stdout
    row = next(x for x in done.stdout.splitlines() if x.startswith("| level when absent, dB | -"))
    assert len([cell for cell in row.split("|") if "±" in cell]) == 2
    done = program(exp, "separate.py", "systems=[gone+refine]")
    assert done.returncode == 1 and "gone+refine: not trained" in done.stdout


def test_a_published_network_takes_negative_queries_as_long_as_they_come(finished):
    _, exp = finished
    data = next((exp.parents[1] / "data").glob("sounds-*"))
    model = PublishedNet(width=2, levels=5, mask_channels=4, embed_dim=256).eval()
    hub.save_pretrained(model, exp / "omnisep" / "best", exp / "encoder")
    asked = ["systems=[omnisep]", "queries=[text,negative]", "device=cpu", "examples=0"]
    succeed(exp, "separate.py", *asked)
    clips = EvaluationSet(data, "test", exp / "queries")
    text, bank = clips.queries("text")[0], QueryBank(exp / "queries" / "test.safetensors")
    other = bank.text[[bank.row[m.interferers[0]] for m in clips.mixtures], 0]
    with torch.no_grad():
        expected = model.separate(clips.mixture, 1.5 * text - 0.5 * other)
    for id_, wave in zip(clips.ids, expected.numpy(), strict=True):
        found, _ = soundfile.read(exp / "separated" / "omnisep-negative" / f"{id_}.wav")
        np.testing.assert_allclose(found, wave, atol=1e-4)


def test_baselines_and_other_systems_stand_in_the_same_table(finished):
    _, exp = finished
    asked = ["queries=[text,negative]", "baselines=[ideal_binary,hpss,nmf,agnostic]", "device=cpu"]
    succeed(exp, "separate.py", *asked, "inputs=true")
    inputs = exp / "separated" / "inputs"
    lines = (inputs / "queries.tsv").read_text().splitlines()
    assert lines[0] == "id\ttext\tlabel" and len(lines) == 1 + len(list(inputs.glob("*.wav"))) == 5
    score = ["score.py", *asked, "check=0", "published=music_clean"]
    # a system that does nothing, scored from its folder
    done = succeed(exp, *score, f"systems=[rl,{{idle: {inputs}}}]", "pairs=[[rl,idle]]")
    head = "|  | mixture | ideal | ideal_binary | hpss | nmf | agnostic | rl | idle | reference |"
    assert head in done.stdout and "| rl - idle |" in done.stdout
    row = next(line for line in done.stdout.splitlines() if line.startswith("| SI-SDRi dB |"))
    assert row.split(" | ")[8] == "0.00 ± 0.00" and "- nmf: " in done.stdout
    assert "| text | OmniSep | published | 12.37 ± 0.85 |" in done.stdout
    assert "| text | idle | here |" in done.stdout and "| negative | rl | here |" in done.stdout
    first = sorted(inputs.glob("*.wav"))[0]
    first.write_bytes(first.read_bytes()[:9_000])
    for options, said in (
        ([*score, "systems=[{idle: gone}]"], "gone: not a folder"),
        ([*score, "published=esc50"], "published 'esc50' is unknown; use vggsound_clean"),
        ([*score, f"systems=[{{idle: {inputs}}}]"], f"{first}: 1 channels of "),
        ([*score, f"systems=[rl,{{rl: {inputs}}}]"], "two columns would be called 'rl'"),
        (["separate.py", "baselines=[magic]"], "baseline 'magic' is unknown"),
    ):
        done = program(exp, *options)
        assert done.returncode == 1 and said in done.stderr and "Traceback" not in done.stderr
