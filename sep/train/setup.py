"""What every training stage needs before its loop: device, mixtures, queries, validation."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

import encoders
from encoders.judge import Judge
from sep.data.bank import ClipBank, MixtureSampler, QueryBank, kin
from sep.data.kaldi import DataDir
from sep.data.scene import Scene
from sep.data.shard_sampler import ShardQueries, ShardSampler
from sep.data.shards import ShardSet
from sep.errors import DataError
from sep.train import distributed
from sep.train.validation import Validation


@dataclass
class TrainingSetup:
    """The device of this process and what is on it.

    Attributes:
        device: of this process.
        sampler: training mixtures; queries: their embeddings.
        validation: fixed validation mixtures with the encoder's and the judge's similarity.
        encoder: the query encoder; encoder_folder: where it was read.
    """

    device: torch.device
    sampler: MixtureSampler
    queries: QueryBank | ShardQueries
    validation: Validation
    encoder: encoders.Encoder
    encoder_folder: Path


def prepare(
    *,
    exp: str | Path,
    data: str | Path,
    device: torch.device,
    seed: int,
    batch: int,
    samples: int,
    sources: int,
    absent: float,
    gain_db: float,
    speed: float,
    colour_db: float,
    bank_gb: float,
    valid_mixtures: int,
    split: str = "train",
    tars: str | Path | None = None,
    tar_workers: int = 2,
    tar_buffer: int = 2048,
    scene: Mapping[str, float] | None = None,
    threads: int | None = None,
) -> TrainingSetup:
    """Read data, embeddings, encoder and judge of an experiment.

    Training clips are those of `split`. With `tars` they and their queries stream out of that
    folder of shards instead, and are not held in memory. `scene` has the arguments of
    `sep.data.scene.Scene`.

    Raises:
        OptionError: a scene that cannot be.
        DataError: an earlier stage has not been run, or its results do not fit each other.
    """
    if threads:
        torch.set_num_threads(threads)
    exp, data = Path(exp), Path(data)
    device = distributed.start(device)
    for folder, stage in ((exp / "encoder", 2), (exp / "judge", 2), (exp / "queries", 3)):
        if not folder.is_dir():
            raise DataError(f"{folder}: missing; run stage {stage} first")
    encoder = encoders.load(exp / "encoder", device=device)
    judge = Judge.load(exp / "judge").to(device)
    drawn = {
        "samples": samples,
        "sources": sources,
        "absent": absent,
        "gain_db": gain_db,
        "speed": speed,
        "colour_db": colour_db,
        "scene": Scene(**scene or {}),
        "seed": seed,
        "rank": distributed.rank(),
    }
    if tars:
        shards = ShardSet(tars)
        if shards.sample_rate != encoder.sample_rate:
            raise DataError(f"{tars}: {shards.sample_rate} Hz; run recipes/shard.py again")
        sampler = ShardSampler(shards, batch, device, tar_workers, tar_buffer, **drawn)
        queries = ShardQueries(sampler)
    else:
        bank = ClipBank(DataDir(data / split), device, encoder.sample_rate, bank_gb)
        queries = QueryBank(exp / "queries" / f"{split}.safetensors", bank, device)
        sampler = MixtureSampler(bank, batch, **drawn, kin=kin(queries))
    if queries.encoder != encoder.fingerprint:
        again = "run recipes/shard.py into an empty folder" if tars else "run stage 3 again"
        raise DataError(f"{tars or exp / 'queries'}: made with another encoder; {again}")
    valid = QueryBank(exp / "queries" / "valid.safetensors", device=device)
    rate = encoder.sample_rate

    def semantic(wave: torch.Tensor, query: torch.Tensor, labels: list[str]) -> torch.Tensor:
        return (encoder.embed_audio(wave, rate) * query).sum(-1)

    def held_out(wave: torch.Tensor, query: torch.Tensor, labels: list[str]) -> torch.Tensor:
        return judge.similarity(wave, rate, labels)

    validation = Validation(
        DataDir(data / "valid"),
        valid,
        valid_mixtures,
        device,
        {"similarity": semantic, "held_out": held_out},
    )
    encoder = encoder.folded()
    return TrainingSetup(device, sampler, queries, validation, encoder, exp / "encoder")
