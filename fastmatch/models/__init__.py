"Encoders and the matching model: torch only; timm and transformers are imported where they are used."
from .image import ImageEncoder
from .joint import MatchNet
from .text import TitleEncoder, load_tokenizer

__all__ = ['ImageEncoder', 'MatchNet', 'TitleEncoder', 'load_tokenizer']
