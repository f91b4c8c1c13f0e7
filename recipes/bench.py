"""Speed and memory of separation, training and RL: one JSON line a case, cpu or cuda.

Data and weights are synthesised, so that it runs anywhere: times do not depend on them.
"""

import sep.interrupt  # noqa: F401, first, for Ctrl-C during the imports below

# isort: split

import copy
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import encoders
from encoders.precision import half_precision
from sep import audio, hub
from sep.device import has_fast_bfloat16, resolve
from sep.errors import SepError
from sep.model import QueryNet
from sep.program import guarded
from sep.separator import SHIPPED, Separator
from sep.timing import Stopwatch, peak_memory_mb, reset_peak_memory, synchronise
from sep.train.losses import bin_weight, target_masks, weighted_bce

CONF = Path(__file__).parent / "conf"
DIM = 256  # D of the small encoder
RATE, SAMPLES = 16_000, 65_535


def emit(case: str, **values: Any) -> None:
    """Print one JSON line; floats with four significant digits."""
    rounded = {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in values.items()}
    print(json.dumps({"case": case, **rounded}), flush=True)


def build(name: str, device: torch.device) -> QueryNet:
    """The untrained network of recipes/conf/model/<name>.yaml, or the trained one that ships."""
    if name == "shipped":
        return hub.from_pretrained(SHIPPED, device)
    torch.manual_seed(0)
    settings = OmegaConf.to_container(OmegaConf.load(CONF / "model" / f"{name}.yaml"))
    return QueryNet(**settings, embed_dim=DIM).to(device)


def timed(work: Callable[[], Any], repeats: int, device: torch.device) -> tuple[float, float]:
    """Median and least time of `work` after one run to warm up; they differ on a busy machine."""
    times = []
    for _ in range(repeats + 1):
        synchronise(device)
        begun = time.perf_counter()
        work()
        synchronise(device)
        times.append(time.perf_counter() - begun)
    return statistics.median(times[1:]), min(times[1:])


def bench_model(cfg: DictConfig, name: str, device: torch.device) -> None:
    """Network alone: STFT, masks, iSTFT of one recording and one query.

    In alternation with a plain way: float32, contiguous, all maps before they meet the query.
    """
    model = build(name, device).eval()
    plain = copy.deepcopy(model).to(memory_format=torch.contiguous_format)
    plain.amp = False
    wave = torch.randn(1, cfg.seconds * RATE, device=device) * 0.1
    query = nn.functional.normalize(torch.randn(DIM, device=device), dim=0)
    reset_peak_memory(device)
    with torch.inference_mode():
        model.separate(wave, query)
        peak = peak_memory_mb(device)
        pairs = []
        for _ in range(cfg.repeats):
            ours, _ = timed(lambda: model.separate(wave, query), 1, device)
            theirs, _ = timed(lambda: plain.separate(wave, query[None]), 1, device)
            pairs.append((ours, theirs))
    times, others = zip(*pairs, strict=True)
    emit(
        "separate/model",
        model=name,
        parameters=sum(p.numel() for p in model.parameters()),
        seconds=statistics.median(times),
        least_seconds=min(times),
        audio_s=cfg.seconds,
        real_time_factor=statistics.median(times) / cfg.seconds,
        plain_seconds=statistics.median(others),
        ratio=statistics.median(ours / theirs for ours, theirs in pairs),
        peak_mb=peak,
    )


