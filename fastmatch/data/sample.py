"The old place of `demo_path`."
from .demo import demo_path  # noqa: F401  joined later
