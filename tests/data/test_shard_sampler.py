"""Training mixtures and queries of clips out of shards."""

import pytest
import torch
from experiment import SAMPLES, build_parts

from sep.data.bank import ClipBank, QueryBank
from sep.data.kaldi import DataDir
from sep.data.packing import Packing, pack
from sep.data.scene import Scene
from sep.data.shard_sampler import ShardQueries, ShardSampler
from sep.data.shards import ShardSet
from sep.errors import DataError, OptionError
from sep.train.batch import draw_batch
from sep.train.log import read_log
from sep.train.loop import run
from sep.train.supervised import SupervisedTask


@pytest.fixture(scope="module")
def folder(corpus, tmp_path_factory):
    """Twelve clips of three labels in four tars."""
    path = tmp_path_factory.mktemp("tars")
    data, queries = DataDir(corpus / "data"), QueryBank(corpus / "queries.safetensors")
    pack(data, queries, path, Packing(clips=3), say=len)
    return path


def sampler_of(folder, **options):
    options = {"samples": SAMPLES, "workers": 2, "buffer": 4, "seed": 3} | options
    return ShardSampler(ShardSet(folder), 4, **options)


def test_mixtures_are_made_of_clips_of_different_labels(corpus, folder):
    sampler, bank = sampler_of(folder, samples=20_000), ClipBank(DataDir(corpus / "data"))
    for step in range(5):
        clip, sources = sampler.draw(sampler.generator(step))
        label = sampler.bank.label[clip]
        assert (label[:, 0] != label[:, 1]).all() and sources.shape == (4, 2, 20_000)
        assert sorted(clip.flatten().tolist()) == list(range(8))
        assert sources.abs().amax(-1).min() > 0.01
    # segments are those of the same clips in memory
    known = {int(n): k for k, n in enumerate(bank.length) if bank.label[k] == 0}
    held = [k for k in range(8) if sampler.bank.label[k] == 0]
    for k in held:
        same = torch.tensor([known[int(sampler.bank.length[k])]])
        start = torch.tensor([-50])
        found = sampler.bank.segments(torch.tensor([k]), start, 9_000)
        assert torch.equal(found, bank.segments(same, start, 9_000))


def test_scenes_vary_but_the_next_clips_are_those_of_the_stream(folder):
    sampler = sampler_of(folder, scene=Scene(room=1.0, noise=1.0))
    clip, sources = sampler.draw(sampler.generator(0))
    assert sampler.floor(sources, sampler.generator(1)).shape == (4, SAMPLES)
    assert not torch.equal(sources, sampler_of(folder).draw(sampler.generator(0))[1])
    assert torch.equal(clip, sampler_of(folder).draw(sampler.generator(0))[0])
    for name in ("family", "company"):
        with pytest.raises(OptionError, match=rf"scene\.{name}"):
            sampler_of(folder, scene=Scene(**{name: 0.5}))


def test_either_label_may_come_first(folder):
    sampler = sampler_of(folder)
    first = [sampler.choose(sampler.generator(k))[:, 0] % 2 for k in range(20)]
    assert 0.3 < torch.cat(first).float().mean() < 0.7


def test_queries_are_those_that_were_packed(corpus, folder):
    sampler, whole = sampler_of(folder), QueryBank(corpus / "queries.safetensors")
    vector = {i.rpartition("-")[0].replace("_", " "): whole.audio[whole.row[i]] for i in whole.ids}
    queries = ShardQueries(sampler)
    assert queries.dim == whole.dim and queries.encoder == "test"
    for mixed in (0.0, 1.0):
        generator = sampler.generator(0)
        clip, _ = sampler.draw(generator)
        drawn = queries.draw(clip, generator, mixed)
        labels = [sampler.bank.labels[k] for k in sampler.bank.label[clip].flatten()]
        expected = torch.stack([vector[name] for name in labels]).unflatten(0, (4, 2))
        torch.testing.assert_close(drawn, expected, rtol=0, atol=2e-3)  # float16
        torch.testing.assert_close(drawn.norm(dim=-1), torch.ones(4, 2))


