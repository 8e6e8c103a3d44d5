# The public names, each from where it is defined: Python, type checkers and editors read them here (SPEC 1 of
# scientific-python.org). docs/python.md says what each is.

# modules
from . import errors as errors
from . import events as events
from . import samples as samples

# slides
from .slides import Slide as Slide
from .slides import open_slide as open_slide
from .slides import save_mpp as save_mpp

# labelled tiles and the image bank
from .bank import ImageBank as ImageBank
from .bank import LabelledTile as LabelledTile
from .bank import TileSet as TileSet
from .bank import find_splits as find_splits
from .bank import load_single_tiles as load_single_tiles
from .bank import load_tiles as load_tiles
from .bank.mosaics import write_masked as write_masked
from .engine.banks.build_bank import build_bank as build_bank

# settings
from .config import BankSettings as BankSettings
from .config import CompareJob as CompareJob
from .config import DataSettings as DataSettings
from .config import JobSettings as JobSettings
from .config import RefineSettings as RefineSettings
from .config import SegmentSettings as SegmentSettings
from .config import ThresholdSettings as ThresholdSettings
from .taxonomy import ClassDisplay as ClassDisplay

# jobs
from .engine.compare import compare as compare
from .engine.fetch_results import fetch_results as fetch_results
from .engine.inference.evaluate import evaluate as evaluate
from .engine.inference.pseudo_masks import pseudo_masks as pseudo_masks
from .engine.inference.segment import segment as segment
from .engine.inference.segment_slides import segment_slides as segment_slides
from .engine.outputs.export import export as export
from .engine.training.train import train as train
from .sharing import report as report
from .sharing.packing import pack as pack
from .sharing.push import push as push
from .sharing.unpacking import unpack as unpack
from .progress import run as run

# results
from .results import ScoreStore as ScoreStore
from .results import open_labels as open_labels

# what packages that add a method, an encoder or a slide reader are made of
from .config import CamSettings as CamSettings
from .config import PyramidSettings as PyramidSettings
from .models.backbones import Backbone as Backbone
from .models.encoders import EncoderSpec as EncoderSpec
from .models.encoders.base import Encoder as Encoder
from .models.methods.cam import Cam as Cam
from .models.methods.pyramid_method import PyramidMethod as PyramidMethod
from .slides import ArrayReader as ArrayReader
from .slides import Level as Level
from .slides import Reader as Reader
from .slides import ReaderEntry as ReaderEntry

__version__: str
