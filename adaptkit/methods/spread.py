"""A training on several devices: a process for each, started for it and gone after it, and how they are told apart."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException, start_processes

from adaptkit.methods.method import Method

KEYS = ("devices", "strategy", "num_nodes")
RankWork = Callable[[int, int, tuple[Any, ...]], dict[str, Tensor]]
LOGGING = "TORCH_CPP_LOG_LEVEL"
WHY = "its loss or its callbacks may look at all images of a batch at once; leave out devices"


def processes(options: Mapping[str, object], device: torch.device) -> int:
    """How many processes train, one for each device.

    Raises:
        ValueError: for more GPUs than there are.
    """
    asked, there = options.get("devices", 1), torch.cuda.device_count() if device.type == "cuda" else 1
    count = there if asked == "auto" else int(asked or 1)  # type: ignore[call-overload]
    if count > 1 and device.type not in ("cpu", "cuda"):
        raise ValueError(f"trainer.devices must be 1 on {device.type}; got {count}")
    if device.type == "cuda" and count > there:
        raise ValueError(f"trainer.devices must be at most the GPUs that are there, {there}; got {count}")
    return count


def one_card(device: torch.device) -> dict[str, object]:
    """What tells Lightning to train on that one GPU of several; nothing elsewhere."""
    return {"devices": [device.index]} if device.type == "cuda" and device.index else {}


def check_spreads(method: Method, options: Mapping[str, object]) -> None:
    """A method's loss is a mean over the images of a batch, but for terms that no image has a part in.

    Raises:
        ValueError: for one that may be otherwise.
    """
    mean = type(method).loss is Method.loss or getattr(type(method).loss, "mean", False)
    if not mean or type(method).callbacks is not Method.callbacks or getattr(method, "keeps_start", False):
        got = f"{options.get('devices')!r} for {type(method).__name__}"
        raise ValueError(f"trainer must not set devices for every method; got {got}: {WHY}")


Loss = TypeVar("Loss", bound=Callable[..., Tensor])


def mean_over_images(loss: Loss) -> Loss:
    """Mark a method's ``loss``: the mean over a batch's images of what each one gives, and terms that need no image.

    A training on several devices is then that on one: each takes a part of every batch.
    """
    loss.mean = True  # type: ignore[attr-defined]
    return loss


def launch(work: RankWork, given: tuple[Any, ...], count: int) -> dict[str, Tensor]:
    """Do some work in several new processes, and return what the first one returns.

    They are told nothing but what is given: a process that is started so runs no line of the program that starts it.

    Raises:
        ValueError: with what the first of them that failed says.
    """
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "state.pt"
        states = torch.get_rng_state(), max(1, torch.get_num_threads() // count)
        args = (given, work, count, free_port(), str(found), *states)
        running, log = None, os.environ.get(LOGGING)
        os.environ[LOGGING] = "ERROR"  # torch's warnings of what is so by design; a process reads it when it begins
        try:
            running = start_processes(in_process, args, count, join=False, daemon=True, start_method="spawn")
            while not running.join():
                pass
        except ProcessRaisedException as error:
            raise error_of(error.msg) from error
        except ProcessExitedException as error:
            raise RuntimeError(f"a process of the training must end by itself; got {error}") from error
        except (AttributeError, TypeError, ImportError) as error:  # of what cannot be sent
            raise ValueError(
                f"a method must be one that can be sent to a process, to train on several devices; got {error}"
            ) from error
        finally:
            os.environ.pop(LOGGING)
            os.environ |= {LOGGING: log} if log is not None else {}
            for process in running.processes if running else ():
                if process.is_alive():
                    process.kill()  # Lightning would hold back SIGTERM until a step ends, which waits for the others
        state, draws = torch.load(found, weights_only=True)
        torch.set_rng_state(draws)  # as if it had been done here
        return state


def in_process(
    rank: int, given: tuple[Any, ...], work: RankWork, count: int, port: int, found: str, draws: Tensor, threads: int
) -> None:
    """One of the processes: each draws as the one that started it would, and ends when that does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one that started it, which then ends this one
    threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_RANK": str(rank), "NODE_RANK": "0"}
    torch.set_num_threads(threads)
    torch.set_rng_state(draws)
    state = work(rank, count, given)
    if not rank:
        torch.save((state, torch.get_rng_state()), found)


def end_with(parent: int) -> None:
    """End this process, whatever it waits for, within a second after its parent has ended in any way."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def error_of(text: str) -> Exception:
    """The error that a process ended with, from its traceback."""
    kind, _, said = text.strip().splitlines()[-1].partition(": ")
    known = {"torch.OutOfMemoryError": torch.OutOfMemoryError, "ValueError": ValueError, "MemoryError": MemoryError}
    return known[kind](said) if kind in known else RuntimeError(f"{kind}: {said}")


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
