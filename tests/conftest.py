"""What the whole suite runs under: every call of the package has its types and shapes checked."""

import jaxtyping

from tests.checked import checked

# What `--jaxtyping-packages` decorates with, before the package is first imported.
jaxtyping.jaxtyped = checked
