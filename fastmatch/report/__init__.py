"One page for a finished run: is it good, and where does it fail? Takes embeddings, a rule and scores; no fastai, no torch."
from .write import report_html, write_report

__all__ = ['report_html', 'write_report']
