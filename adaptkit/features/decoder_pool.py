"""Processes that decode pictures for this one, the memory they share, and what is done when one dies."""

from __future__ import annotations

import mmap
import os
import socket
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile

from adaptkit.features.decoder import libraries
from adaptkit.io.files import canonical
from adaptkit.io.jsons import parse_json
from adaptkit.towers.preprocess import Preprocess

STARTED = "import os, sys; sys.argv[0] = 'adaptkit'; sys.path[:] = sys.argv[1].split(os.pathsep)"
SERVE = f"{STARTED}; from adaptkit.features.decoder import serve; serve(int(sys.argv[2]), int(sys.argv[3]))"
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
LOST = 3  # processes that may die before no more are started in their place

Wanted = Sequence[tuple[Path, int, int, str]]  # files, slots for pixels, which view of each, and how it is drawn


class Helper:
    """One process. It is no `multiprocessing.Process`: these run the user's script again, and daemons may have none."""

    def __init__(self, memory: int, how: bytes) -> None:
        """Start it; an OSError where that cannot be.

        Args:
            memory: descriptor of the shared memory.
            how: what it is told first.
        """
        if not sys.executable or getattr(sys, "frozen", False):
            raise OSError("there is no interpreter that could run it")
        ours, theirs = socket.socketpair()
        with ours, theirs:
            command = [sys.executable, "-c", SERVE, os.pathsep.join(map(str, sys.path))]
            command += [str(theirs.fileno()), str(memory)]
            null, env = subprocess.DEVNULL, os.environ | ONE_THREAD
            self.process = subprocess.Popen(
                command, pass_fds=(theirs.fileno(), memory), env=env, stdin=null, stdout=null, stderr=null
            )
            self.line = Connection(ours.detach())
        self.line.send_bytes(how)
        self.greeted = False

    @property
    def ready(self) -> bool:
        """Whether it has started, or died."""
        return self.greeted or self.line.poll()

    def ask(self, wanted: Wanted) -> list[str]:
        """Let it decode; the digests of the files, "" for what it cannot do.

        Raises:
            OSError: when it died, or is not what it must be.
        """
        try:
            if not self.greeted:
                if parse_json(self.line.recv_bytes()) != libraries():
                    raise OSError("it has other libraries")
                self.greeted = True
            paths, slots, views, augments = zip(*wanted, strict=True)
            files = [os.path.abspath(path) for path in paths]
            request = {"paths": files, "slots": slots, "views": views, "augments": augments}
            self.line.send_bytes(canonical(request))
            return [str(key) for key in parse_json(self.line.recv_bytes())]
        except (EOFError, ValueError) as error:
            raise OSError("it died") from error

    def kill(self) -> None:
        """End it; whoever waits for its answer learns that it died."""
        self.process.kill()
        self.process.wait()


class Helpers:
    """Some processes, each with a thread that waits for it, and the slots of their shared memory.

    The memory has no name: nothing stays behind, whatever is killed, and how large /dev/shm is does not matter.
    """

    def __init__(self, count: int, slots: int, how: Preprocess) -> None:
        """Start them; an OSError where that cannot be.

        Args:
            count: of processes.
            slots: pictures that are held at once.
            how: the preprocessing.
        """
        told = {"preprocess": asdict(how), "most": Image.MAX_IMAGE_PIXELS}
        self.how = canonical(told | {"truncated": ImageFile.LOAD_TRUNCATED_IMAGES})
        self.memory, shape = unnamed(slots * how.size**2 * 3), (slots, how.size, how.size, 3)
        self.slab = np.frombuffer(mmap.mmap(self.memory, 0), np.uint8).reshape(shape)
        self.free, self.lost, self.closed = deque(range(slots)), 0, False
        self.all, self.idle = list[Helper](), deque[Helper]()
        self.threads = ThreadPoolExecutor(count, thread_name_prefix="helped")
        try:
            for _ in range(count):
                self._start()
        except OSError:
            self.close()
            raise

    def _start(self) -> None:
        helper = Helper(self.memory, self.how)
        self.all.append(helper)
        self.idle.append(helper)

    def ask(self, wanted: Wanted) -> list[str]:
        """The answer of an idle one, or "" for all: while they start, when one dies, and when too many have died."""
        try:
            helper = self.idle.pop()
        except IndexError:
            return [""] * len(wanted)
        if not helper.ready:
            self.idle.appendleft(helper)
            return [""] * len(wanted)
        try:
            keys = helper.ask(wanted)
            self.idle.append(helper)
            return keys
        except OSError:
            helper.kill()
            self.lost += 1
            if self.closed:
                raise CancelledError from None
            if self.lost <= LOST:
                with suppress(OSError):  # then there is one less
                    self._start()
            return [""] * len(wanted)

    def close(self) -> None:
        """End them all at once, whatever they are doing."""
        self.closed = True
        for helper in self.all:
            helper.kill()
        self.threads.shutdown(cancel_futures=True)
        for helper in self.all:
            helper.kill()  # one that was started meanwhile, too
            helper.line.close()
        os.close(self.memory)


def unnamed(size: int) -> int:
    """A descriptor of so many bytes of memory that processes can share, or of a nameless file where there is none.

    Raises:
        OSError: when there is not so much of it.
    """
    if hasattr(os, "memfd_create"):
        memory = os.memfd_create("adaptkit")
    else:
        with tempfile.TemporaryFile() as file:
            memory = os.dup(file.fileno())
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(memory, 0, size)  # now, not once a process writes there
        else:
            os.truncate(memory, size)
    except OSError:
        os.close(memory)
        raise
    return memory
