"""What several tests of evaluation make by hand."""

import numpy as np


def to_uint8(image):
    """Returns a picture that was changed in floats as one of pixels again."""
    return np.clip(np.round(image), 0, 255).astype(np.uint8)


def clause(name, count=1, **more):
    """Returns what one of GenEval's prompts asks for."""
    return {"class": name, "count": count, **more}
