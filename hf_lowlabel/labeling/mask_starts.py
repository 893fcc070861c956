"""Starting points for painting a mask: the mask of a model, or superpixels."""

from __future__ import annotations

import numpy as np

from ..data.pages import range_of
from ..data.pixels.masks import IGNORE
from ..errors import UserError


class Segmenter:
    """A saved segmenter; names: its classes."""

    def __init__(self, model: str):
        from ..prediction import task_of  # torch comes with it, and most pages do without

        task = task_of(model)
        if task.labeling != "mask":
            raise UserError(f"{model!r} is a model for {task.name}, and masks come from a segmenter. Give one.")
        self.model = task.load(model)
        self.names = task.names_of(self.model)
        self.value_range = range_of(getattr(self.model.config, "value_range", None) or ())

    def mask(self, image: np.ndarray, names: list[str]) -> np.ndarray:
        """Its classes at the numbers they have in `names`, uint8 [H, W]; 255 for those that are not there.

        Args:
            image: uint8 [H, W, 3].
            names: the classes of the page.
        """
        from ..evaluation.segmentation import segment

        config = self.model.config
        seen = dict(mean=config.image_mean, std=config.image_std, long_side=config.image_size)
        number = [names.index(name) if name in names else IGNORE for name in self.names]
        return np.array(number, np.uint8)[segment(self.model, image, **seen)[0]]


def superpixels(image: np.ndarray, pieces: int) -> np.ndarray:
    """Number of the superpixel of every pixel, uint16 [H, W]: SLIC (Achanta et al. 2012) by scikit-image.

    Args:
        image: uint8 [H, W, 3].
        pieces: about how many there are.

    Raises:
        UserError: scikit-image is not there.
    """
    try:
        from skimage.segmentation import slic
    except ImportError as error:
        raise UserError("Superpixels need scikit-image: pip install 'hf_lowlabel[masks]', then start again.") from error
    found = slic(image, n_segments=min(pieces, 60_000), compactness=10, start_label=0)
    return found.astype(np.uint16)
