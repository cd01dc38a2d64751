"""Encoders of pictures and titles, and the models made of them: torch only; timm and transformers are
imported when used."""
from .changed import with_attention, with_ibn
from .classify import ClassifyNet
from .frozen import FrameFeatures
from .image import ImageEncoder
from .joint import MatchNet
from .parts import PartEncoder, Parts
from .registry import register_encoder
from .text import TitleEncoder, load_tokenizer
from .views import Views

__all__ = ['ClassifyNet', 'FrameFeatures', 'ImageEncoder', 'MatchNet', 'PartEncoder', 'Parts', 'TitleEncoder',
           'Views', 'load_tokenizer', 'register_encoder', 'with_attention', 'with_ibn']
