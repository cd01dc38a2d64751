"One html page about a finished run: is it good, and where does it fail? Needs neither fastai nor torch."
from .write import report_html, write_report

__all__ = ['report_html', 'write_report']
