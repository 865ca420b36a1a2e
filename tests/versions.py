"""What holds only under some versions of `transformers`."""

import pytest
import transformers
from packaging.version import Version

text_of_newest = pytest.mark.skipif(
    Version(transformers.__version__) < Version("5.24"),
    reason="compares with the text of transformers 5.24's own generate; 5.17's is another here",
)
