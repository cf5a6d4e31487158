"""New processes for tests, forked from one that has loaded the libraries, which takes each process seconds."""

import atexit
import multiprocessing
import os
import signal
import sys
import tempfile
from pathlib import Path

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["torch", "transformers.models.clip.modeling_clip", "scipy.stats", "matplotlib.figure"])


class Forked:
    """A process that runs a function of a module; what it prints goes to files. Ask it as one asks a `Popen`."""

    def __init__(self, function, *given, env=None):
        self.folder = tempfile.TemporaryDirectory(prefix="adaptkit-process-")
        environment = {**os.environ, **(env or {})}
        self.process = FORKS.Process(target=begin, args=(self.folder.name, os.getcwd(), environment, function, given))
        self.process.start()
        self.pid = self.process.pid
        atexit.register(self.kill)

    def poll(self):
        """Its exit code; none while it runs."""
        return self.process.exitcode

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout=150):
        """What it wrote to both streams, once it has ended.

        Raises:
            AssertionError: where it has not, in time; it is killed then.
        """
        self.process.join(timeout)
        late = self.poll() is None
        self.kill()
        self.process.join()
        said = tuple((Path(self.folder.name) / name).read_text() for name in ("out", "err"))
        assert not late, f"the process must end in {timeout} seconds; it said {said}"
        return said

    def result(self, timeout=150):
        """What it printed, of a process that succeeded.

        Raises:
            AssertionError: where it did not.
        """
        out, err = self.communicate(timeout)
        assert self.poll() == 0, f"the process must succeed; it ended with {self.poll()} and said {err}"
        return out


def command(*words, env=None):
    """The command line of adaptkit, in a process of its own."""
    return Forked(run_command, [str(word) for word in words], env=env)


def run_command(words):
    from adaptkit import cli

    sys.exit(cli.main(words))


def begin(folder, here, environment, function, given):
    """The first that a new process does: what it prints goes to files, and its environment is the test's."""
    for stream, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(Path(folder) / name, os.O_CREAT | os.O_WRONLY), stream)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(here)
    function(*given)
