"""Packs a split with its query embeddings into WebDataset tars, which stages 4 and 5 stream.

For data that do not fit into memory, or that lie on a slow or shared disk: training with
`tars=FOLDER` reads each tar from end to end and holds a shuffle buffer, no list of files. After
stage 3, as each clip takes its query embeddings along: of its wordings, of its picture, and of
`others` recordings of its label, one of which is the audio query. An interrupted run goes on with
the tars that lack; no tar is ever half written.
"""

import sep.interrupt  # noqa: F401, first, for Ctrl-C during the imports below

# isort: split

import time
from pathlib import Path

import hydra
from omegaconf import DictConfig

from sep.data.bank import QueryBank
from sep.data.kaldi import DataDir
from sep.data.packing import Packing, pack
from sep.program import guarded, say


def shard(cfg: DictConfig) -> None:
    """Pack the split."""
    options = Packing(cfg.clips, cfg.audio, cfg.others, cfg.images, cfg.seed)
    data = DataDir(Path(cfg.data) / cfg.split)
    queries = QueryBank(Path(cfg.exp) / "queries" / f"{cfg.split}.safetensors")
    began = time.monotonic()
    index = pack(data, queries, cfg.out, options, cfg.jobs, say)
    clips, left_out = sum(tar["clips"] for tar in index["shards"]), len(index["left_out"])
    size = sum(tar["bytes"] for tar in index["shards"])
    say(
        f"shard: {clips} clips of {len(index['labels'])} labels in {len(index['shards'])} tars, "
        f"{size / 1e6:.1f} MB, {left_out} left out, {time.monotonic() - began:.0f} s -> {cfg.out}"
    )


@hydra.main(version_base=None, config_path="conf", config_name="shard")
def main(cfg: DictConfig) -> None:
    guarded(shard, cfg)


if __name__ == "__main__":
    main()
