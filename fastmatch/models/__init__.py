"Encoders and the matching model: torch only; timm and transformers are imported where they are used."
from .classify import ClassifyNet
from .image import ImageEncoder
from .joint import MatchNet
from .text import TitleEncoder, load_tokenizer

__all__ = ['ClassifyNet', 'ImageEncoder', 'MatchNet', 'TitleEncoder', 'load_tokenizer']
