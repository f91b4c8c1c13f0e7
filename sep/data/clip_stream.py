"""Clips out of shards in a shuffled order that depends on seed, epoch and reader alone.

A reader is one thread of one process. In every epoch the tars are dealt to all readers anew, so
each clip is read exactly once an epoch, by one of them. Nobody waits for the others: a reader that
is through with its tars goes on with those of its next epoch.
"""

import random
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

from sep.data.shards import Clip, ShardSet
from sep.errors import DataError, OptionError

_CHUNK = 8  # clips decoded at a time
_NAMED = 10  # damaged clips that are said
_WAITING = 256  # clips that may wait for one of another label

T = TypeVar("T")


class Reader:
    """One of `readers` that share the tars.

    Args:
        shards: the folder.
        reader: which one this is; readers: how many there are.
        buffer: undecoded clips in the shuffle buffer.
        most: samples that are wanted of a longer clip, cut at random.
        seed: of the run.
    """

    def __init__(
        self, shards: ShardSet, reader: int, readers: int, buffer: int, most: int, seed: int
    ):
        if readers > len(shards.names):
            raise DataError(
                f"{shards.path}: {len(shards.names)} tars for {readers} readers (processes x "
                "tar_workers); use fewer readers, or pack fewer clips into a tar"
            )
        self.shards, self.reader, self.readers = shards, reader, readers
        self.buffer, self.most, self.seed = buffer, most, seed

    def tars(self, epoch: int) -> list[int]:
        """The tars that this reader gets in an epoch, in its order."""
        order = list(range(len(self.shards.names)))
        random.Random(f"{self.seed} {epoch}").shuffle(order)
        return order[self.reader :: self.readers]

    def clips(self, epoch: int, position: int) -> Iterator[tuple[int, int, Clip]]:
        """Clips from a position of an epoch on, without end; each with where the next one is.

        A damaged clip is left out, and named in a warning as long as they are few.

        Raises:
            DataError: more than one in a hundred clips is damaged.
        """
        while True:
            for place, sample in self._epoch(epoch, position):
                position += 1
                try:
                    clip = self.decode(sample, place)
                except DataError as error:
                    self._leave_out(place, error)
                    continue
                yield epoch, position, clip
            epoch, position = epoch + 1, 0

    def decode(self, sample: dict[str, Any], place: tuple[int, int, int]) -> Clip:
        """A clip, cut where seed and place say."""
        start = random.Random(f"{self.seed} {place}").random()
        return self.shards.clip(sample, place, start, self.most)

    def _leave_out(self, place: tuple[int, int, int], error: DataError) -> None:
        damaged, most = self.shards.damaged, max(1, len(self.shards) // 100)
        if place[1:] in damaged:
            return
        damaged.add(place[1:])
        if len(damaged) > most:
            raise DataError(f"{error}, and {most} before it; pack into an empty folder")
        if len(damaged) <= _NAMED:
            warnings.warn(f"{error}; left out, {len(damaged)} such clips so far", stacklevel=2)

    def _epoch(self, epoch: int, position: int) -> Iterator[tuple[tuple[int, int, int], Any]]:
        """Undecoded clips of an epoch from a position on, in shuffled order.

        What came before it is not kept anywhere: the same order is drawn again without clips, and
        tars of which nothing is left to come are not opened.
        """
        tars, order = self.tars(epoch), f"{self.seed} {epoch} {self.reader}"
        total = sum(self.shards.counts[tar] for tar in tars)
        gone = set(islice(shuffled(range(total), self.buffer, random.Random(order)), position))
        yield from islice(
            shuffled(self._members(epoch, tars, gone), self.buffer, random.Random(order)),
            position,
            None,
        )

    def _members(self, epoch: int, tars: list[int], gone: set[int]) -> Iterator[Any]:
        first = 0
        for tar in tars:
            count = self.shards.counts[tar]
            if gone.issuperset(range(first, first + count)):
                yield from [None] * count
            else:
                for member, sample in enumerate(self.shards.members(tar)):
                    yield None if first + member in gone else ((epoch, tar, member), sample)
            first += count


def shuffled(items: Iterable[T], size: int, draw: random.Random) -> Iterator[T]:
    """Each of the items once, in an order that a buffer of `size` of them allows."""
    held: list[T] = []
    for item in items:
        if len(held) < size:
            held.append(item)
            continue
        k = draw.randrange(size)
        held[k], item = item, held[k]
        yield item
    draw.shuffle(held)
    yield from held


class ClipStream:
    """Clips of a process, from all its readers in turn, in groups of different labels.

    Reading and decoding happen in threads ahead of their use; what is drawn, and the state, do not
    depend on how far ahead they are.

    Args:
        shards: the folder.
        rank, world: of this process.
        workers: readers of this process.
        buffer: clips in the shuffle buffers of all of them.
        most: samples that are wanted of a longer clip.
        seed: of the run.
        ahead: clips that are decoded ahead of their use.
    """

    def __init__(
        self,
        shards: ShardSet,
        rank: int = 0,
        world: int = 1,
        workers: int = 2,
        buffer: int = 2048,
        most: int = 72_000,
        seed: int = 0,
        ahead: int = 32,
    ):
        if workers < 1 or buffer < 1:
            raise OptionError("tar_workers and tar_buffer are numbers of 1 or more")
        self.shards, self.left_out = shards, 0
        self.readers = [
            Reader(shards, rank * workers + k, world * workers, -(-buffer // workers), most, seed)
            for k in range(workers)
        ]
        self._ahead = -(-ahead // (workers * _CHUNK))  # chunks of a reader
        self._threads = [ThreadPoolExecutor(1) for _ in self.readers]
        self.begin(0)

    def begin(self, epoch: int) -> None:
        """Start with the first clips of an epoch."""
        self.restore({"places": [[epoch, 0]] * len(self.readers), "turn": 0, "waiting": []})

    def state(self) -> dict[str, Any]:
        """Where the next clip comes from, plain numbers."""
        waiting = [list(clip.place) for clip in self._waiting]
        return {"places": [list(p) for p in self._places], "turn": self._turn, "waiting": waiting}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self._places = [tuple(place) for place in state["places"]]
        self._turn = state["turn"]
        self._waiting = self._again([tuple(place) for place in state["waiting"]])
        self._ready: list[deque] = [deque() for _ in self.readers]
        self._coming: list[deque[Future]] = [deque() for _ in self.readers]
        self._clips = [
            reader.clips(*place) for reader, place in zip(self.readers, self._places, strict=True)
        ]

    def groups(self, count: int, size: int) -> list[list[Clip]]:
        """The next clips in `count` groups of `size` different labels.

        A clip that finds no partner waits for a later group. Where one label has so many clips
        that ever more of them wait, the oldest are left out.
        """
        groups: list[list[Clip]] = []
        while len(groups) < count:
            group: dict[int, Clip] = {}
            for clip in self._waiting:
                if len(group) < size:
                    group.setdefault(clip.label, clip)
            if len(group) == size:
                taken = {id(clip) for clip in group.values()}
                self._waiting = [clip for clip in self._waiting if id(clip) not in taken]
                groups.append(list(group.values()))
            else:
                self._waiting.append(self._next())
                self._trim()
        return groups

    def _trim(self) -> None:
        if len(self._waiting) <= _WAITING:
            return
        name = self.shards.labels[self._waiting.pop(0).label]
        if not self.left_out:
            warnings.warn(
                f"{self.shards.path}: clips of '{name}' find no clip of another label for a "
                "mixture, and some are left out; pack a data directory with more of the others",
                stacklevel=2,
            )
        self.left_out += 1

    def _next(self) -> Clip:
        """The next clip of the reader whose turn it is."""
        turn = self._turn
        ready, coming = self._ready[turn], self._coming[turn]
        while len(coming) < self._ahead:
            coming.append(self._threads[turn].submit(self._chunk, self._clips[turn]))
        if not ready:
            ready.extend(coming.popleft().result())
        *place, clip = ready.popleft()
        self._places[turn] = tuple(place)
        self._turn = (turn + 1) % len(self.readers)
        return clip

    @staticmethod
    def _chunk(clips: Iterator) -> list:
        return list(islice(clips, _CHUNK))

    def _again(self, places: list[tuple[int, int, int]]) -> list[Clip]:
        """Clips that were read before, by their places."""
        found: dict[tuple[int, int, int], Clip] = {}
        for tar in {tar for _, tar, _ in places}:
            for member, sample in enumerate(self.shards.members(tar)):
                for place in places:
                    if place[1:] == (tar, member):
                        found[place] = self.readers[0].decode(sample, place)
        return [found[place] for place in places]