def test_queries_of_one_kind_are_a_wording_another_recording_or_the_picture(folder):
    sampler = sampler_of(folder)
    queries = ShardQueries(sampler)
    clip, _ = sampler.draw(sampler.generator(0))
    bank = sampler.bank
    bank.text, bank.audio = torch.zeros(8, 3, 16), torch.zeros(8, 4, 16)
    for part, first in ((bank.text, 0), (bank.audio, 4)):
        for k in range(part.shape[1]):
            part[:, k, first + k] = 1
    bank.image[:, 15], bank.has_image = 1, torch.arange(8) < 4
    generator = torch.Generator().manual_seed(0)
    drawn = [queries.draw(clip, generator, 0.0) for _ in range(200)]
    kinds = torch.stack(drawn).argmax(-1)  # (200, B, S)
    pictured = bank.has_image[clip]
    assert set(kinds[:, pictured].flatten().tolist()) == {0, 1, 2, 4, 5, 6, 7, 15}
    assert set(kinds[:, ~pictured].flatten().tolist()) == {0, 1, 2, 4, 5, 6, 7}


def task_of(corpus, folder, **options):
    model, _, _, validation = build_parts(corpus)
    sampler = sampler_of(folder, **options)
    task = SupervisedTask(model, sampler, ShardQueries(sampler), validation, lr=1e-2)
    task.picture, task.validate = lambda path: None, lambda: {"nothing": 0.0}
    return task


def losses(folder):
    return [(s, v) for s, name, v in read_log(folder / "log.csv") if name == "train/loss"]


def test_a_killed_run_goes_on_in_the_middle_of_an_epoch(corpus, folder, tmp_path):
    settings = {"steps": 8, "valid_every": 3, "best_by": None, "say": len}
    run(task_of(corpus, folder), tmp_path / "whole", **settings)
    task, done = task_of(corpus, folder), []
    step_of = task.train_step

    def until_killed(step, progress):
        if step == 5:
            raise KeyboardInterrupt
        done.append(step)
        return step_of(step, progress)

    task.train_step = until_killed
    with pytest.raises(KeyboardInterrupt):
        run(task, tmp_path / "killed", **settings)
    run(task_of(corpus, folder), tmp_path / "killed", **settings)  # from the checkpoint of step 3
    assert done == [0, 1, 2, 3, 4] and len(losses(tmp_path / "whole")) == 8
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")


def test_with_other_readers_the_next_epoch_begins(folder):
    sampler = sampler_of(folder)
    for step in range(2):
        sampler.draw(sampler.generator(step))
    state = sampler.state()
    for change in ({"workers": 1}, {"seed": 4}, {"buffer": 6}):
        other = sampler_of(folder, **change)
        with pytest.warns(UserWarning, match="a new epoch begins"):
            other.restore(state)
        last = max(epoch for epoch, _ in state["ranks"][0]["places"])
        assert {epoch for epoch, _ in other.state()["ranks"][0]["places"]} == {last + 1}
    other = sampler_of(folder)
    other.restore({})  # of a run with clips in memory
    assert other.state()["ranks"][0]["places"] == [[0, 0], [0, 0]]


def test_a_batch_has_what_training_needs(corpus, folder):
    model, *_ = build_parts(corpus)
    sampler = sampler_of(folder, speed=0.1, colour_db=3.0, absent=0.5)
    batch = draw_batch(sampler, ShardQueries(sampler), model.spectrogram, 0, 0.5, 0.5)
    label = batch.label
    draw_batch(sampler, ShardQueries(sampler), model.spectrogram, 1, 0.5)
    assert batch.sources.shape == (4, 2, SAMPLES) and batch.query.shape == (4, 2, 16)
    assert torch.equal(label, batch.label) and (label[:, 0] != label[:, 1]).all()


def test_too_few_labels_are_refused(folder):
    with pytest.raises(DataError, match="4 labels are needed"):
        sampler_of(folder, sources=4)