def bench_file(cfg: DictConfig, name: str, device: torch.device, home: Path) -> None:
    """File to file: with model and encoder loaded, and as a command with its start-up."""
    folder, source, out = home / name, home / "mixture.wav", home / "out"
    encoder = encoders.get("small")
    encoder.save(home / "encoder")
    hub.save_pretrained(build(name, torch.device("cpu")), folder, encoder=home / "encoder")
    audio.write(source, torch.randn(1, cfg.seconds * RATE) * 0.1, RATE, subtype="PCM_16")

    separator = Separator.from_pretrained(folder, device=str(device))
    reset_peak_memory(device)

    def work() -> None:
        result = separator.separate(source, text="a dog barking")
        audio.write(out / "target.wav", result.target, RATE, subtype="PCM_16", clip="clamp")
        audio.write(out / "residual.wav", result.residual, RATE, subtype="PCM_16", clip="clamp")

    warm, least = timed(work, cfg.repeats, device)
    peak = peak_memory_mb(device)
    command = [sys.executable, "-m", "sep.cli", "separate", str(source), "--text", "a dog barking"]
    command += ["--model", str(folder), "--device", str(device), "-o", str(out), "--overwrite"]

    def whole() -> None:
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SepError(f"{' '.join(command)}: failed: {done.stderr.strip()}")

    cold, _ = timed(whole, min(cfg.repeats, 2), device)
    emit(
        "separate/file",
        model=name,
        seconds=warm,
        least_seconds=least,
        audio_s=cfg.seconds,
        real_time_factor=warm / cfg.seconds,
        command_seconds=cold,
        peak_mb=peak,
    )


def bench_length(cfg: DictConfig, name: str, device: torch.device, home: Path) -> None:
    """Stereo files at 44.1 kHz to files, ours and the plain way in alternation.

    What refines its queries is also timed without ("once"); the ratio to the plain way is that of
    this, which runs the network once, too. Every run has a process of its own, whose peak memory is
    that of all it holds. Its time, and its processor time (of all threads), begin when model and
    encoder are loaded. Ours also measures the similarities, the plain one does not.
    """
    encoder = encoders.get("small")
    encoder.save(home / "encoder")
    model = build(name, torch.device("cpu"))
    hub.save_pretrained(model, home / name, encoder=home / "encoder")
    for length_s in cfg.lengths_s:
        source, count = home / "mixture.wav", round(length_s * 44_100)
        with audio.Writer(source, 44_100, 2, "PCM_16", count) as writer:
            for size in (min(2**20, count - k) for k in range(0, count, 2**20)):
                writer.write(torch.randn(2, size).clamp(-4, 4) * 0.1)
            writer.finish()
        ways = {"ours": ours_file, "once": partial(ours_file, refine=False), "plain": plain_file}
        if not model.remembers:
            del ways["once"]
        if length_s > cfg.plain_s:
            del ways["plain"]
        found: dict[str, list[tuple[float, ...]]] = {way: [] for way in ways}
        for _ in range(cfg.pairs if length_s <= 60 else 1):
            for way, work in ways.items():
                with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                    arguments = (home / name, source, home / way, str(device), cfg.threads)
                    found[way].append(pool.submit(work, *arguments).result())
        values = {}
        for way, runs in found.items():
            seconds, cpu, peaks = zip(*runs, strict=True)
            values |= {f"{way}_s": statistics.median(seconds), f"{way}_cpu_s": min(cpu)}
            values[f"{way}_peak_mb"] = max(peaks)
        if "plain" in ways:
            pairs = zip(found.get("once", found["ours"]), found["plain"], strict=True)
            values["ratio"] = statistics.median(ours[0] / plain[0] for ours, plain in pairs)
        emit("separate/length", model=name, audio_s=length_s, **values)


def ours_file(
    folder: Path, source: Path, out: Path, place: str, threads: int, refine: bool | None = None
) -> tuple[float, float, float]:
    """Separate a file as the toolkit does; seconds, processor seconds, peak memory in MB."""
    torch.set_num_threads(threads)
    separator = Separator.from_pretrained(folder, device=place)
    begun, cpu = time.perf_counter(), time.process_time()
    parts = out / "target.wav", out / "residual.wav"
    separator.separate_file(source, *parts, text="a dog barking", refine=refine)
    spent = time.perf_counter() - begun, time.process_time() - cpu
    return *spent, peak_memory_mb(separator.device)


