"Match product listings by image and title, on fastai."
__version__ = "0.1.0"
