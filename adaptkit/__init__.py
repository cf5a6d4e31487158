"""adaptkit: adapt frozen vision-language backbones, with few images or none.

Public names are listed in the stub beside this file and imported when first used, so that ``adaptkit --help`` need not
wait for torch.
"""

import lazy_loader

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