@torch.no_grad()
def plain_file(
    folder: Path, source: Path, out: Path, place: str, threads: int
) -> tuple[float, float, float]:
    """The same in a straightforward way: all in memory, one pass of the network in float32."""
    import soundfile
    import soxr

    torch.set_num_threads(threads)
    device = torch.device(place)
    model = hub.from_pretrained(folder, device).to(memory_format=torch.contiguous_format)
    model.amp, grid = False, model.spectrogram
    encoder = hub.load_encoder(folder, device)
    begun, cpu = time.perf_counter(), time.process_time()
    wave, rate = soundfile.read(source, dtype="float32", always_2d=True)  # (N, C)
    low = torch.from_numpy(soxr.resample(wave, rate, RATE)).T.to(device)
    query = encoder.embed_text(["a dog barking"])[0]
    mask = model.mask(grid.stft(low.mean(0)[None]).abs(), query)[0]
    estimate = grid.istft(grid.stft(low) * mask, low.shape[-1])
    target = soxr.resample(estimate.T.cpu().numpy(), RATE, rate)[: len(wave)]
    target = np.pad(target, ((0, len(wave) - len(target)), (0, 0)))
    out.mkdir(exist_ok=True)
    soundfile.write(out / "target.wav", target, rate, "PCM_16")
    soundfile.write(out / "residual.wav", wave - target, rate, "PCM_16")
    spent = time.perf_counter() - begun, time.process_time() - cpu
    return *spent, peak_memory_mb(device)


def synthetic_data(clips: int, seconds: int, home: Path):
    """A data directory of clips of eight labels, and its queries file.

    They are 32 hums in noise in turn, which FLAC shrinks about as much as recordings.
    """
    from safetensors.torch import save_file

    from sep.data import kaldi

    time_s, entries = torch.arange(seconds * RATE) / RATE, []
    for i in range(32):
        hum = sum(torch.sin(440 * k * (1 + i / 32) * time_s) / k for k in range(1, 8))
        wave = 0.2 * hum + 0.005 * torch.randn(len(time_s))
        audio.write(home / "clips" / f"{i:02d}.wav", wave[None], RATE, subtype="PCM_16")
    for n in range(clips):
        path = str(home / "clips" / f"{n % 32:02d}.wav")
        entries.append(kaldi.Entry(f"{n:05d}", path, "hum", f"label{n % 8}", float(seconds)))
    kaldi.write(home / "data", entries)
    data = kaldi.DataDir(home / "data")
    vectors = nn.functional.normalize(torch.randn(5, clips, DIM), dim=-1)
    tensors = {
        "text": vectors[:3].transpose(0, 1).contiguous(),
        "audio": vectors[3].clone(),
        "image": vectors[4].clone(),
        "has_image": torch.ones(clips, dtype=torch.uint8),
    }
    path = home / "queries.safetensors"
    save_file(tensors, path, {"ids": json.dumps(data.ids), "encoder": "none"})
    return data, path


def synthetic_training(batch: int, device: torch.device, home: Path):
    """Sampler and queries through the real data path."""
    from sep.data.bank import ClipBank, MixtureSampler, QueryBank

    data, path = synthetic_data(32, 5, home)
    bank = ClipBank(data, device)
    return MixtureSampler(bank, batch, SAMPLES), QueryBank(path, bank, device)


def plain_step(model: QueryNet, optimizer, sampler, queries, step: int) -> None:
    """The same training step as a straightforward float32, contiguous implementation."""
    from sep.train.batch import draw_batch

    batch = draw_batch(sampler, queries, model.spectrogram, step, 0.5)
    x = torch.log(model.spectrogram.warp(batch.magnitude + model.floor))[:, None].contiguous()
    maps = model.sound_net(x)  # (B, K, H, T)
    weight = model.synth_net.scale * model.prompt(batch.query)
    logits = torch.einsum("bsk,bkht->bsht", weight, maps) + model.synth_net.bias
    loss, _ = weighted_bce(
        logits, target_masks(batch.warped, batch.mixture, "ratio"), bin_weight(batch.mixture)
    )
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 5.0)
    optimizer.step()


