import os
import sys

# Stubs of Python 3.11 and later start isolated, without PYTHONPATH.
sys.path[:0] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))

from cloud.embed_model import EmbedModel as TritonPythonModel  # noqa: E402, F401 - the name Triton looks for
