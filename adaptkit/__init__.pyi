from .backbone import Backbone as Backbone
from .backbone import unit as unit
from .contract import Method as Method
from .experiment import compare as compare
from .experiment import load as load
from .hooks import hookimpl as hookimpl
from .hooks import hookspec as hookspec
from .images import Images as Images
from .needs import Need as Need
from .needs import Patches as Patches
from .needs import Pixels as Pixels
from .needs import Pooled as Pooled
from .options import method as method
from .preprocess import Preprocess as Preprocess
from .prompting import Prompts as Prompts
from .run import accuracy as accuracy
from .run import adapt as adapt
from .run import predict as predict
from .run import tune as tune
from .schedule import Schedule as Schedule
from .task import Splits as Splits
from .task import Task as Task
from .zero_shot import ZeroShot as ZeroShot

__version__: str
