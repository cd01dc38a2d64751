"""A catalogue that lives: listings in groups whose numbers stay, in one SQLite file, beside the matcher that
decides. Opening it for reading needs neither torch nor a matcher."""
from .catalogue import Catalogue
from .reembed import reembed
from .settle import Changes
from .why import Why

__all__ = ['Catalogue', 'Changes', 'Why', 'reembed']