def bench_train(cfg: DictConfig, name: str, device: torch.device, home: Path) -> None:
    """Supervised mixtures a second, ours and the plain implementation in alternation."""
    from sep.train import supervised

    sampler, queries = synthetic_training(cfg.batch, device, home)
    task = supervised.SupervisedTask(build(name, device), sampler, queries, validation=None)
    plain = build(name, device).to(memory_format=torch.contiguous_format)
    optimizer = torch.optim.AdamW(plain.parameters(), 1e-3)

    def stretch(step: Callable[[int], Any]) -> float:
        synchronise(device)
        begun = time.perf_counter()
        for k in range(cfg.steps):
            step(k)
        synchronise(device)
        return cfg.batch * cfg.steps / (time.perf_counter() - begun)

    def ours(k: int) -> None:
        task.train_step(k, 0.5)

    def theirs(k: int) -> None:
        plain_step(plain, optimizer, sampler, queries, k)

    reset_peak_memory(device)
    ours(0)
    peak = peak_memory_mb(device)
    theirs(0)
    pairs = [(stretch(ours), stretch(theirs)) for _ in range(cfg.pairs)]
    with Stopwatch(device) as watch, watch.on(supervised, "draw_batch", "data"):
        stretch(ours)
    emit(
        "train",
        model=name,
        batch=cfg.batch,
        mixtures_per_s=statistics.median(a for a, _ in pairs),
        plain_mixtures_per_s=statistics.median(b for _, b in pairs),
        ratio=statistics.median(a / b for a, b in pairs),
        data_fraction=watch.seconds["data"] / watch.total,
        bfloat16=has_fast_bfloat16(device),
        peak_mb=peak,
    )


def policy_task(conf: dict[str, Any], model: QueryNet, sampler, queries, device: torch.device):
    """The task of settings of recipes/conf/rl, with the small encoder."""
    from sep.rl import task
    from sep.rl.explore import named
    from sep.rl.options import PolicyOptions
    from sep.rl.reward import Similarity, SiSdrGain, WeightedSum

    encoder = encoders.get("small", device=str(device)).folded()
    embed, meaning = encoder.embed_audio, {**conf["similarity"], "anchor": encoder.anchor}
    parts = {"similarity": Similarity(embed, **meaning), "si_sdr": SiSdrGain()}
    reward = WeightedSum({k: (conf["reward"][k], v) for k, v in parts.items() if conf["reward"][k]})
    options = PolicyOptions(**conf["options"])
    return task.PolicyTask(
        model,
        sampler,
        queries,
        None,
        named(conf["explore"], **{k: conf[k] for k in ("tile", "grid") if conf.get(k)}),
        reward,
        options,
        Similarity(embed, **meaning, **conf["windows"]) if options.windowed else None,
        copy.deepcopy(model).eval() if options.kl_teacher else None,
    )


def rl_parts(task, repeats: int, device: torch.device) -> dict[str, float]:
    """Mean wall time of an iteration and of its parts, and the share of sampling in it."""
    from sep.rl import task as rl
    from sep.rl.reward import Similarity, WeightedSum

    calls = {
        "data": [(rl, "draw_batch")],
        "forward": [(task.model, "maps"), (task.model, "combine")],
        "sampling": [(task.explore, "draw")],
        "istft": [(task.explore, "masks"), (task, "listen")],
        "reward": [(WeightedSum, "__call__"), (Similarity, "__call__")],
        "update": [(task, "loss"), (Tensor, "backward"), (task.optimizer, "step")],
    }
    with Stopwatch(device) as watch, ExitStack() as stack:
        for part, places in calls.items():
            for owner, name in places:
                stack.enter_context(watch.on(owner, name, part))
        for k in range(repeats):
            task.train_step(k, 0.5)
    spent = {f"{part}_s": watch.seconds.get(part, 0.0) / repeats for part in calls}
    whole = watch.total / repeats
    other = whole - sum(spent.values())
    sampling = spent["sampling_s"] / whole
    return {"seconds": whole, **spent, "other_s": other, "sampling_share": sampling}


