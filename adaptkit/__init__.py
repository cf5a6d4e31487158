"""adaptkit: adapt frozen vision-language backbones, with few images or none.

Public names are listed in the stub beside this file and imported when first used, so that ``adaptkit --help`` need not
wait for torch.
"""

import sys
from pathlib import PurePath

import lazy_loader

from adaptkit.io.namesake import namesake

COMMAND = ("adaptkit", "-m")  # how it is called as a command, which says it in its own way
if PurePath(sys.argv[0] if sys.argv else "").stem not in COMMAND and (wrong := namesake()):
    raise ImportError(wrong)

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