def bench_rl(cfg: DictConfig, name: str, device: torch.device, home: Path) -> None:
    """One PPO iteration (rollout and its updates) by part."""
    conf = OmegaConf.to_container(OmegaConf.load(CONF / "rl" / f"{cfg.rl}.yaml"))
    data = synthetic_training(conf["batch"], device, home)
    task = policy_task(conf, build(name, device), *data, device)
    reset_peak_memory(device)
    task.train_step(0, 0.5)
    peak = peak_memory_mb(device)
    emit(
        "rl",
        model=name,
        rl=cfg.rl,
        mixtures=conf["batch"],
        masks=conf["batch"] * task.options.group_size,
        updates=task.options.inner_epochs,
        **rl_parts(task, cfg.repeats, device),
        peak_mb=peak,
    )


def bench_rl_cost(cfg: DictConfig, name: str, device: torch.device, home: Path) -> None:
    """MARS-Sep's iteration for several G, each beside a supervised step of the same batch.

    On a CPU with one thread time is that of the processor, so that other programs count little.
    `growth_mb` is what a mask more costs in peak memory, `mask_mb` what it and its waveform hold.
    """
    from sep.train.supervised import SupervisedTask

    clock = time.process_time if device.type == "cpu" and cfg.threads == 1 else time.perf_counter
    conf = OmegaConf.to_container(OmegaConf.load(CONF / "rl" / "marssep.yaml"))
    sampler, queries = synthetic_training(cfg.batch, device, home)
    plain = SupervisedTask(build(name, device), sampler, queries, None, si_sdr=0.3)

    def spent(task, k: int) -> float:
        synchronise(device)
        begun = clock()
        task.train_step(k, 0.5)
        synchronise(device)
        return clock() - begun

    plain.train_step(0, 0.5)
    before = None
    for group in cfg.groups:
        conf["options"]["group_size"] = group
        task = policy_task(conf, build(name, device), sampler, queries, device)
        reset_peak_memory(device)
        task.train_step(0, 0.5)
        peak = peak_memory_mb(device)
        pairs = [(spent(plain, k), spent(task, k)) for k in range(cfg.repeats)]
        grid = task.model.spectrogram
        held = 4e-6 * (grid.log_bins * (SAMPLES // grid.hop + 1) + SAMPLES)
        more = {}
        if before:
            more["growth_mb"] = (peak - before[1]) / (cfg.batch * (group - before[0]))
        before = group, peak
        emit(
            "rl_cost",
            model=name,
            batch=cfg.batch,
            group=group,
            supervised_s=statistics.median(a for a, _ in pairs),
            rl_s=statistics.median(b for _, b in pairs),
            ratio=statistics.median(b / a for a, b in pairs),
            **rl_parts(task, cfg.repeats, device),
            peak_mb=peak,
            mask_mb=held,
            **more,
        )


def bench_embed(cfg: DictConfig, name: str, device: torch.device) -> None:
    """Audio embedding against the floor that its arithmetic sets at the measured matrix rate.

    `floor_s` is the time of the same floating-point operations as matrix products of 4096 rows in
    the precision that the encoder computes in. The weights are random, which changes nothing.
    """
    options = {"pretrained": False} if name == "imagebind" else {}
    encoder = encoders.get(name, device=str(device), **options)
    wave = 0.1 * torch.randn(cfg.clips, cfg.clip_s * encoder.sample_rate, device=device)
    low = half_precision(device)
    matrix = torch.randn(4096, 4096, device=device, dtype=torch.bfloat16 if low else torch.float32)
    reset_peak_memory(device)
    with torch.inference_mode():
        with FlopCounterMode(display=False) as counter:
            encoder.embed_audio(wave, encoder.sample_rate)
        seconds, least = timed(
            lambda: encoder.embed_audio(wave, encoder.sample_rate), cfg.repeats, device
        )
        peak = peak_memory_mb(device)
        product, _ = timed(lambda: matrix @ matrix, 5 * cfg.repeats, device)
    rate = 2 * 4096**3 / product
    floor = counter.get_total_flops() / rate
    emit(
        "embed",
        encoder=name,
        clips=cfg.clips,
        clip_s=cfg.clip_s,
        seconds=seconds,
        least_seconds=least,
        ms_per_clip=1000 * seconds / cfg.clips,
        gflop=counter.get_total_flops() / 1e9,
        matrix_gflops=rate / 1e9,
        floor_s=floor,
        times_floor=seconds / floor,
        bfloat16=low,
        peak_mb=peak,
    )


def bench_shards(cfg: DictConfig, home: Path) -> None:
    """Clips a second out of tars on the disk, decoded: FLAC and WAV, in order and shuffled."""
    from sep.data import packing
    from sep.data.bank import QueryBank
    from sep.data.clip_stream import ClipStream
    from sep.data.shards import ShardSet

    data, path = synthetic_data(cfg.tar_clips, cfg.clip_s, home)
    for kind in ("flac", "wav"):
        options = packing.Packing(-(-cfg.tar_clips // 10), kind)
        packing.pack(data, QueryBank(path), home / kind, options, say=lambda line: None)
        tars = list((home / kind).glob("*.tar"))
        for buffer in (1, 1024):
            for tar in tars:  # read from the disk, not from memory
                with open(tar, "rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            stream = ClipStream(ShardSet(home / kind), workers=cfg.tar_workers, buffer=buffer)
            begun, worked = time.perf_counter(), time.process_time()
            stream.groups(cfg.tar_clips // 2, 2)
            emit(
                "shards",
                audio=kind,
                buffer=buffer,
                workers=cfg.tar_workers,
                clip_s=cfg.clip_s,
                kb_per_clip=sum(tar.stat().st_size for tar in tars) / cfg.tar_clips / 1e3,
                clips_per_s=cfg.tar_clips / (time.perf_counter() - begun),
                clips_per_cpu_s=cfg.tar_clips / (time.process_time() - worked),
            )


def bench_bss(cfg: DictConfig, outputs: int, device: torch.device) -> None:
    """BSS Eval of several systems' outputs for each mixture, against museval's."""
    from sep.metrics.bss_speed import against_museval

    size = {"clips": cfg.clips, "outputs": outputs}
    found = against_museval(
        **size, samples=SAMPLES, jobs=cfg.threads, repeats=cfg.repeats, device=device
    )
    emit("bss", **size, **found)


def run(cfg: DictConfig) -> None:
    """Every case with every model."""
    device = resolve(cfg.device)
    torch.set_num_threads(cfg.threads)
    place = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    emit("machine", device=place, threads=cfg.threads, torch=torch.__version__)
    for case in cfg.cases:
        for name in cfg.encoders if case == "embed" else ():
            bench_embed(cfg, name, device)
        if case == "shards":
            with tempfile.TemporaryDirectory() as home:
                bench_shards(cfg, Path(home))
        for outputs in cfg.outputs if case == "bss" else ():
            bench_bss(cfg, outputs, device)
        for name in cfg.models if case not in ("embed", "shards", "bss") else ():
            with tempfile.TemporaryDirectory() as home:
                if case == "model":
                    bench_model(cfg, name, device)
                elif case == "file":
                    bench_file(cfg, name, device, Path(home))
                elif case == "length":
                    bench_length(cfg, name, device, Path(home))
                elif case == "train":
                    bench_train(cfg, name, device, Path(home))
                elif case == "rl":
                    bench_rl(cfg, name, device, Path(home))
                elif case == "rl_cost":
                    bench_rl_cost(cfg, name, device, Path(home))


@hydra.main(version_base=None, config_path="conf", config_name="bench")
def main(cfg: DictConfig) -> None:
    guarded(run, cfg)


if __name__ == "__main__":
    main()
